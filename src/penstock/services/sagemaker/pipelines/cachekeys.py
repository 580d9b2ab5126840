"""What a step's result is found again by: the attributes of its job that count, as AWS takes them or by content. Pure.

Source: docs.aws.amazon.com/sagemaker/latest/dg/pipelines-default-keys.html (the attributes),
docs.aws.amazon.com/sagemaker/latest/dg/pipelines-caching-enabling.html (durations).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from penstock.services.sagemaker.pipelines.expressions import NAMING

AWS, GUARD, CONTENT = "aws", "aws+guard", "content"
MODES = (AWS, GUARD, CONTENT)
Picked = Mapping[str, Any]
"""The members that count: None for all of one, else what counts of it."""

ALL = None
JOB_DEFINITION: Picked = dict.fromkeys(
    ("AlgorithmSpecification", "HyperParameterRanges", "InputDataConfig", "StaticHyperParameters", "TuningObjective")
)
CHECK = ("CheckJobConfig", "SkipCheck", "RegisterNewBaseline", "ModelPackageGroupName", "SuppliedBaselineConstraints")
KEYS: dict[str, Picked] = {
    "Processing": dict.fromkeys(("AppSpecification", "Environment", "ProcessingInputs")),
    "Training": dict.fromkeys((
        "AlgorithmSpecification", "CheckpointConfig", "DebugHookConfig", "DebugRuleConfigurations", "Environment",
        "HyperParameters", "InputDataConfig",
    )),
    "Tuning": {"HyperParameterTuningJobConfig": ALL, "TrainingJobDefinition": JOB_DEFINITION, "TrainingJobDefinitions": ALL},
    "Transform": dict.fromkeys(("DataProcessing", "Environment", "ModelName", "TransformInput")),
    "AutoML": {
        "AutoMLJobConfig": dict.fromkeys(("CompletionCriteria", "CandidateGenerationConfig", "DataSplitConfig", "Mode")),
        "AutoMLJobObjective": ALL, "InputDataConfig": ALL, "ProblemType": ALL,
    },
    "ClarifyCheck": dict.fromkeys(("ClarifyCheckConfig", *CHECK)),
    "QualityCheck": dict.fromkeys(("QualityCheckConfig", *CHECK, "SuppliedBaselineStatistics")),
    "EMR": dict.fromkeys(("ClusterId", "StepConfig")),
    "Lambda": dict.fromkeys(("FunctionArn", "Arguments", "OutputParameters")),
}  # fmt: skip
"""By the type of step: the arguments that are in the key, all of each or some members of it. Nothing else is:
neither outputs, instances, roles, tags, time limits nor networks."""

WRITTEN = frozenset({"CheckpointConfig", "DebugHookConfig", "S3Output"})
"""Members whose S3 places are written to: what lies there is no input."""
STAMP = re.compile(r"-\d{4}-\d{2}-\d{2}-\d{2}-\d{2}-\d{2}(-\d{3})?(?!\d)")
"""What the SDKs put behind a base name: -2026-11-21-09-30-00-123."""
NAMED_BY_HASH = re.compile(r"/[0-9a-f]{64}/")
"""How the SDKs upload code: below a SHA-256 of it, so the name stands for the bytes (and for the files' paths)."""
LEFT_OUT = frozenset({"sagemaker_job_name"})
"""Hyperparameters that say nothing of the work."""
CODE = "sagemaker_submit_directory"
CODE_INPUT = re.compile(rf"(\['(code|sourcedir)'\]\.(S3Input|DataSource\.S3DataSource)\.S3Uri|\.{CODE})$")
"""The paths of the inputs that the SDKs give code by."""
ARCHIVE_BYTES, UNPACKED_BYTES, MEMBERS = 1 << 20, 8 << 20, 10_000
"""Up to which size an archive of code is keyed by what is in it, not by its own bytes (which hold the moment of packing)."""
PART_S = {"Y": 365 * 86400, "M": 30 * 86400, "W": 7 * 86400, "D": 86400, "h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True, slots=True)
class Source:
    """A place in S3 that a job reads."""

    path: str
    """The attribute that names it: ProcessingInputs['code'].S3Input.S3Uri."""
    uri: str
    data_type: str = "S3Prefix"

    @property
    def named_by_hash(self) -> bool:
        """Whether it is code below its hash; a user's data may lie below one, too, that says nothing of it."""
        return bool(CODE_INPUT.search(self.path) and NAMED_BY_HASH.search(self.uri))


def pick(kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a step's arguments that are in its key; absent and empty ones are the same."""
    return _pick(KEYS[kind], arguments)


def _pick(wanted: Picked, given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in wanted.items():
        value = given.get(name)
        if inner is not None and isinstance(value, dict):
            value = _pick(inner, value)
        if value not in (None, {}, [], ""):
            found[name] = value
    return found


def digest(kind: str, attributes: Mapping[str, Any], by_content: bool = False) -> str:
    """The key's digest; keys by content and keys of AWS never meet."""
    text = json.dumps(["content" if by_content else "aws", kind, attributes], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# --- what lies behind a key
def sources(attributes: Mapping[str, Any]) -> list[Source]:
    """The places in S3 that the attributes name as inputs: channels, processing inputs, and the code's archive."""
    return [source for source, _ in _sources(attributes, "")]


def _sources(value: Any, path: str) -> Iterator[tuple[Source, dict[str, Any]]]:
    """Each source, and the dict that it stands in."""
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _sources(inner, f"{path}[{_name(inner, index)}]")
    if not isinstance(value, dict):
        return
    uri = value.get("S3Uri")
    if isinstance(uri, str):
        yield Source(f"{path}.S3Uri", uri, value.get("S3DataType", "S3Prefix")), value
    code = _plain(value.get(CODE))
    if isinstance(code, str) and code.startswith("s3://"):
        yield Source(f"{path}.{CODE}", code), value
    for name, inner in value.items():
        if name not in WRITTEN:
            yield from _sources(inner, f"{path}.{name}" if path else name)


def by_content(
    attributes: Mapping[str, Any], read: Callable[[Source], str], model: Callable[[str], Any]
) -> dict[str, Any]:
    """The attributes with contents for places, and without what is made anew at each definition.

    Takes: `read` gives the fingerprint of a source; `model` what a model of that name is made of.
    """
    copy: dict[str, Any] = json.loads(json.dumps(attributes))
    for source, holder in list(_sources(copy, "")):
        holder[CODE if source.path.endswith(CODE) else "S3Uri"] = f"content {read(source)}"
    for name in LEFT_OUT:
        for holder in _maps(copy):
            holder.pop(name, None)
    if isinstance(copy.get("ModelName"), str):
        copy["ModelName"] = model(copy["ModelName"])
    found: dict[str, Any] = _unstamp(copy)
    return found


def _maps(attributes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    definitions = [attributes.get("TrainingJobDefinition"), *(attributes.get("TrainingJobDefinitions") or [])]
    for holder in (attributes, *definitions):
        for name in ("HyperParameters", "StaticHyperParameters"):
            if isinstance(holder, dict) and isinstance(holder.get(name), dict):
                yield holder[name]


def _unstamp(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unstamp(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_unstamp(inner) for inner in value]
    return STAMP.sub("", value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """A hyperparameter's value: the SDKs write texts as JSON."""
    if isinstance(value, str) and value.startswith('"'):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def archive_digest(packed: bytes) -> str | None:
    """A digest of the names and bytes in a tar.gz, whatever its times and owners.

    None where it is none, or too large: what its members claim to hold counts, since a sparse one claims terabytes in a header.
    """
    known = _known(hashlib.sha256(packed).digest())
    if not known:
        known.append(_digest_of(packed))
    return known[0]


@lru_cache(maxsize=4096)
def _known(sha256: bytes) -> list[str | None]:
    """Where the digest of an archive with these bytes is put; so the archive itself is not kept."""
    return []


def _digest_of(packed: bytes) -> str | None:
    unpacker = zlib.decompressobj(31)
    try:
        data = unpacker.decompress(packed, UNPACKED_BYTES)
        if not unpacker.eof or unpacker.unused_data:
            return None
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            found = _members(tar)
    except (tarfile.TarError, zlib.error, EOFError, KeyError, ValueError, OverflowError, RecursionError):
        return None
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()


def _members(tar: tarfile.TarFile) -> list[tuple[str, str, str]]:
    """Name, type and content of each member. Raises ValueError for more than an archive of code has."""
    found: list[tuple[str, str, str]] = []
    left_bytes = UNPACKED_BYTES
    for member in tar:
        left_bytes -= member.size
        if member.issparse() or member.size < 0 or left_bytes < 0 or len(found) >= MEMBERS:
            raise ValueError("no archive of code")
        file = tar.extractfile(member) if member.isfile() else None
        content = hashlib.sha256(file.read()).hexdigest() if file else member.linkname
        found.append((member.name, member.type.decode("latin-1"), content))
    return found


# --- durations
def seconds_of(duration: str | None) -> float | None:
    """The seconds of an ISO 8601 duration as CacheConfig takes it ("PT1H", "30d", "T16m"); None for no end.

    Differs: a year has 365 days and a month 30.
    """
    if not duration:
        return None
    date, _, time = duration.upper().removeprefix("P").partition("T")
    parts = [(number, unit) for number, unit in re.findall(r"(\d+)([A-Z])", date)]
    parts += [(number, unit.lower()) for number, unit in re.findall(r"(\d+)([A-Z])", time)]
    return float(sum(int(number) * PART_S[unit] for number, unit in parts))


# --- differences
def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar of the attributes with its path; items of lists by their names where they have one."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from flatten(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from flatten(inner, f"{path}[{_name(inner, index)}]")
    else:
        yield path, value


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What changed, attribute by attribute: {"attribute", "before", "now"}; None for what is not there."""
    old, new = dict(flatten(before)), dict(flatten(now))
    paths = [*old, *(path for path in new if path not in old)]
    found = [
        {"attribute": path, "before": old.get(path), "now": new.get(path)}
        for path in paths
        if old.get(path) != new.get(path)
    ]
    if not found and before != now:
        found = [{"attribute": "the order of a list", "before": "as it was", "now": "another"}]
    return found


def _name(item: Any, index: int) -> str:
    named = next((item[name] for name in NAMING if isinstance(item, dict) and isinstance(item.get(name), str)), None)
    return str(index) if named is None else f"'{named}'"
