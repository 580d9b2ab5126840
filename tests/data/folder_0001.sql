-- A data folder's database of schema 1: an account, a bucket with an object, a group, a pipeline and its execution.
BEGIN TRANSACTION;
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
INSERT INTO "documents" VALUES(1,'iam.role','123456789012','','SageMakerExecutionRole','arn:aws:iam::123456789012:role/SageMakerExecutionRole','','','/',0.0,1.79527295453824734688e+09,1.79527295453824734688e+09,1,'{"RoleName":"SageMakerExecutionRole","AssumeRolePolicyDocument":"{\"Version\": \"2012-10-17\", \"Statement\": [{\"Effect\": \"Allow\", \"Principal\": {\"Service\": [\"sagemaker.amazonaws.com\", \"lambda.amazonaws.com\", \"events.amazonaws.com\"]}, \"Action\": \"sts:AssumeRole\"}]}","Description":"What programs and jobs act as.","Path":"/","RoleId":"AROARRVHOIG7WRXXJTUZF","MaxSessionDuration":3600,"Arn":"arn:aws:iam::123456789012:role/SageMakerExecutionRole","CreateDate":1795272954.5382473,"_inline":{},"_attached":[]}');
INSERT INTO "documents" VALUES(2,'iam.access-key','','','AKIASXXIDL4OXULWT22D','','123456789012','Active','',0.0,1.79527295453824734688e+09,1.79527295453824734688e+09,1,'{"SecretAccessKey":"of-a-test","_caller":{"account":"123456789012","arn":"arn:aws:sts::123456789012:assumed-role/SageMakerExecutionRole/penstock","user_id":"AROARRVHOIG7WRXXJTUZF:penstock","session_policy":"","run":""}}');
INSERT INTO "documents" VALUES(3,'penstock.account','','','123456789012','','','','',0.0,1.79527295453824734688e+09,1.79527295453824734688e+09,1,'{}');
INSERT INTO "documents" VALUES(4,'s3.bucket','','','kept','arn:aws:s3:::kept','123456789012','','',0.0,1.79527295509513401981e+09,1.79527295509513401981e+09,1,'{"Name":"kept","BucketRegion":"us-east-1","_settings":{}}');
INSERT INTO "documents" VALUES(5,'s3.collector','','','collector','','','','',0.0,1.79527295509513401981e+09,1.79527295509513401981e+09,1,'{}');
INSERT INTO "documents" VALUES(6,'sagemaker.model-package-group','123456789012','us-east-1','kept','arn:aws:sagemaker:us-east-1:123456789012:model-package-group/kept','','Completed','',0.0,1.7952729554400107861e+09,1.7952729554400107861e+09,1,'{"ModelPackageGroupName":"kept","CreatedBy":{"IamIdentity":{"Arn":"arn:aws:sts::123456789012:assumed-role/SageMakerExecutionRole/test"}},"ModelPackageGroupArn":"arn:aws:sagemaker:us-east-1:123456789012:model-package-group/kept","CreationTime":1795272955.4400108,"ModelPackageGroupStatus":"Completed","_last":0}');
INSERT INTO "documents" VALUES(7,'sagemaker.pipeline','123456789012','us-east-1','kept','arn:aws:sagemaker:us-east-1:123456789012:pipeline/kept','','Active','',0.0,1.7952729561261572838e+09,1.7952729561261572838e+09,1,'{"PipelineName":"kept","RoleArn":"arn:aws:iam::123456789012:role/SageMakerExecutionRole","PipelineArn":"arn:aws:sagemaker:us-east-1:123456789012:pipeline/kept","CreationTime":1795272956.1261573,"LastModifiedTime":1795272956.1261573,"PipelineStatus":"Active","CreatedBy":{"IamIdentity":{"Arn":"arn:aws:sts::123456789012:assumed-role/SageMakerExecutionRole/test"}},"LastModifiedBy":{"IamIdentity":{"Arn":"arn:aws:sts::123456789012:assumed-role/SageMakerExecutionRole/test"}},"_id":"et5eq5fuuwga","_version":1}');
INSERT INTO "documents" VALUES(8,'sagemaker.pipeline-version','123456789012','us-east-1','et5eq5fuuwga.1','','et5eq5fuuwga','','',1.0,1.7952729561261572838e+09,1.7952729561261572838e+09,1,'{"PipelineVersionId":1,"CreationTime":1795272956.1261573,"PipelineDefinition":"{\"Version\": \"2020-12-01\", \"Parameters\": [], \"Steps\": [{\"Name\": \"stop\", \"Type\": \"Fail\", \"Arguments\": {\"ErrorMessage\": \"as it should\"}}]}"}');
INSERT INTO "documents" VALUES(9,'sagemaker.pipeline-execution','123456789012','us-east-1','rf01wkd862ny','arn:aws:sagemaker:us-east-1:123456789012:pipeline/kept/execution/rf01wkd862ny','kept','Executing','',0.0,1.79527295614568066593e+09,1.79527295614568066593e+09,1,'{"PipelineArn":"arn:aws:sagemaker:us-east-1:123456789012:pipeline/kept","PipelineExecutionDisplayName":"execution-1795272956145","PipelineVersionId":1,"CreatedBy":{"IamIdentity":{"Arn":"arn:aws:sts::123456789012:assumed-role/SageMakerExecutionRole/test"}},"LastModifiedBy":{"IamIdentity":{"Arn":"arn:aws:sts::123456789012:assumed-role/SageMakerExecutionRole/test"}},"RoleArn":"arn:aws:iam::123456789012:role/SageMakerExecutionRole","_pipeline":"kept","_version":"et5eq5fuuwga.1","_steps":{},"_begun":0,"_parameters":{},"_cache":"aws+guard","PipelineExecutionArn":"arn:aws:sagemaker:us-east-1:123456789012:pipeline/kept/execution/rf01wkd862ny","CreationTime":1795272956.1456807,"LastModifiedTime":1795272956.1456807,"PipelineExecutionStatus":"Executing"}');
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
INSERT INTO "events" VALUES(1,'84d1831e-8ccb-42fc-bbe8-a05ccce5c524','aws.sagemaker','SageMaker Model Building Pipeline Execution Status Change','123456789012','us-east-1',1.79527295614568066593e+09,'["arn:aws:sagemaker:us-east-1:123456789012:pipeline/kept","arn:aws:sagemaker:us-east-1:123456789012:pipeline/kept/execution/rf01wkd862ny"]','{"pipelineExecutionDisplayName":"execution-1795272956145","currentPipelineExecutionStatus":"Executing","executionStartTime":"2026-11-21T14:55:56Z","pipelineArn":"arn:aws:sagemaker:us-east-1:123456789012:pipeline/kept","pipelineExecutionArn":"arn:aws:sagemaker:us-east-1:123456789012:pipeline/kept/execution/rf01wkd862ny"}');
CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('schema','1');
CREATE TABLE object_blobs (
    seq    INTEGER NOT NULL REFERENCES objects (seq) ON DELETE CASCADE,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (seq, sha256)
) WITHOUT ROWID;
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
INSERT INTO "objects" VALUES(1,'kept','a/b.txt','null',1,0,1.79527295542544460295e+09,10,'e927d5c3c4d37ab649af1f3d75ce18a8','[]','{"Metadata":{"who":"me"},"ContentType":"binary/octet-stream","ChecksumCRC64NVME":"ZYPv9wK9xuY=","ChecksumType":"FULL_OBJECT"}',X'6B657074206279746573');
CREATE TABLE points (
    id     INTEGER PRIMARY KEY,
    series TEXT NOT NULL,
    moment REAL NOT NULL,
    value  REAL,
    step   REAL
);
CREATE TABLE recent_changes (
    id TEXT NOT NULL PRIMARY KEY,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE tags (
    arn   TEXT NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (arn, key)
) WITHOUT ROWID;
INSERT INTO "tags" VALUES('arn:aws:sagemaker:us-east-1:123456789012:model-package-group/kept','team','one');
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
INSERT INTO "tokens" VALUES('123456789012','us-east-1','sagemaker:CreatePipeline','tttttttttttttttttttttttttttttttt','af84c0f741593552a12c487142eaa474c86a426921bdf55da0f0144028fd7ff0','{"PipelineArn":"arn:aws:sagemaker:us-east-1:123456789012:pipeline/kept"}',1.7953017561261572838e+09);
INSERT INTO "tokens" VALUES('123456789012','us-east-1','sagemaker:StartPipelineExecution','uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu','50c5f9869f16172f18d4736a8be0d52defa291384e8ea55026e82c7f42070b04','{"PipelineExecutionArn":"arn:aws:sagemaker:us-east-1:123456789012:pipeline/kept/execution/rf01wkd862ny"}',1.79530175614568066598e+09);
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
INSERT INTO "work" VALUES('s3.collector','','','collector',1.7952730150951340198e+09,0.0,NULL,0);
INSERT INTO "work" VALUES('sagemaker.pipeline-execution','123456789012','us-east-1','rf01wkd862ny',1.79527295614568066593e+09,0.0,NULL,0);
CREATE UNIQUE INDEX documents_ref ON documents (kind, account, region, name);
CREATE UNIQUE INDEX documents_arn ON documents (arn) WHERE arn <> '';
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
CREATE INDEX work_waiting ON work (due) WHERE leased = 0;
CREATE INDEX work_held ON work (leased) WHERE leased > 0;
CREATE INDEX tokens_expires ON tokens (expires);
CREATE UNIQUE INDEX objects_version ON objects (bucket, key, version_id);
CREATE UNIQUE INDEX objects_latest ON objects (bucket, key) WHERE latest = 1;
CREATE UNIQUE INDEX objects_live ON objects (bucket, key) WHERE latest = 1 AND marker = 0;
CREATE INDEX object_blobs_sha256 ON object_blobs (sha256);
CREATE INDEX upload_parts_sha256 ON upload_parts (sha256);
CREATE INDEX points_series ON points (series, moment);
CREATE INDEX recent_changes_at ON recent_changes (at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',1);
COMMIT;
