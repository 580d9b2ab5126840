"""Service quotas, where the operator sets some: how many instances of a type an account's jobs may have at a time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.sagemaker import contract
from penstock.store.records import Document, Query

REFUSAL = (
    "The account-level service limit '{name}' is {limit} Instances, with current utilization of {used} Instances and a "
    "request delta of {wanted} Instances. Please use AWS Service Quotas to request an increase for this quota. If AWS "
    "Service Quotas is not available, contact AWS support to request an increase for this quota. "
    "(Penstock's quotas are its setting PENSTOCK_QUOTAS.)"
)


@lru_cache(maxsize=4)
def parse(text: str) -> Mapping[str, int]:
    """The quotas of the setting: "ml.m5.large for training job usage=2, ml.t3.medium for processing job usage=4".

    Raises: ValueError.
    """
    quotas = {}
    for item in filter(str.strip, text.split(",")):
        name, _, number = item.rpartition("=")
        if " for " not in name or not number.strip().isdigit():
            raise ValueError(item.strip())
        quotas[name.strip()] = int(number)
    return quotas


def check(call: Call, job: Document, noun: str) -> None:
    """Refuses a new job that would have more instances of a type in use than the account may have.

    Takes: `noun`, "training job". Raises: ServiceError ResourceLimitExceeded.
    """
    quotas = parse(call.app.settings.quotas)
    if not quotas:
        return
    wanted = _instances(job.body)
    for kind, count in wanted.items():
        name = f"{kind} for {noun} usage"
        if name in quotas:
            used = sum(_instances(other.body).get(kind, 0) for other in _running(call, job))
            if used + count > quotas[name]:
                told = REFUSAL.format(name=name, limit=quotas[name], used=used, wanted=count)
                raise ServiceError("ResourceLimitExceeded", told)


def _running(call: Call, job: Document) -> list[Document]:
    """The account's other jobs of the kind that have not ended, those of this very change among them."""
    found = {put.name: put for put in call.change.puts if put.kind == job.kind}
    for status in ("InProgress", "Stopping"):
        query = Query(kind=job.kind, account=job.account, region=job.region, status=status, order="name", limit=100_000)
        for other in call.app.store.page(query):
            found.setdefault(other.name, other)
    return [other for name, other in found.items() if name != job.name and other.status in ("InProgress", "Stopping")]


def _instances(body: Mapping[str, Any]) -> dict[str, int]:
    """How many instances of each type a job has."""
    processing = body.get("ProcessingResources", {}).get("ClusterConfig")
    resources = body.get("ResourceConfig") or processing or body.get("TransformResources") or {}
    counted: dict[str, int] = {}
    for host in contract.hosts_of(resources):
        counted[host.instance_type] = counted.get(host.instance_type, 0) + 1
    return counted
