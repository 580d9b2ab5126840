-- One row a long-lived noun. What lists sort and filter by is a column; the Describe answer is the body.
CREATE TABLE documents (
    id      INTEGER PRIMARY KEY,
    kind    TEXT NOT NULL,
    account TEXT NOT NULL,
    region  TEXT NOT NULL,
    name    TEXT NOT NULL,
    arn     TEXT NOT NULL,
    parent  TEXT NOT NULL,
    status  TEXT NOT NULL,
    label   TEXT NOT NULL,
    rank    REAL NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    body    TEXT NOT NULL
);
CREATE UNIQUE INDEX documents_ref ON documents (kind, account, region, name);
CREATE UNIQUE INDEX documents_arn ON documents (arn) WHERE arn <> '';
-- A page is a range of one of these; each ends with the name, which breaks ties. Lists of what has a parent are by parent.
CREATE INDEX documents_created ON documents (kind, account, region, created, name);
CREATE INDEX documents_updated ON documents (kind, account, region, updated, name);
CREATE INDEX documents_status ON documents (kind, account, region, status, name);
CREATE INDEX documents_status_created ON documents (kind, account, region, status, created, name) WHERE status <> '';
CREATE INDEX documents_label_created ON documents (kind, account, region, label, created, name) WHERE label <> '';
CREATE INDEX documents_parent_name ON documents (parent, kind, account, region, name) WHERE parent <> '';
CREATE INDEX documents_parent_created ON documents (parent, kind, account, region, created, name) WHERE parent <> '';
CREATE INDEX documents_parent_updated ON documents (parent, kind, account, region, updated, name) WHERE parent <> '';
CREATE INDEX documents_parent_status ON documents (parent, kind, account, region, status, name) WHERE parent <> '';
CREATE INDEX documents_parent_status_created ON documents (parent, kind, account, region, status, created, name)
    WHERE parent <> '' AND status <> '';
CREATE INDEX documents_parent_label ON documents (parent, kind, account, region, label, name) WHERE parent <> '';
CREATE INDEX documents_parent_label_created ON documents (parent, kind, account, region, label, created, name)
    WHERE parent <> '' AND label <> '';
CREATE INDEX documents_parent_rank ON documents (parent, kind, account, region, rank, name) WHERE parent <> '';

-- One row a document that wants to be looked at.
--   waiting: leased = 0, claimable from `due` on
--   held:    leased > 0, a worker has it until `leased`; a wake that comes meanwhile is noted in `moved`
--   finish:  gone when nothing was noted and the step wants no more looks, else waiting for the earlier moment
CREATE TABLE work (
    kind    TEXT NOT NULL,
    account TEXT NOT NULL,
    region  TEXT NOT NULL,
    name    TEXT NOT NULL,
    due     REAL NOT NULL,
    leased  REAL NOT NULL DEFAULT 0,
    moved   REAL,
    tries   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, account, region, name),
    CHECK (moved IS NULL OR leased > 0)
);
CREATE INDEX work_waiting ON work (due) WHERE leased = 0;
CREATE INDEX work_held ON work (leased) WHERE leased > 0;

-- The outbox: what happened, in the order of the commits.
CREATE TABLE events (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL,
    source      TEXT NOT NULL,
    detail_type TEXT NOT NULL,
    account     TEXT NOT NULL,
    region      TEXT NOT NULL,
    time        REAL NOT NULL,
    resources   TEXT NOT NULL,
    detail      TEXT NOT NULL
);

CREATE TABLE tags (
    arn   TEXT NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (arn, key)
) WITHOUT ROWID;

CREATE TABLE tokens (
    account   TEXT NOT NULL,
    region    TEXT NOT NULL,
    operation TEXT NOT NULL,
    token     TEXT NOT NULL,
    digest    TEXT NOT NULL,
    result    TEXT NOT NULL,
    expires   REAL NOT NULL,
    PRIMARY KEY (account, region, operation, token)
);
CREATE INDEX tokens_expires ON tokens (expires);

-- One row a version of an object. A later put has a greater seq, so of one key the greatest seq is the latest version.
CREATE TABLE objects (
    seq        INTEGER PRIMARY KEY,
    bucket     TEXT NOT NULL,
    key        TEXT NOT NULL,
    version_id TEXT NOT NULL,
    latest     INTEGER NOT NULL CHECK (latest IN (0, 1)),
    marker     INTEGER NOT NULL CHECK (marker IN (0, 1)),
    modified   REAL NOT NULL,
    size_bytes INTEGER NOT NULL,
    etag       TEXT NOT NULL,
    parts      TEXT NOT NULL,
    meta       TEXT NOT NULL,
    inline     BLOB,
    CHECK (inline IS NULL OR parts = '[]')
);
CREATE UNIQUE INDEX objects_version ON objects (bucket, key, version_id);
CREATE UNIQUE INDEX objects_latest ON objects (bucket, key) WHERE latest = 1;
-- What ListObjects walks: it must not read the delete markers in between.
CREATE UNIQUE INDEX objects_live ON objects (bucket, key) WHERE latest = 1 AND marker = 0;

-- Which blobs the object rows point at, so that the collector finds out by one look.
CREATE TABLE object_blobs (
    seq    INTEGER NOT NULL REFERENCES objects (seq) ON DELETE CASCADE,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (seq, sha256)
) WITHOUT ROWID;
CREATE INDEX object_blobs_sha256 ON object_blobs (sha256);

CREATE TABLE upload_parts (
    upload_id  TEXT NOT NULL,
    number     INTEGER NOT NULL,
    etag       TEXT NOT NULL,
    modified   REAL NOT NULL,
    sha256     TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    meta       TEXT NOT NULL,
    PRIMARY KEY (upload_id, number)
);
CREATE INDEX upload_parts_sha256 ON upload_parts (sha256);

-- SQLite keeps NaN as NULL: a value that is NULL was NaN.
CREATE TABLE points (
    id     INTEGER PRIMARY KEY,
    series TEXT NOT NULL,
    moment REAL NOT NULL,
    value  REAL,
    step   REAL
);
CREATE INDEX points_series ON points (series, moment);

-- The changes that came over a socket lately, so that one sent again after a lost answer is not applied again.
CREATE TABLE recent_changes (
    id TEXT NOT NULL PRIMARY KEY,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX recent_changes_at ON recent_changes (at);
