"""Documents, their tags and idempotency tokens, as SQL text with named parameters, and what runs it.

The text is plain enough for SQLite and PostgreSQL both; each function takes the driver's way to run a statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.store.records import Document, Query, Ref, Stale, TagsGone, TagsPut, Taken, Token
from penstock.store.statements import Run

COLUMNS = "kind, account, region, name, arn, parent, status, label, rank, created, updated, version, body"
BODILESS = COLUMNS.removesuffix("body") + "'{}'"
REF = "kind = :kind AND account = :account AND region = :region AND name = :name"

GET = f"SELECT {COLUMNS} FROM documents WHERE {REF}"
BY_ARN = f"SELECT {COLUMNS} FROM documents WHERE arn = :arn AND arn <> ''"
VERSION = f"SELECT version FROM documents WHERE {REF}"
INSERT = f"""
INSERT INTO documents ({COLUMNS})
VALUES (:kind, :account, :region, :name, :arn, :parent, :status, :label, :rank, :created, :updated, 1, :body)
ON CONFLICT DO NOTHING"""
UPDATE_BODY = f"""
UPDATE documents SET status = :status, updated = :updated, version = version + 1, body = :body
WHERE {REF} AND version = :version
    AND arn = :arn AND parent = :parent AND label = :label AND rank = :rank AND created = :created"""
"""The common case: it leaves alone the indexes of what hardly ever changes."""
UPDATE_ALL = f"""
UPDATE documents SET arn = :arn, parent = :parent, status = :status, label = :label, rank = :rank, created = :created,
    updated = :updated, version = version + 1, body = :body
WHERE {REF} AND version = :version"""
DELETE = f"DELETE FROM documents WHERE {REF} AND version = :version"

TAGS = "SELECT key, value FROM tags WHERE arn = :arn ORDER BY key"
TAGGED = "SELECT arn, key, value FROM tags WHERE arn LIKE :pattern ORDER BY arn, key"
TAG_PUT = """
INSERT INTO tags (arn, key, value) VALUES (:arn, :key, :value)
ON CONFLICT (arn, key) DO UPDATE SET value = excluded.value"""
TAG_GONE = "DELETE FROM tags WHERE arn = :arn AND key = :key"
TAGS_GONE = "DELETE FROM tags WHERE arn = :arn"

ANSWER = """
SELECT digest, result FROM tokens
WHERE account = :account AND region = :region AND operation = :operation AND token = :token AND expires > :now"""
ANSWERS_EXPIRED = "DELETE FROM tokens WHERE expires <= :now"
ANSWER_PUT = """
INSERT INTO tokens (account, region, operation, token, digest, result, expires)
VALUES (:account, :region, :operation, :token, :digest, :result, :expires) ON CONFLICT DO NOTHING"""

ORDERS = ("created", "updated", "name", "status", "label", "rank")
_body = msgspec.json.Decoder(dict[str, Any])


def text(value: Any) -> str:
    """The value as JSON text."""
    return msgspec.json.encode(value).decode()


def document(row: Sequence[Any]) -> Document:
    """The document that a row of COLUMNS holds."""
    return Document(
        kind=row[0], account=row[1], region=row[2], name=row[3], arn=row[4], parent=row[5], status=row[6], label=row[7],
        rank=row[8], created=row[9], updated=row[10], version=row[11], body=_body.decode(row[12]),
    )  # fmt: skip


def values(ref: Ref) -> dict[str, str]:
    """The parameters of REF."""
    return {"kind": ref.kind, "account": ref.account, "region": ref.region, "name": ref.name}


# --- writes


def put(run: Run, given: Document) -> None:
    """Stores a document over the version it expects.

    Raises: Taken, Stale.
    """
    row = {
        "kind": given.kind, "account": given.account, "region": given.region, "name": given.name, "arn": given.arn,
        "parent": given.parent, "status": given.status, "label": given.label, "rank": given.rank,
        "created": given.created, "updated": given.updated, "version": given.version, "body": text(given.body),
    }  # fmt: skip
    if given.version == 0:
        if not run(INSERT, row).rowcount:
            raise Taken(given.ref)
    elif not run(UPDATE_BODY, row).rowcount and not run(UPDATE_ALL, row).rowcount:
        raise Stale(given.ref)


def delete(run: Run, given: Document) -> None:
    """Removes a document that is still at the version seen.

    Raises: Stale.
    """
    if not run(DELETE, {**values(given.ref), "version": given.version}).rowcount:
        raise Stale(given.ref)


def check(run: Run, seen: Document) -> None:
    """Makes sure that a document that was only looked at did not change.

    Raises: Stale.
    """
    found = run(VERSION, values(seen.ref)).fetchone()
    if (found[0] if found else 0) != seen.version:
        raise Stale(seen.ref)


def put_tags(run: Run, row: TagsPut) -> None:
    for key, value in row.tags.items():
        run(TAG_PUT, {"arn": row.arn, "key": key, "value": value})


def drop_tags(run: Run, row: TagsGone) -> None:
    if row.keys is None:
        run(TAGS_GONE, {"arn": row.arn})
    for key in row.keys or ():
        run(TAG_GONE, {"arn": row.arn, "key": key})


def put_token(run: Run, row: Token, now: float) -> None:
    """Keeps a token's answer, and lets go of those that have expired.

    Raises: Taken, when the token is there already.
    """
    run(ANSWERS_EXPIRED, {"now": now})
    given = {
        "account": row.account, "region": row.region, "operation": row.operation, "token": row.token,
        "digest": row.digest, "result": text(row.result), "expires": row.expires,
    }  # fmt: skip
    if not run(ANSWER_PUT, given).rowcount:
        raise Taken(Ref(f"token:{row.operation}", row.account, row.region, row.token))


# --- questions


def tagged(run: Run, account: str, region: str) -> dict[str, dict[str, str]]:
    """The tags of resources whose ARN names this account and region."""
    found: dict[str, dict[str, str]] = {}
    for arn, key, value in run(TAGGED, {"pattern": f"arn:%:{region}:{account}:%"}):
        if arn.split(":", 5)[3:5] == [region, account]:  # the pattern's % may have been more than one part
            found.setdefault(arn, {})[key] = value
    return found


def page(query: Query) -> tuple[str, dict[str, Any]]:
    """The statement and parameters of a page; its range lies in one index, so that deep pages cost no more."""
    if query.order not in ORDERS:
        raise ValueError(f"documents have no order {query.order!r}")
    where, given = _filters(query)
    way, sign = ("DESC", "<") if query.descending else ("ASC", ">")
    order = "name" if query.order == "name" else f"{query.order}, name"
    if query.after is not None:
        given["after_name"] = query.after[1]
        if query.order == "name":
            where.append(f"name {sign} :after_name")
        else:
            where.append(f"({order}) {sign} (:after_value, :after_name)")
            given["after_value"] = query.after[0]
    given["limit"] = query.limit
    ordered = ", ".join(f"{column} {way}" for column in order.split(", "))
    columns = COLUMNS if query.bodies else BODILESS
    return f"SELECT {columns} FROM documents WHERE {' AND '.join(where)} ORDER BY {ordered} LIMIT :limit", given


def statuses(kind: str, account: str, region: str, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The statement and parameters of the statuses of documents by name; few texts, whatever the number of names."""
    padded = [*names, *[names[-1]] * ((1 << (len(names) - 1).bit_length()) - len(names))]
    given: dict[str, Any] = {f"name{number}": name for number, name in enumerate(padded)}
    listed = ", ".join(f":{each}" for each in given)
    where = f"kind = :kind AND account = :account AND region = :region AND name IN ({listed})"
    return f"SELECT name, status FROM documents WHERE {where}", given | {"kind": kind, "account": account, "region": region}


def latest(kind: str, account: str, region: str, parents: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The statement and parameters of when each parent's newest document of a kind was made: an end of an index each."""
    given: dict[str, Any] = {"kind": kind, "account": account, "region": region}
    given |= {f"parent{number}": parent for number, parent in enumerate(parents)}
    own = "kind = :kind AND account = :account AND region = :region AND parent <> ''"
    terms = [f"SELECT :{each}, (SELECT max(created) FROM documents WHERE parent = :{each} AND {own})"
             for each in list(given)[3:]]  # fmt: skip
    return " UNION ALL ".join(terms), given


def count(query: Query) -> tuple[str, dict[str, Any]]:
    """The statement and parameters that count what the filters let through, whatever the page."""
    where, given = _filters(query)
    return f"SELECT count(*) FROM documents WHERE {' AND '.join(where)}", given


def _filters(query: Query) -> tuple[list[str], dict[str, Any]]:
    where = ["kind = :kind"]
    given: dict[str, Any] = {"kind": query.kind}
    for column in ("account", "region", "parent", "status", "label"):
        value = getattr(query, column)
        if value is not None:
            where.append(f"{column} = :{column}")
            if value and column in ("parent", "status", "label"):
                where.append(f"{column} <> ''")  # said so that the planner may use the index that leaves empty ones out
            given[column] = value
    for column in ("created", "updated", "rank"):
        walked = "+" if (column, query.order) == ("rank", "name") else ""  # so that the planner walks the names, and sorts nothing
        for sign, bound in ((">", f"{column}_after"), ("<", f"{column}_before")):
            if getattr(query, bound) is not None:
                where.append(f"{walked}{column} {sign} :{bound}")
                given[bound] = getattr(query, bound)
    if query.free_at is not None:
        near = " AND ".join(f"{column} = :{column}" for column in ("parent", "kind", "account", "region"))
        where.append(f"label NOT IN (SELECT label FROM documents WHERE {near} AND parent <> '' AND rank > :free_at)")
        given["free_at"] = query.free_at
    if query.name_prefix:
        where.append("name >= :name_prefix")
        given["name_prefix"] = query.name_prefix
        if (end := beyond(query.name_prefix)) is not None:
            where.append("name < :name_end")
            given["name_end"] = end
    if query.name_contains:
        where.append("replace(name, :name_contains, '') <> name")
        given["name_contains"] = query.name_contains
    return where, given


def beyond(prefix: str) -> str | None:
    """The least text that sorts after all texts with the prefix, in code point order; None when there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[at]) + 1
        if point <= 0x10FFFF:
            return prefix[:at] + chr(0xE000 if 0xD800 <= point <= 0xDFFF else point)
    return None
