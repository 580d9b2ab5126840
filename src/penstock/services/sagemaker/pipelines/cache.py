"""Step caching: whether an earlier run's result stands for a step's, and why.

    aws         AWS's key: the attributes' texts, S3 places by their URIs
    aws+guard   the same, and a hit is refused where the bytes at its inputs have changed since (the default)
    content     the bytes in place of URIs; without time-stamped names and without the paths that code lay at

A result is kept when its step has succeeded: one document a key, the last success wins. A verdict and its reasons are
kept with the step, as its body's `_cache`, which `penstock explain` shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.kernel import staging
from penstock.kernel.buckets import parse_uri
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError, invalid
from penstock.kernel.shapes import fit
from penstock.services.sagemaker.pipelines import cachekeys, jobs
from penstock.services.sagemaker.pipelines.cachekeys import ARCHIVE_BYTES, AWS, CONTENT, Source
from penstock.services.sagemaker.pipelines.definition import Step
from penstock.services.sagemaker.pipelines.files import read_object
from penstock.services.sagemaker.results import plain_uri
from penstock.store.records import Document, Query, Ref

KIND = "sagemaker.pipeline-cache"
"""Its name is "<pipeline's _id>/<step>/<digest>", its parent "<pipeline's _id>/<step>"."""
TAG = "penstock:cache"
"""A tag of a pipeline by which its executions are cached in another way than the server's."""
NOTE = "_cache"
"""The member of a step's body that holds its verdict."""
NEIGHBOURS = 5
"""With how many earlier results a miss is compared, to tell the nearest."""
FUNCTION = "FunctionArn"
"""The attribute of a Lambda step whose code is looked at, as the bytes of other inputs are."""
SHOWN = 300
"""How much of a value is kept to be shown."""


def mode_of(call: Call, pipeline: Document) -> str:
    """How the pipeline's steps are cached: by its tag, else by the server's setting.

    Raises: ServiceError for a tag that is no way.
    """
    mode = call.app.store.tags(pipeline.arn).get(TAG, call.app.settings.cache)
    if mode not in cachekeys.MODES:
        raise invalid(f"The tag {TAG} of pipeline '{pipeline.arn}' is '{mode}'; it must be {', '.join(cachekeys.MODES)}.")
    return mode


@dataclass(slots=True)
class Verdict:
    """What became of the look for an earlier result; `outcome` is the word that `penstock explain` shows."""

    outcome: str
    """ "hit", "first", "changed", "expired", "refused" or "gone"."""
    why: str
    record: Document | None = None
    digest: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, list[str]] = field(default_factory=dict)
    """By attribute: the URI, the fingerprint of what lay there, and the type of data."""
    differences: list[dict[str, Any]] = field(default_factory=list)

    @property
    def hit(self) -> bool:
        return self.outcome == "hit"


class Cache:
    """The cache, for one look at one execution: places are looked at once."""

    def __init__(self, call: Call, execution: Document):
        self.call, self.execution = call, execution
        self.mode: str = execution.body.get("_cache", AWS)
        self._prints: dict[Source, str] = {}

    # --- looking
    def look(self, step: Step, arguments: Mapping[str, Any]) -> Verdict | None:
        """Whether an earlier result stands for the step's, with the reasons; None where caching is off for it."""
        config = step.raw.get("CacheConfig") or {}
        maker = jobs.MAKERS.get(step.type)
        if not config.get("Enabled") or step.type not in cachekeys.KEYS or (maker is None and step.type != "Lambda"):
            return None
        plain = cachekeys.pick(step.type, fit("sagemaker", maker.create, dict(arguments)) if maker else arguments)
        inputs = self._inputs(plain)
        attributes = self._attributes(plain)
        verdict = self._judge(step, config.get("ExpireAfter"), attributes, inputs)
        verdict.attributes, verdict.inputs = attributes, inputs
        return verdict

    def _judge(
        self, step: Step, expires: str | None, attributes: dict[str, Any], inputs: dict[str, list[str]]
    ) -> Verdict:
        digest = cachekeys.digest(step.type, attributes, self.mode == CONTENT)
        record = self.call.find(self._ref(f"{self._parent(step.name)}/{digest}"))
        if record is None:
            return self._miss(step, digest, attributes)
        body, lasts_s = record.body, cachekeys.seconds_of(expires)
        source = f"the result of {body['execution']}"
        if lasts_s is not None and self.call.now - body["ended"] > lasts_s:
            return Verdict("expired", f"{source} is older than {expires}", record, digest)
        if self.mode == cachekeys.GUARD and (moved := _moved(body["inputs"], inputs)):
            why = f"the bytes at {moved[0]['uri']} are not those that {source} was made of; by AWS's key this is a hit"
            return Verdict("refused", why, record, digest, differences=moved)
        if jobs.find(self.call, self.execution, body) is None:
            return Verdict("gone", f"{source} is not there any more", record, digest)
        return Verdict("hit", f"{source} has the same key", record, digest)

    def _miss(self, step: Step, digest: str, attributes: dict[str, Any]) -> Verdict:
        query = Query(
            kind=KIND, account=self.execution.account, region=self.execution.region, parent=self._parent(step.name),
            label=_family(self.mode), order="created", descending=True, limit=NEIGHBOURS,
        )  # fmt: skip
        compared = [
            (cachekeys.differences(record.body["attributes"], attributes), record)
            for record in self.call.app.store.page(query)
        ]
        if not compared:
            return Verdict("first", "the step has no earlier result in this pipeline", None, digest)
        found, nearest = min(compared, key=lambda each: len(each[0]))
        told = ", ".join(each["attribute"] for each in found[:3]) + (" and more" if len(found) > 3 else "")
        why = f"{told} changed since {nearest.body['execution']}"
        return Verdict("changed", why, nearest, digest, differences=[_clip(each) for each in found])

    # --- keeping
    def note(self, document: Document, verdict: Verdict) -> None:
        """Keeps a verdict with its step; of a miss, also what its success is kept under."""
        told: dict[str, Any] = {"mode": self.mode, "outcome": verdict.outcome, "why": verdict.why}
        if verdict.record is not None:
            told["source"] = verdict.record.body["execution"]
        if verdict.differences:
            told["differences"] = verdict.differences
        document.body[NOTE] = told
        if verdict.hit:
            document.body["CacheHitResult"] = {"SourcePipelineExecutionArn": told["source"]}
        else:
            document.body["_kept"] = {
                "digest": verdict.digest, "attributes": verdict.attributes, "inputs": verdict.inputs,
            }  # fmt: skip

    def keep(self, document: Document, entry: Mapping[str, Any]) -> None:
        """Keeps the result of a step that has ended, if it succeeded and its inputs did not change while it ran."""
        kept = document.body.pop("_kept", None)
        if kept is None or document.status != "Succeeded":
            return
        for path, (uri, found, data_type) in kept["inputs"].items():
            if self.mode != AWS and found != self._look_at(Source(path, uri, data_type)):
                document.body[NOTE]["unkept"] = f"{uri} changed while the step ran, so its result is not kept"
                return
        self._write(document, entry, kept)

    def _write(self, document: Document, entry: Mapping[str, Any], kept: dict[str, Any]) -> None:
        parent = self._parent(document.body["StepName"])
        body = {
            "job": entry["job"], "execution": self.execution.arn, "ended": self.call.now,
            "attributes": kept["attributes"], "inputs": kept["inputs"],
        }  # fmt: skip
        ref = self._ref(f"{parent}/{kept['digest']}")
        record = self.call.find(ref)
        if record is None:
            record = Document(
                kind=KIND,
                account=ref.account,
                region=ref.region,
                name=ref.name,
                parent=parent,
                label=_family(self.mode),
            )
        record.created, record.body = self.call.now, body
        self.call.put(record)

    # --- what lies at the inputs
    def _inputs(self, plain: Mapping[str, Any]) -> dict[str, list[str]]:
        found = cachekeys.sources(plain)
        if isinstance(plain.get(FUNCTION), str):
            found.append(Source(FUNCTION, plain[FUNCTION], FUNCTION))
        return {source.path: [source.uri, self._print(source), source.data_type] for source in found}

    def _attributes(self, plain: dict[str, Any]) -> dict[str, Any]:
        return cachekeys.by_content(plain, self._print, self._model) if self.mode == CONTENT else plain

    def _print(self, source: Source) -> str:
        """The fingerprint of a source's bytes; in the guard, code that the SDK names by its hash is taken by that name."""
        if source not in self._prints:
            self._prints[source] = self._look_at(source)
        return self._prints[source]

    def _look_at(self, source: Source) -> str:
        if source.data_type == FUNCTION:
            return self._code_of(source.uri)
        if self.mode != CONTENT and source.named_by_hash:
            return "named by its hash"
        uri = plain_uri(source.uri)
        if self.mode == CONTENT and uri.endswith(".tar.gz") and (found := self._archive(uri)):
            return found
        return staging.fingerprint(self.call, uri, source.data_type)

    def _code_of(self, function: str) -> str:
        try:
            return str(self.call.other("lambda", "GetFunctionConfiguration", FunctionName=function)["CodeSha256"])
        except ServiceError:
            return ""

    def _archive(self, uri: str) -> str | None:
        try:
            bucket, key = parse_uri(uri)
            row = self.call.app.store.object(bucket, key)
            if row is None or row.size_bytes > ARCHIVE_BYTES:
                return None
            self.call.take_time()
            return cachekeys.archive_digest(read_object(self.call, bucket, key, ARCHIVE_BYTES))
        except ServiceError:
            return None

    def _model(self, name: str) -> str:
        """What a model is made of: its images, environments, and the bytes of its artifacts."""
        described = jobs.attempt(self.call, "DescribeModel", ModelName=name) or {"ModelName": name}
        containers = described.get("Containers") or [described.get("PrimaryContainer") or described]
        made = [
            {**each, "ModelDataUrl": self._print(Source("", each["ModelDataUrl"]))} if "ModelDataUrl" in each else each
            for each in containers
        ]
        return "content " + hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()

    # --- names
    def _parent(self, step: str) -> str:
        return f"{self.execution.body['_version'].rpartition('.')[0]}/{step}"

    def _ref(self, name: str) -> Ref:
        return Ref(KIND, self.execution.account, self.execution.region, name)


def _family(mode: str) -> str:
    return CONTENT if mode == CONTENT else AWS


def _moved(before: Mapping[str, list[str]], now: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """The inputs whose bytes are others than they were."""
    return [
        {"attribute": path, "uri": uri, "before": before[path][1] if path in before else None, "now": found}
        for path, (uri, found, _) in now.items()
        if path not in before or before[path][1] != found
    ]


def _clip(difference: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value[:SHOWN] + "…" if isinstance(value, str) and len(value) > SHOWN else value
        for name, value in difference.items()
    }
