"""How the service pages, and what it knows of the resources of others."""

from __future__ import annotations

from penstock.kernel.errors import ServiceError
from penstock.kernel.pages import Paging

RESOURCES = Paging(
    sizes=("ResourcesPerPage",), following="PaginationToken", default=50, code="PaginationTokenExpiredException"
)
NAMES = Paging(sizes=(), following="PaginationToken", default=1000, code="PaginationTokenExpiredException")
GLOBALS_REGION = "us-east-1"
"""Where resources without a region are shown."""


def invalid(sentence: str) -> ServiceError:
    return ServiceError("InvalidParameterException", sentence)
