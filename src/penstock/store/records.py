"""The records that go into a store and come out of it. A write is a `Change`; nothing else writes.

Every record is a msgspec.Struct, so a Change crosses from a front to the writer as MessagePack.
Moments are float seconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

GLOBAL = ""
"""The account or region of what has none: bucket names are global, IAM has no region."""


class Ref(NamedTuple):
    """A document's primary key."""

    kind: str
    account: str
    region: str
    name: str


class Document(msgspec.Struct, kw_only=True):
    """One long-lived noun: its identity, what lists sort and filter by, and its Describe answer as the body.

    `kind` is "service.noun" ("sagemaker.training-job"). `body` holds what Describe answers, under AWS's member names,
    as JSON can hold it (moments as floats); members that start with an underscore are Penstock's own, never shown.
    `version` is 0 until first stored, then counts the writes.
    """

    kind: str
    account: str
    region: str
    name: str
    arn: str = ""
    parent: str = ""
    """The name (or ARN) of what it belongs to: a package's group, an execution's pipeline."""
    status: str = ""
    label: str = ""
    """A second text that lists filter by: a package's approval status, say."""
    rank: float = 0.0
    """A number that lists sort by: a package's version, an objective's value."""
    created: float = 0.0
    updated: float = 0.0
    version: int = 0
    body: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        return Ref(self.kind, self.account, self.region, self.name)


class Wake(msgspec.Struct, kw_only=True):
    """A durable wake-up of one document: at `due`, its step looks at it. One row a document; the earliest due wins."""

    kind: str
    account: str
    region: str
    name: str
    due: float = 0.0
    leased: float = 0.0
    """Until when a worker holds it; 0 when nobody does."""
    tries: int = 0
    """Claims in a row that ended in an error or with the process; 0 after a step that returned."""

    @property
    def ref(self) -> Ref:
        return Ref(self.kind, self.account, self.region, self.name)


class Event(msgspec.Struct, kw_only=True):
    """An event in EventBridge's shape, kept in the outbox in the transaction of the change it tells of."""

    id: str
    source: str
    detail_type: str
    account: str
    region: str
    time: float
    resources: list[str] = msgspec.field(default_factory=list)
    detail: dict[str, Any] = msgspec.field(default_factory=dict)
    seq: int = 0
    """Its place in the outbox; given by the store."""


# --- rows: what is many and is no resource ---------------------------------------------------------------------------


class Part(msgspec.Struct, array_like=True):
    """A piece of an object's bytes: a blob by content hash."""

    sha256: str
    size_bytes: int


class ObjectRow(msgspec.Struct, kw_only=True, tag=True):
    """A version of an S3 object. Its bytes are `inline` (at most 64 KB) or the `parts`, one after another."""

    bucket: str
    key: str
    version_id: str = "null"
    modified: float = 0.0
    size_bytes: int = 0
    etag: str = ""
    """Without quotes."""
    inline: bytes | None = None
    parts: list[Part] = msgspec.field(default_factory=list)
    marker: bool = False
    """A delete marker."""
    latest: bool = True
    """Whether it is the newest version of its key; given by the store."""
    meta: dict[str, Any] = msgspec.field(default_factory=dict)
    """HeadObject's members that were given: ContentType, Metadata, ChecksumSHA256, StorageClass …"""


class Seen(msgspec.Struct, kw_only=True):
    """A version of an object as somebody saw it, who decided by it: still the same bytes, of which the same is said."""

    version_id: str
    modified: float
    etag: str
    meta: dict[str, Any]

    @classmethod
    def of(cls, row: ObjectRow) -> Seen:
        return cls(version_id=row.version_id, modified=row.modified, etag=row.etag, meta=row.meta)


class ObjectPut(msgspec.Struct, kw_only=True, tag=True):
    """Puts an object version as the latest. `if_match`: only over that ETag; `if_none_match`: only where none is.

    `seen`: only while that is the latest version (else Stale).
    """

    row: ObjectRow
    if_match: str | None = None
    if_none_match: bool = False
    seen: Seen | None = None


class ObjectDelete(msgspec.Struct, kw_only=True, tag=True):
    """Removes one version of an object; one that is not there is no error. `seen`: only while it is that (else Stale)."""

    bucket: str
    key: str
    version_id: str = "null"
    seen: Seen | None = None


class ObjectMeta(msgspec.Struct, kw_only=True, tag=True):
    """Sets what is said of one version of an object, in its place, while it is as it was seen (else Stale)."""

    bucket: str
    key: str
    seen: Seen
    meta: dict[str, Any]


class BucketEmpty(msgspec.Struct, kw_only=True, tag=True):
    """Writes nothing: holds that a bucket has no version of any object (else Stale), for the deletion of the bucket."""

    bucket: str


class UploadPart(msgspec.Struct, kw_only=True, tag=True):
    """A part of a multipart upload (the upload itself is a document of kind s3.upload)."""

    upload_id: str
    number: int
    etag: str
    modified: float
    part: Part
    meta: dict[str, Any] = msgspec.field(default_factory=dict)


class UploadGone(msgspec.Struct, kw_only=True, tag=True):
    """Removes the part rows of a multipart upload."""

    upload_id: str


class TagsPut(msgspec.Struct, kw_only=True, tag=True):
    """Sets tags of a resource; tags of other keys stay."""

    arn: str
    tags: dict[str, str]


class TagsGone(msgspec.Struct, kw_only=True, tag=True):
    """Removes tags of a resource: those keys, or all of them for None."""

    arn: str
    keys: list[str] | None = None


class Points(msgspec.Struct, kw_only=True, tag=True):
    """Metric points of one series (`name` is "<arn>/<metric>"): (moment, value, step)."""

    series: str
    points: list[tuple[float, float, float]]


class OldGone(msgspec.Struct, kw_only=True, tag=True):
    """Removes some of the oldest events or metric points: those from before a moment, at most so many."""

    what: str
    """"events" or "points"."""
    before: float
    limit: int = 1000


class Token(msgspec.Struct, kw_only=True, tag=True):
    """An idempotency token's answer: the same token and parameters give it again. Fails as Taken when it is there."""

    account: str
    region: str
    operation: str
    token: str
    digest: str
    """SHA-256 of the parameters: the same token with others is a client's error."""
    result: dict[str, Any]
    expires: float


Row = (
    ObjectPut | ObjectDelete | ObjectMeta | BucketEmpty | UploadPart | UploadGone | TagsPut | TagsGone | Points | OldGone | Token
)


class Change(msgspec.Struct, kw_only=True):
    """All that one operation or one engine step wants written, committed in one transaction or not at all.

    A put with version 0 must find nothing under its ref (else Taken), a put with version n must find n (else Stale);
    the store then counts the version up, in the record as well. A delete is compare-and-set the same way. Deletes come
    before puts, so that one change may give a name anew.
    """

    puts: list[Document] = msgspec.field(default_factory=list)
    deletes: list[Document] = msgspec.field(default_factory=list)
    wakes: list[Wake] = msgspec.field(default_factory=list)
    events: list[Event] = msgspec.field(default_factory=list)
    rows: list[Row] = msgspec.field(default_factory=list)
    reads: list[Document] = msgspec.field(default_factory=list)
    """Documents that were only looked at, and must still be at the version seen (else Stale)."""
    tells: list[str] = msgspec.field(default_factory=list)
    """Whom to tell of it, by topic, once it is durable: those who wait for something to come (Store.hear)."""

    def __bool__(self) -> bool:
        return bool(self.puts or self.deletes or self.wakes or self.events or self.rows)


class Stale(Exception):
    """Somebody wrote a document of the change in between: read again, decide again."""

    def __init__(self, ref: Iterable[str]):
        self.ref = Ref(*ref)
        super().__init__("/".join(self.ref))


class Taken(Exception):
    """A document (or token) of the change is new to the caller, but its name is taken."""

    def __init__(self, ref: Iterable[str]):
        self.ref = Ref(*ref)
        super().__init__("/".join(self.ref))


class Unmet(Exception):
    """A condition of an ObjectPut does not hold (S3 answers PreconditionFailed)."""

    def __init__(self, bucket: str, key: str):
        self.bucket, self.key = bucket, key
        super().__init__(f"{bucket}/{key}")


class StoreFailed(Exception):
    """The database could not take the change (disk full, locked, damaged); nothing of it was written."""


class Unavailable(Exception):
    """The writer did not answer in time; whether the change was written is not known."""


# --- questions --------------------------------------------------------------------------------------------------------


class Query(msgspec.Struct, kw_only=True):
    """A list of documents of one kind: filters, an order, a page. None filters nothing."""

    kind: str
    account: str | None = None
    region: str | None = None
    parent: str | None = None
    status: str | None = None
    label: str | None = None
    name_contains: str | None = None
    name_prefix: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    updated_after: float | None = None
    updated_before: float | None = None
    rank_after: float | None = None
    rank_before: float | None = None
    free_at: float | None = None
    """Only those whose label no document of the same kind and parent has with a rank after this: of groups that nobody works on."""
    order: str = "created"
    """"created", "updated", "name", "status", "label" or "rank"; ties by name."""
    descending: bool = False
    limit: int = 100
    after: tuple[Any, str] | None = None
    """Keyset paging: the (order value, name) of the last document seen."""
    bodies: bool = True
    """False: the documents come with empty bodies, however large theirs are: to look at and to delete, never to put."""


class ObjectQuery(msgspec.Struct, kw_only=True):
    """A listing of a bucket, in key order (UTF-8 binary)."""

    bucket: str
    prefix: str = ""
    delimiter: str = ""
    after: str = ""
    """Keys greater than this; a common prefix here skips all that it holds."""
    after_version: str = ""
    limit: int = 1000
    versions: bool = False
    """Every version and delete marker, instead of the latest objects."""


class ObjectPage(msgspec.Struct, kw_only=True):
    """`rows` come without `inline` bytes. `next` is the `after` of the next page, empty at the end."""

    rows: list[ObjectRow] = msgspec.field(default_factory=list)
    prefixes: list[str] = msgspec.field(default_factory=list)
    next: str = ""
    next_version: str = ""
