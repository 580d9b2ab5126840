"""Objects, their versions and the parts of uploads: SQL text, what runs it, and the walk of a listing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec

from penstock.store.documents import beyond, text
from penstock.store.records import (
    BucketEmpty,
    ObjectDelete,
    ObjectMeta,
    ObjectPage,
    ObjectPut,
    ObjectQuery,
    ObjectRow,
    Part,
    Seen,
    Stale,
    Unmet,
    UploadGone,
    UploadPart,
)
from penstock.store.statements import Rows, Run

COLUMNS = "bucket, key, version_id, latest, marker, modified, size_bytes, etag, parts, meta"
KEY = "bucket = :bucket AND key = :key"

LATEST = f"SELECT {COLUMNS}, inline FROM objects WHERE {KEY} AND latest = 1"
VERSION = f"SELECT {COLUMNS}, inline FROM objects WHERE {KEY} AND version_id = :version_id"
LATEST_STATE = f"SELECT seq, version_id, etag, marker FROM objects WHERE {KEY} AND latest = 1"
REPLACE = f"DELETE FROM objects WHERE {KEY} AND version_id = :version_id"
AGE = "UPDATE objects SET latest = 0 WHERE seq = :seq"
INSERT = f"""
INSERT INTO objects ({COLUMNS}, inline)
VALUES (:bucket, :key, :version_id, 1, :marker, :modified, :size_bytes, :etag, :parts, :meta, :inline) RETURNING seq"""
BLOB_PUT = "INSERT INTO object_blobs (seq, sha256) VALUES (:seq, :sha256) ON CONFLICT DO NOTHING"
DELETE = f"DELETE FROM objects WHERE {KEY} AND version_id = :version_id RETURNING latest"
PROMOTE = f"UPDATE objects SET latest = 1 WHERE seq = (SELECT max(seq) FROM objects WHERE {KEY})"
SEEN_LATEST = f"SELECT version_id, modified, etag, meta FROM objects WHERE {KEY} AND latest = 1"
SEEN_VERSION = f"SELECT version_id, modified, etag, meta FROM objects WHERE {KEY} AND version_id = :version_id"
SET_META = f"UPDATE objects SET meta = :meta WHERE {KEY} AND version_id = :version_id"

ANY = "SELECT 1 FROM objects WHERE bucket = :bucket LIMIT 1"

LIVE_FROM = f"""
SELECT {COLUMNS} FROM objects
WHERE bucket = :bucket AND latest = 1 AND marker = 0 AND key >= :low ORDER BY key LIMIT :limit"""
LIVE_AFTER = LIVE_FROM.replace("key >= :low", "key > :low")
VERSIONS_FROM = f"""
SELECT {COLUMNS} FROM objects WHERE bucket = :bucket AND key >= :low ORDER BY key, seq DESC LIMIT :limit"""
VERSIONS_AFTER = VERSIONS_FROM.replace("key >= :low", "key > :low")
SEQ = f"SELECT seq FROM objects WHERE {KEY} AND version_id = :version_id"
OLDER = f"SELECT {COLUMNS} FROM objects WHERE {KEY} AND seq < :seq ORDER BY seq DESC LIMIT :limit"

PART_PUT = """
INSERT INTO upload_parts (upload_id, number, etag, modified, sha256, size_bytes, meta)
VALUES (:upload_id, :number, :etag, :modified, :sha256, :size_bytes, :meta)
ON CONFLICT (upload_id, number) DO UPDATE SET etag = excluded.etag, modified = excluded.modified,
    sha256 = excluded.sha256, size_bytes = excluded.size_bytes, meta = excluded.meta"""
PARTS_GONE = "DELETE FROM upload_parts WHERE upload_id = :upload_id"
PARTS = """
SELECT upload_id, number, etag, modified, sha256, size_bytes, meta FROM upload_parts
WHERE upload_id = :upload_id AND number > :after ORDER BY number LIMIT :limit"""
BLOB_USED = """
SELECT EXISTS (SELECT 1 FROM object_blobs WHERE sha256 = :sha256)
    OR EXISTS (SELECT 1 FROM upload_parts WHERE sha256 = :sha256)"""

_parts = msgspec.json.Decoder(list[Part])
_meta = msgspec.json.Decoder(dict[str, Any])


def object_row(row: Sequence[Any]) -> ObjectRow:
    """The version that a row of COLUMNS, with or without `inline`, holds."""
    return ObjectRow(
        bucket=row[0], key=row[1], version_id=row[2], latest=bool(row[3]), marker=bool(row[4]), modified=row[5],
        size_bytes=row[6], etag=row[7], parts=_parts.decode(row[8]) if len(row[8]) > 2 else [], meta=_meta.decode(row[9]),
        inline=row[10] if len(row) > 10 else None,
    )  # fmt: skip


def upload_part(row: Sequence[Any]) -> UploadPart:
    return UploadPart(
        upload_id=row[0], number=row[1], etag=row[2], modified=row[3], part=Part(row[4], row[5]),
        meta=_meta.decode(row[6]),
    )  # fmt: skip


# --- writes


def put(run: Run, given: ObjectPut) -> None:
    """Puts a version as the latest, in place of the one with its version id.

    Raises: Unmet, Stale.
    """
    new = given.row
    at = {"bucket": new.bucket, "key": new.key}
    if given.seen is not None:
        _check_seen(run, SEEN_LATEST, at, given.seen)
    latest = run(LATEST_STATE, at).fetchone()
    there = latest is not None and not latest[3]
    if given.if_none_match and there:
        raise Unmet(new.bucket, new.key)
    if given.if_match is not None and not (there and latest[2] == given.if_match):
        raise Unmet(new.bucket, new.key)
    if latest is not None:  # where there is no latest version, there is none at all
        if latest[1] != new.version_id:
            run(AGE, {"seq": latest[0]})
        run(REPLACE, {**at, "version_id": new.version_id})
    row = {
        **at, "version_id": new.version_id, "marker": int(new.marker), "modified": new.modified,
        "size_bytes": new.size_bytes, "etag": new.etag, "parts": text(new.parts), "meta": text(new.meta),
        "inline": new.inline,
    }  # fmt: skip
    seq = run(INSERT, row).fetchone()[0]
    for part in new.parts:
        run(BLOB_PUT, {"seq": seq, "sha256": part.sha256})


def delete(run: Run, gone: ObjectDelete) -> None:
    """Removes a version; the newest that remains becomes the latest.

    Raises: Stale.
    """
    at = {"bucket": gone.bucket, "key": gone.key}
    if gone.seen is not None:
        _check_seen(run, SEEN_VERSION, at, gone.seen)
    found = run(DELETE, {**at, "version_id": gone.version_id}).fetchone()
    if found and found[0]:
        run(PROMOTE, at)


def set_meta(run: Run, given: ObjectMeta) -> None:
    """Raises: Stale where the version is not as it was seen."""
    at = {"bucket": given.bucket, "key": given.key}
    _check_seen(run, SEEN_VERSION, at, given.seen)
    run(SET_META, {**at, "version_id": given.seen.version_id, "meta": text(given.meta)})


def _check_seen(run: Run, which: str, at: dict[str, Any], seen: Seen) -> None:
    found = run(which, {**at, "version_id": seen.version_id} if which is SEEN_VERSION else at).fetchone()
    if found is None or (*found[:3], _meta.decode(found[3])) != (seen.version_id, seen.modified, seen.etag, seen.meta):
        raise Stale(("s3.object", at["bucket"], at["key"], seen.version_id))


def check_empty(run: Run, given: BucketEmpty) -> None:
    """Raises: Stale where the bucket has a version of any object."""
    if run(ANY, {"bucket": given.bucket}).fetchone():
        raise Stale(("s3.bucket", "", "", given.bucket))


def put_part(run: Run, given: UploadPart) -> None:
    row = {
        "upload_id": given.upload_id, "number": given.number, "etag": given.etag, "modified": given.modified,
        "sha256": given.part.sha256, "size_bytes": given.part.size_bytes, "meta": text(given.meta),
    }  # fmt: skip
    run(PART_PUT, row)


def drop_parts(run: Run, gone: UploadGone) -> None:
    run(PARTS_GONE, {"upload_id": gone.upload_id})


# --- listing


class Listing:
    """One page of a bucket's listing: it seeks past what a common prefix holds instead of reading it."""

    def __init__(self, run: Run, query: ObjectQuery):
        self._run, self._query = run, query
        self._page = ObjectPage()
        self._last, self._last_version = "", ""
        self._opened: list[Rows] = []

    def read(self) -> ObjectPage:
        """The page, with `next` filled in when there is more."""
        rows = self._resumed() if self._query.limit > 0 else None
        while rows is not None:
            low = self._walk(rows)
            for opened in self._opened:
                opened.close()
            self._opened.clear()
            rows = None if low is None else self._seek(low)
        return self._page

    def _walk(self, rows: Iterable[Any]) -> str | None:
        """Takes rows until the page is full or a common prefix is met; gives the key to go on from."""
        query, page = self._query, self._page
        prefix, folds, versions = query.prefix, bool(query.delimiter), query.versions
        left = query.limit - len(page.rows) - len(page.prefixes)
        for row in rows:
            key = row[1]
            if not key.startswith(prefix):
                return None
            if left <= 0:
                page.next, page.next_version = self._last, self._last_version
                return None
            left -= 1
            if folds and (folder := self._folder(key)):
                page.prefixes.append(folder)
                self._last, self._last_version = folder, ""
                return beyond(folder)
            page.rows.append(object_row(row))
            self._last, self._last_version = key, row[2] if versions else ""
        return None

    def _folder(self, key: str) -> str:
        """The common prefix that a key belongs to, or empty."""
        delimiter, start = self._query.delimiter, len(self._query.prefix)
        at = key.find(delimiter, start) if delimiter else -1
        return key[: at + len(delimiter)] if at >= 0 else ""

    def _resumed(self) -> Iterable[Any] | None:
        """The rows from where the last page ended."""
        query = self._query
        if query.after < query.prefix or not query.after:
            return self._seek(query.prefix)
        if query.after.startswith(query.prefix) and self._folder(query.after) == query.after:
            low = beyond(query.after)
            return None if low is None else self._seek(low)
        if query.versions and query.after_version:
            return chain(self._older(), self._select(VERSIONS_AFTER, low=query.after))
        return self._select(VERSIONS_AFTER if query.versions else LIVE_AFTER, low=query.after)

    def _older(self) -> Rows:
        """The versions of the key `after` that are older than the one last seen; all of them, when that one is gone."""
        at = {"bucket": self._query.bucket, "key": self._query.after}
        seen = self._run(SEQ, {**at, "version_id": self._query.after_version}).fetchone()
        return self._select(OLDER, key=self._query.after, seq=seen[0] if seen else 1 << 62)

    def _seek(self, low: str) -> Rows:
        return self._select(VERSIONS_FROM if self._query.versions else LIVE_FROM, low=low)

    def _select(self, statement: str, **values: Any) -> Rows:
        opened = self._run(statement, {"bucket": self._query.bucket, "limit": self._query.limit + 1, **values})
        self._opened.append(opened)
        return opened
