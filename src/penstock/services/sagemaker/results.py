"""A job's bytes: which objects its inputs are, and where its results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from penstock.kernel import staging
from penstock.kernel.buckets import parse_uri
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.runs.base import ENDED, Input, Result, RunState
from penstock.services.sagemaker import contract
from penstock.services.sagemaker.programs import Kind
from penstock.services.sagemaker.specs import words_of
from penstock.store.records import Document


def publish(call: Call, kind: Kind, document: Document, state: RunState) -> bool:
    """Puts results that were not published yet into their places; whether there were any."""
    targets, keys = kind.targets(document), kind.keys(document)
    known: dict[str, str] = document.body.get("_published", {})
    fresh = [result for result in state.results if known.get(f"{result.output}/{result.key}") != result.sha256]
    fresh = [each for each in fresh if each.output not in kind.restored or not _lies_there(call, targets[each.output], each)]
    for output in dict.fromkeys(result.output for result in fresh):
        if output in targets:
            named = [replace(each, key=keys.get(each.key, each.key)) for each in fresh if each.output == output]
            staging.publish(call, targets[output], named)
    if state.phase != ENDED and fresh:
        document.body["_published"] = known | {f"{result.output}/{result.key}": result.sha256 for result in fresh}
    return bool(fresh)


def _lies_there(call: Call, uri: str, result: Result) -> bool:
    """Whether a result's bytes are what its place has."""
    bucket, prefix = parse_uri(uri)
    row = call.app.store.object(bucket, f"{prefix.rstrip('/')}/{result.key}".removeprefix("/"))
    return row is not None and (row.etag, row.size_bytes) == (result.md5, result.size_bytes)


def unpublished(error: ServiceError) -> str:
    return f"ClientError: Artifact upload failed: {words_of(error)}"


def lay(
    call: Call,
    hosts: Sequence[contract.Host],
    uri: str,
    data_type: str,
    distribution: str,
    target: str,
    missing: bool = False,
) -> tuple[list[Input], list[list[Input]]]:
    """The files of one data source: those of every host, and those of each one (when sharded).

    Takes: `missing`, whether there may be nothing.
    Raises: ServiceError.
    """
    try:
        found = staging.find_objects(call, plain_uri(uri), data_type)
    except ServiceError:
        if missing:
            return [], [[] for _ in hosts]
        raise
    if distribution != "ShardedByS3Key" or len(hosts) == 1:
        return _inputs(staging.place(call, found, target)), [[] for _ in hosts]
    shares = [staging.shard(found, index, len(hosts)) for index in range(len(hosts))]
    return [], [_inputs(staging.place(call, each, target)) for each in shares]


def plain_uri(uri: str) -> str:
    """An S3 URI, also of an https address of an object."""
    if not uri.startswith("https://"):
        return uri
    host, _, path = uri.removeprefix("https://").partition("/")
    bucket, dot, rest = host.partition(".s3")
    return f"s3://{bucket}/{path}" if dot and rest[:1] in (".", "-") else f"s3://{path}"


def _inputs(staged: Sequence[staging.Staged]) -> list[Input]:
    return [Input(target=each.target, blob=each.blob, data=each.data) for each in staged]
