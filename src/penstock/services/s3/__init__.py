"""S3: buckets, objects with versions, multipart uploads, listings, conditions and checksums are real.

Kept and shown only: policies, CORS, lifecycle (but for AbortIncompleteMultipartUpload), notifications, encryption
settings and keys, replication, website, logging, storage classes. ACLs answer as under BucketOwnerEnforced. Object Lock
and keys that the client provides (SSE-C) are refused with S3's own NotImplemented.
"""
