"""The expressions of a pipeline definition: what they refer to, and their values.

    {"Get": "Parameters.Name"}                              a parameter
    {"Get": "Execution.PipelineName"}                       an execution variable
    {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}  a member of a step's Describe answer
    {"Std:Join": {"On": "/", "Values": [...]}}              text
    {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Eval.PropertyFiles.Report"}, "Path": "a.b[0]['c']"}}
    {"Std:JsonGet": {"S3Uri": <expression>, "Path": "..."}}

Pure: what parameters, steps and files hold comes through a `Scope`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

Path = tuple[str | int, ...]

VARIABLES = frozenset({
    "StartDateTime", "CurrentDateTime", "PipelineName", "PipelineArn", "PipelineExecutionId", "PipelineExecutionArn",
    "TrainingJobName", "ProcessingJobName",
})  # fmt: skip
NAMING = ("OutputName", "InputName", "ChannelName", "VariantName", "ContainerHostname", "Name", "Key", "MetricName")
"""The members that an item of a list goes by, where a path names it: Outputs['train']."""

_TOKEN = re.compile(r"""\.?(?P<name>[^.\[\]'"]+)|\[(?P<index>\d+)\]|\['(?P<single>[^']*)'\]|\["(?P<double>[^"]*)"\]""")
_GET = re.compile(r"(?P<root>Parameters|Execution|Steps)\.(?P<name>[A-Za-z0-9_\-]+)(?P<rest>.*)", re.DOTALL)


class Unresolved(Exception):
    """An expression that has no value: the sentence says what is missing, and what there is."""


class Scope(Protocol):
    """Where the values are that expressions refer to."""

    def parameter(self, name: str) -> Any: ...
    def variable(self, name: str) -> Any: ...
    def outputs(self, step: str) -> dict[str, Any]:
        """The Describe answer of a step that has ended. Raises: Unresolved."""
        ...

    def file_uri(self, step: str, file: str) -> str:
        """The S3 URI of a step's property file. Raises: Unresolved."""
        ...

    def content(self, uri: str) -> Any:
        """What the JSON file holds. Raises: Unresolved."""
        ...


@dataclass(frozen=True, slots=True)
class Reference:
    """What a Get refers to: `kind` is "parameter", "variable", "member" or "file"."""

    kind: str
    name: str
    """Of the parameter, the variable or the step."""
    path: Path = ()
    """Of a member; of a file its name alone."""
    text: str = ""


# --- paths
@lru_cache(maxsize=4096)
def split_path(text: str) -> Path:
    """The parts of `a.b[0]['c d']`, with or without JSONPath's `$` in front.

    Raises: ValueError.
    """
    rest = text[1:] if text.startswith("$") else text
    parts: list[str | int] = []
    at = 0
    while at < len(rest):
        token = _TOKEN.match(rest, at)
        if token is None or (at == 0 and rest[0] == "." and rest is text):
            raise ValueError(f"Invalid path '{text}'")
        if token["index"] is not None:
            parts.append(int(token["index"]))
        else:
            parts.append(next(part for part in (token["name"], token["single"], token["double"]) if part is not None))
        at = token.end()
    return tuple(parts)


def walk(value: Any, path: Path) -> Any:
    """The value at the path.

    Raises: Unresolved, telling the first part that is missing and what there is instead.
    """
    for depth, part in enumerate(path):
        found = _enter(value, part)
        if found is _NOTHING:
            place = join_path(path[:depth]) or "the document"
            raise Unresolved(f"'{join_path(path)}' is not there: {place} {_tell(value)}")
        value = found
    return value


def join_path(path: Path) -> str:
    """The text of a path."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w\-]+", part):
            text += f".{part}" if text else part
        else:
            text += f"['{part}']"
    return text


_NOTHING = object()


def _enter(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(str(part), _NOTHING)
    if not isinstance(value, list):
        return _NOTHING
    if isinstance(part, int) or part.isdigit():
        return value[int(part)] if int(part) < len(value) else _NOTHING
    named = (item for item in value if isinstance(item, dict) and part in (item.get(name) for name in NAMING))
    return next(named, _NOTHING)


def _tell(value: Any) -> str:
    if isinstance(value, dict):
        return f"has {', '.join(map(str, list(value)[:20]))}" if value else "is empty"
    if isinstance(value, list):
        names = [next((str(i[n]) for n in NAMING if n in i), "?") if isinstance(i, dict) else "?" for i in value[:20]]
        return f"is a list of {len(value)}" + (f" ({', '.join(names)})" if names and "?" not in names else "")
    return f"is {json.dumps(value)[:100]}"


# --- references
@lru_cache(maxsize=4096)
def parse_reference(text: str) -> Reference:
    """What the text of a Get refers to.

    Raises: ValueError.
    """
    got = _GET.fullmatch(text)
    if got is None:
        raise ValueError(f"Invalid property reference '{text}'")
    root, name, rest = got["root"], got["name"], got["rest"]
    if root != "Steps":
        if rest:
            raise ValueError(f"Invalid property reference '{text}'")
        return Reference("parameter" if root == "Parameters" else "variable", name, text=text)
    path = split_path(rest.removeprefix("."))
    if path and path[0] == "PropertyFiles":
        if len(path) != 2:
            raise ValueError(f"Invalid property reference '{text}'")
        return Reference("file", name, path[1:], text)
    return Reference("member", name, path, text)


def function_of(value: Any) -> str | None:
    """The name of the function, when the value is an expression: "Get", "Std:Join" or "Std:JsonGet"."""
    if isinstance(value, dict) and len(value) == 1:
        name = next(iter(value))
        if name in ("Get", "Std:Join", "Std:JsonGet"):
            return str(name)
    return None


def references(value: Any) -> Iterator[Reference]:
    """Everything that a value refers to, at any depth. Checks the form of the expressions as well.

    Raises: ValueError.
    """
    function = function_of(value)
    if function == "Get":
        if not isinstance(value["Get"], str):
            raise ValueError(f"Invalid property reference '{json.dumps(value['Get'])}'")
        yield parse_reference(value["Get"])
    elif function == "Std:Join":
        yield from _join_references(value["Std:Join"])
    elif function == "Std:JsonGet":
        yield from _json_references(value["Std:JsonGet"])
    elif isinstance(value, dict):
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def _join_references(join: Any) -> Iterator[Reference]:
    if (
        not isinstance(join, dict)
        or not isinstance(join.get("Values"), list)
        or not isinstance(join.get("On", ""), str)
    ):
        raise ValueError("Std:Join needs a text 'On' and a list 'Values'")
    for inner in join["Values"]:
        yield from references(inner)


def _json_references(get: Any) -> Iterator[Reference]:
    if not isinstance(get, dict) or not isinstance(get.get("Path"), str):
        raise ValueError("Std:JsonGet needs a text 'Path'")
    split_path(get["Path"])
    if ("PropertyFile" in get) == ("S3Uri" in get):
        raise ValueError("Std:JsonGet needs either a 'PropertyFile' or an 'S3Uri'")
    if "S3Uri" in get:
        yield from references(get["S3Uri"])
        return
    found = list(references(get["PropertyFile"]))
    if function_of(get["PropertyFile"]) != "Get" or found[0].kind != "file":
        raise ValueError("Std:JsonGet's 'PropertyFile' must be a Get of Steps.<step>.PropertyFiles.<name>")
    yield from found


# --- values
def resolve(value: Any, scope: Scope) -> Any:
    """The value with every expression in it replaced by its own.

    Raises: Unresolved.
    """
    function = function_of(value)
    if function == "Get":
        return _get(value["Get"], scope)
    if function == "Std:Join":
        join = value["Std:Join"]
        return str(join.get("On", "")).join(to_text(resolve(part, scope)) for part in join["Values"])
    if function == "Std:JsonGet":
        return _get_json(value["Std:JsonGet"], scope)
    if isinstance(value, dict):
        return {name: resolve(inner, scope) for name, inner in value.items()}
    if isinstance(value, list):
        return [resolve(inner, scope) for inner in value]
    return value


def to_text(value: Any) -> str:
    """A value as Std:Join writes it: booleans are `true` and `false`.

    Source: the SDK's function steps compare a joined Boolean parameter with "true"; its tests expect a joined
    Outcome to read "false".
    """
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


def _get(text: str, scope: Scope) -> Any:
    reference = parse_reference(text)
    if reference.kind == "parameter":
        return scope.parameter(reference.name)
    if reference.kind == "variable":
        return scope.variable(reference.name)
    if reference.kind == "file":
        return scope.file_uri(reference.name, str(reference.path[0]))
    try:
        return walk(scope.outputs(reference.name), reference.path)
    except Unresolved as why:
        raise Unresolved(f"The reference '{text}' has no value: {why}") from None


def _get_json(get: dict[str, Any], scope: Scope) -> Any:
    uri = to_text(resolve(get.get("PropertyFile", get.get("S3Uri")), scope))
    try:
        return walk(scope.content(uri), split_path(get["Path"]))
    except Unresolved as why:
        raise Unresolved(f"JsonGet could not read the path '{get['Path']}' in {uri}: {why}") from None
