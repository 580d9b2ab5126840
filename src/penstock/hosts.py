"""Host names: which are AWS's, and what the name of one says."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

DOMAINS = ("amazonaws.com", "amazonaws.com.cn", "api.aws", "on.aws", "sagemaker.aws")
AWS_HOST = re.compile(rf"(?:^|\.)(?:{'|'.join(map(re.escape, DOMAINS))})\Z")
S3_HOST = re.compile(
    r"(?:(?P<bucket>.+)\.)?"
    r"s3(?:-accelerate|-fips)?(?:\.dualstack)?(?:[.-][a-z]+(?:-[a-z]+)*-\d+)?"  # the region, in the old form behind a dash
    r"\.amazonaws\.com(?:\.cn)?\Z"
)
TELEMETRY_BUCKET = "sm-pysdk-t-"
"""What the buckets begin with to whose addresses SageMaker's SDKs report their use."""


def is_aws(host: str) -> bool:
    """Whether a host (lower case, no port) is one of AWS's."""
    return AWS_HOST.search(host) is not None


def bucket_of(host: str) -> tuple[bool, str | None]:
    """Whether the host is S3's, and the bucket that its name holds."""
    match = S3_HOST.match(host)
    return match is not None, match["bucket"] if match else None


def labels_of(host: str) -> str:
    """What stands before the domain: "runtime.sagemaker.us-east-1"."""
    return AWS_HOST.sub("", host)


def upstream_of(environ: dict[str, str] | None = None) -> str | None:
    """The proxy that the server itself must use to reach the internet, from its environment.

    `penstock env` keeps it as PENSTOCK_UPSTREAM_PROXY, so that a server started in that shell finds it. A doorway that
    `penstock env` put there is none: it may be this one, and would call itself for ever.
    """
    environ = dict(os.environ) if environ is None else environ
    names = ("PENSTOCK_UPSTREAM_PROXY", "HTTPS_PROXY", "https_proxy")
    found = next((environ[name] for name in names if environ.get(name)), "")
    return found if found and urlsplit(found).username != "penstock" else None
