"""Image URIs taken apart: which repository, which tag, whose registry. Pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ECR = re.compile(r"^(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?$")
_SUFFIX = re.compile(r"^(?P<version>.+?)(?:-(?:cpu|gpu))?(?:-py\d+)?(?:-(?:cu\d+|ubuntu[\d.]+|amzn\d+|sagemaker|ec2|v[\d.]+))*$")


@dataclass(frozen=True, slots=True)
class ImageUri:
    """An image URI's parts; what is not there is empty."""

    registry: str
    repository: str
    tag: str
    digest: str
    account: str = ""
    region: str = ""

    @property
    def name(self) -> str:
        """The repository's last part, which names the software: `sagemaker-xgboost`."""
        return self.repository.rsplit("/", 1)[-1]

    @property
    def short(self) -> str:
        """`repository:tag`, without registry, account and region."""
        return f"{self.repository}:{self.tag}" if self.tag else self.repository


def parse_uri(uri: str) -> ImageUri:
    """Takes an image URI apart.

    Gives: tag "latest" where neither tag nor digest is given, as Docker has it.
    """
    rest, _, digest = uri.strip().partition("@")
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        registry, rest = head, tail
    else:
        registry = ""
    repository, _, tag = rest.partition(":")
    ecr = _ECR.match(registry)
    return ImageUri(
        registry=registry,
        repository=repository,
        tag=tag or ("" if digest else "latest"),
        digest=digest,
        account=ecr["account"] if ecr else "",
        region=ecr["region"] if ecr else "",
    )


def strip_suffix(tag: str) -> str:
    """A tag without its processor, Python and system: `2.5.1-cpu-py311-ubuntu22.04-sagemaker` is `2.5.1`."""
    match = _SUFFIX.match(tag)
    return match["version"] if match else tag
