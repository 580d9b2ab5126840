"""Objects on their way into runs, and results on their way back: no byte is copied in the server.

    find_objects    the objects that an S3Uri means, each with the name of its file
    shard           the share of one instance
    place           their bytes as a run's inputs: blob files to link, or bytes to write
    publish         a run's results as rows of a bucket

A key names a file below the channel's folder: what follows the prefix, at its slashes. What no file can be named is
changed, and nothing else: an empty segment becomes `%`, `.` and `..` become `%2E` and `%2E%2E`, a NUL `%00`; a segment
of more than 255 bytes keeps its first 200 and gets `~` and 16 hex digits of its SHA-256. Where a key is also the folder
of other keys (`a` beside `a/b`), or two keys would get one name, it gets `~` and 8 hex digits of its key's SHA-256. An
empty object whose key ends in a slash is a folder's marker and no file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from penstock.kernel import jsontext
from penstock.kernel.buckets import new_version_id, open_bucket, parse_uri, read_object, use_bucket
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.kernel.notices import notice
from penstock.store.records import Change, ObjectPut, ObjectQuery, ObjectRow, Part, Seen, Stale

PAGE = 5000
NAME_BYTES = 255
FEW = 1000
"""So many objects are looked at, or published, within a step's 50 ms."""
IN_SPEC_BYTES = 4 << 20
"""How many bytes of small objects travel in a run's specification; the rest become blobs."""


class Found(NamedTuple):
    """An object, and the name of its file below the target folder."""

    row: ObjectRow
    name: str


class Staged(NamedTuple):
    """One file of a run: a blob's path, or bytes; the fields of `runs.base.Input`."""

    target: str
    blob: str | None
    data: bytes | None


class Result(Protocol):
    """What `runs.base.Result` tells of a file taken out of a run."""

    key: str
    sha256: str
    md5: str
    size_bytes: int
    inline: bytes | None


# --- in


def stage(
    call: Call, uri: str, data_type: str = "S3Prefix", target: str = "/", share: tuple[int, int] = (0, 1)
) -> list[Staged]:
    """Gives the files of one data source under `target`; `share` is (index, count) for ShardedByS3Key.

    Raises: ServiceError NoSuchBucket, AccessDenied; ClientError where there is nothing or no such manifest.
    """
    return place(call, shard(find_objects(call, uri, data_type), *share), target)


def find_objects(call: Call, uri: str, data_type: str = "S3Prefix") -> list[Found]:
    """Finds the objects that an S3Uri means, in key order (a manifest's: in its own).

    Raises: ServiceError NoSuchBucket, AccessDenied; ClientError where there is nothing or no such manifest.
    Differs: AugmentedManifestFile is refused.
    """
    if data_type == "ManifestFile":
        return _of_manifest(call, uri)
    if data_type != "S3Prefix":
        raise ServiceError("ClientError", f"Penstock does not read data of type {data_type} (yet).")
    bucket, prefix = parse_uri(uri)
    open_bucket(call, bucket)
    rows = [row for row in _rows(call, bucket, prefix) if row.size_bytes or not row.key.endswith("/")]
    if not rows:
        raise ServiceError("ClientError", f'No S3 objects found under S3 URL "{uri}" given in input data source.')
    whole = any(row.key == prefix for row in rows)
    start = prefix.rfind("/") + 1 if whole else len(prefix)
    return _named(rows, [row.key[start:] if whole else row.key[start:].removeprefix("/") for row in rows])


def shard(found: Sequence[Found], index: int, count: int) -> list[Found]:
    """Gives every `count`-th object, beginning with the one numbered `index`: the shares differ by one at most."""
    return list(found[index::count])


def place(call: Call, found: Iterable[Found], target: str) -> list[Staged]:
    """Gives the files' bytes as inputs of a run; a multipart object is joined once, its row then holds the whole."""
    spent_bytes = 0
    staged = []
    for number, (row, name) in enumerate(found):
        if number == FEW:
            call.take_time()
        path = f"{target.rstrip('/')}/{name}"
        if row.parts:
            staged.append(Staged(path, _blob_path(call, row), None))
            continue
        whole = call.app.store.object(row.bucket, row.key, row.version_id)
        if whole is None or whole.etag != row.etag:
            raise ServiceError("ClientError", f"s3://{row.bucket}/{row.key} changed while it was read.")
        spent_bytes += whole.size_bytes
        if whole.parts or (spent_bytes > IN_SPEC_BYTES and whole.inline):
            staged.append(Staged(path, _blob_path(call, whole), None))
        else:
            staged.append(Staged(path, None, whole.inline or b""))
    return staged


def fingerprint(call: Call, uri: str, data_type: str = "S3Prefix") -> str:
    """Gives a digest of what lies at a data source now: names, ETags, but no times. Empty where nothing does."""
    try:
        found = find_objects(call, uri, data_type)
    except ServiceError:
        return ""
    digest = hashlib.sha256()
    for row, name in found:
        digest.update(json.dumps([name, row.etag, row.size_bytes]).encode())
    return digest.hexdigest()


def _rows(call: Call, bucket: str, prefix: str) -> Iterator[ObjectRow]:
    after = ""
    while True:
        limit = PAGE if call.patient else FEW
        page = call.app.store.objects(ObjectQuery(bucket=bucket, prefix=prefix, after=after, limit=limit))
        yield from page.rows
        after = page.next
        if not after:
            return
        call.take_time()


def _of_manifest(call: Call, uri: str) -> list[Found]:
    """The objects that a manifest lists: `[{"prefix": "s3://…"}, "name", …]`."""
    try:
        entries = jsontext.read(read_object(call, uri))
        prefix, names = entries[0]["prefix"], entries[1:]
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError
    except (ValueError, KeyError, IndexError, TypeError):
        sentence = f'The manifest {uri} is not of the form [{{"prefix": "s3://bucket/prefix/"}}, "name", ...].'
        raise ServiceError("ClientError", sentence) from None
    bucket, start = parse_uri(prefix)
    open_bucket(call, bucket)
    rows = []
    for number, name in enumerate(names):
        if number == FEW:
            call.take_time()
        row = call.app.store.object(bucket, start + name)
        if row is None or row.marker:
            missing = f"s3://{bucket}/{start}{name}"
            raise ServiceError("ClientError", f"The manifest {uri} lists {missing}, which is not there.")
        row.inline = None
        rows.append(row)
    return _named(rows, list(names))


def _blob_path(call: Call, row: ObjectRow) -> str:
    """The file that holds an object's bytes; makes it where there is none yet."""
    blobs: Any = call.app.blobs
    if not row.parts:
        call.take_time()
        part = Part(blobs.put(row.inline).sha256, row.size_bytes)
    elif len(row.parts) == 1:
        part = row.parts[0]
        blobs.touch(part.sha256)
    else:
        part = _join(call, row)
    path: str | None = blobs.path(part.sha256)
    if path is None:
        raise ServiceError("InternalFailure", f"The bytes of s3://{row.bucket}/{row.key} are not to be had.", 500)
    return path


def _join(call: Call, row: ObjectRow) -> Part:
    """Makes one blob of an object's parts, and notes it in the object's row at once: whoever comes next finds it."""
    call.take_time()
    joined = call.app.blobs.join([(part.sha256, part.size_bytes) for part in row.parts])
    part = Part(joined.sha256, joined.size_bytes)
    sizes = [each.size_bytes for each in row.parts]
    now = call.app.store.object(row.bucket, row.key)
    if now is not None and (now.version_id, now.parts) == (row.version_id, row.parts):  # else somebody was faster
        seen = Seen.of(now)
        now.parts, now.meta = [part], {**now.meta, "_sizes": sizes}
        with contextlib.suppress(Stale):
            call.app.store.commit(Change(rows=[ObjectPut(row=now, seen=seen)]))
    return part


# --- names


def _named(rows: Sequence[ObjectRow], relative: Sequence[str]) -> list[Found]:
    """Gives each row its file's name; see the top of the module."""
    return [Found(row, name) for row, name in zip(rows, file_names(relative, [row.key for row in rows]), strict=True)]


def file_names(relative: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The names of files for keys' parts below a prefix: no two the same, none that of a folder of another."""
    names = [file_name(text) for text in relative]
    folders = {name[:at] for name in names for at in _slashes(name)}
    taken: set[str] = set()
    found = []
    for key, name in zip(keys, names, strict=True):
        if name in folders or name in taken:
            name = f"{_cut(name)}~{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        taken.add(name)
        found.append(name)
    return found


def file_name(relative: str) -> str:
    """Changes what no file can be named in a key's part below the prefix."""
    return "/".join(_segment(segment) for segment in relative.split("/"))


def _segment(text: str) -> str:
    if text in ("", ".", ".."):
        return text.replace(".", "%2E") or "%"
    text = text.replace("\0", "%00")
    if len(text.encode()) <= NAME_BYTES:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text.encode()[:200].decode(errors='ignore')}~{digest[:16]}"


def _cut(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.encode()[: NAME_BYTES - 9].decode(errors="ignore")


def _slashes(name: str) -> Iterator[int]:
    at = name.find("/")
    while at >= 0:
        yield at
        at = name.find("/", at + 1)


# --- out


def publish(call: Call, uri: str, results: Iterable[Result]) -> list[str]:
    """Puts a run's results below an S3 URI (a result with the key "" at the URI itself) and gives their URIs.

    Raises: ServiceError NoSuchBucket, AccessDenied.
    """
    name, prefix = parse_uri(uri)
    bucket = use_bucket(call, name)
    uris = []
    for number, result in enumerate(results):
        if number == FEW:
            call.take_time()
        key = f"{prefix.rstrip('/')}/{result.key}".removeprefix("/") if result.key else prefix
        row = ObjectRow(
            bucket=bucket.name, key=key, version_id=new_version_id(bucket), modified=call.now,
            size_bytes=result.size_bytes, etag=result.md5, inline=result.inline,
            meta={"ContentType": "binary/octet-stream"},
        )  # fmt: skip
        if result.inline is None:
            call.app.blobs.touch(result.sha256)
            row.parts = [Part(result.sha256, result.size_bytes)]
        call.row(ObjectPut(row=row))
        notice(call, bucket, "ObjectCreated:Put", row, "PutObject")
        uris.append(f"s3://{bucket.name}/{key}")
    return uris
