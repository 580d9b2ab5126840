"""A pytest plugin for ceph's s3-tests and moto's of S3: buckets as they were when they were written.

Since April 2023 a new bucket has no ACLs and blocks public access, at AWS as here. They suppose the opposite: their
buckets are made with ObjectOwnership=ObjectWriter, and their public-access block is taken away. And ceph's empties each bucket past
its locks, which AWS refuses for a bucket that has none: there it is emptied plainly.
"""

from __future__ import annotations

from typing import Any

from botocore.client import BaseClient

call = BaseClient._make_api_call


def make_api_call(self: Any, operation: str, params: dict[str, Any]) -> Any:
    if operation == "DeleteObjects":
        params = {name: value for name, value in params.items() if name != "BypassGovernanceRetention"}
    if operation != "CreateBucket" or "ObjectOwnership" in params:
        return call(self, operation, params)
    given = {name: value for name, value in params.items() if name != "ACL"}
    answer = call(self, operation, {"ObjectOwnership": "ObjectWriter", **given})
    call(self, "DeletePublicAccessBlock", {"Bucket": params["Bucket"]})
    if "ACL" in params:
        call(self, "PutBucketAcl", {"Bucket": params["Bucket"], "ACL": params["ACL"]})
    return answer


BaseClient._make_api_call = make_api_call
