"""S3: buckets, objects with versions, multipart uploads, listings, conditions and checksums are real.

So are notifications (to the outbox), CORS, default encryption as it is told, forms that browsers post, and what a bucket's
settings are checked for when they are put. Kept and shown only: policies, ACLs, lifecycle (but for
AbortIncompleteMultipartUpload), replication, website, logging, storage classes, keys. Object Lock and keys that the client
provides (SSE-C) are refused with S3's own NotImplemented.
"""
