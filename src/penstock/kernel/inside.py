"""What every program finds inside a sandbox, whichever service runs it: places, and the environment that leads to Penstock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CONTAINERS = "/opt/penstock/containers"
"""Where a run sees what Penstock brings along."""
CERTIFICATES = "/etc/ssl/certs/penstock.pem"
API = "http://127.0.0.1:4600"
DOORWAY = "http://127.0.0.1:4601"


def run_environment(
    *, region: str, key: Mapping[str, str] | None, hosts: Iterable[str], certificates: bool, image: Mapping[str, str],
    packages: Mapping[str, str], own: Mapping[str, str], given: Mapping[str, str], cpus: int,
) -> dict[str, str]:  # fmt: skip
    """The whole environment of a job's program.

    Takes: `key`, AccessKeyId, SecretAccessKey and SessionToken, None where the job has no network; `image`, what its
    image sets; `packages`, where pip and uv look; `own`, the contract's of the kind of job; `given`, the user's, which
    wins.
    """
    env = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "UTF-8",
        "OMP_NUM_THREADS": str(cpus),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin at barriers are ten times slower where others want the cores, too
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "TAR_OPTIONS": "--no-same-owner",  # root in a sandbox, yet there is no other user to give files to
        **image,
        **packages,
    }
    if key:
        local = ",".join(("127.0.0.1", "localhost", *hosts))
        env |= {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            "AWS_SESSION_TOKEN": key["SessionToken"],
            "AWS_ENDPOINT_URL": API,
            "AWS_EC2_METADATA_DISABLED": "true",
            "HTTPS_PROXY": DOORWAY,
            "HTTP_PROXY": DOORWAY,
            "https_proxy": DOORWAY,
            "http_proxy": DOORWAY,
            "NO_PROXY": local,
            "no_proxy": local,
        }
    if certificates:
        names = (
            "AWS_CA_BUNDLE",
            "REQUESTS_CA_BUNDLE",
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "PIP_CERT",
        )
        env |= dict.fromkeys(names, CERTIFICATES)
    return {**env, **own, **given}
