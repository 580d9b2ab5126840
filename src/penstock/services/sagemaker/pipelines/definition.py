"""A pipeline definition, parsed: parameters and steps, and what each step waits for.

Every fault that can be known before a run is found here, told with the step's name. Pure, and cached by the text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from penstock.services.sagemaker.pipelines import checks, conditions
from penstock.services.sagemaker.pipelines.checks import Malformed
from penstock.services.sagemaker.pipelines.expressions import VARIABLES, Reference, references, to_text

VERSION = "2020-12-01"
MAX_BYTES = 10 << 20
MAX_PARAMETERS = 200


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a pipeline, its type (a key of PARAMETER_TYPES) and its default (None: it must be given)."""

    name: str
    type: str
    default: Any = None
    choices: tuple[str, ...] = ()

    def read(self, text: str) -> Any:
        """The value that a text given at the start stands for.

        Raises: Malformed.
        """
        if text == "":
            raise Malformed(f'Parameter {self.name} value "" is too short (length: 0, required minimum: 1).')
        value = checks.PARAMETER_TYPES[self.type].read(text)
        if value is None:
            raise Malformed(f"Unexpected type for parameter '{self.name}'. Expected {self.type} but found '{text}'.")
        if self.choices and to_text(value) not in self.choices:
            raise Malformed(
                f"Parameter '{self.name}' has the value '{text}', which is not one of [{', '.join(self.choices)}]."
            )
        return value


@dataclass(frozen=True, slots=True)
class Step:
    """A step, wherever it stands in the definition."""

    name: str
    type: str
    arguments: dict[str, Any]
    needs: tuple[str, ...] = ()
    """The steps that must have succeeded before: by DependsOn, and by what its arguments refer to."""
    branch: tuple[str, bool] | None = None
    """The Condition step it stands in, and the outcome that it waits for."""
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Property files by name: the output's name, and the path in it."""
    display_name: str = ""
    description: str = ""
    raw: dict[str, Any] = field(default_factory=dict)
    """The step as it stands in the definition."""
    reads: frozenset[str] = frozenset()
    """Those of `needs` whose results its arguments refer to."""
    unless: frozenset[str] = frozenset()
    """Those of `needs` that must not succeed: it is for the case that they fail or are stopped."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition without faults; `steps` in the order they stand there, those of branches included."""

    parameters: Mapping[str, Parameter]
    steps: Mapping[str, Step]
    order: tuple[str, ...] = ()
    """The steps' names, each after all that it waits for."""
    experiment: dict[str, Any] | None = None
    mlflow: dict[str, Any] | None = None

    def values(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Every parameter's value, from the texts given at the start and the defaults.

        Raises: Malformed.
        """
        for name in given:
            if name not in self.parameters:
                raise Malformed(f"Unknown parameter '{name}'")
        values = {}
        for name, parameter in self.parameters.items():
            value = parameter.read(given[name]) if name in given else parameter.default
            if value is None:
                raise Malformed(f"Parameter '{name}' is undefined.")
            values[name] = value
        return values


@lru_cache(maxsize=64)
def parse(text: str) -> Definition:
    """The definition that a text holds.

    Raises: Malformed, with the first fault's sentence.
    """
    if len(text) > MAX_BYTES:
        raise Malformed(f"The pipeline definition is too long (length: {len(text)}, maximum allowed: {MAX_BYTES}).")
    try:
        raw = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except ValueError as why:
        raise Malformed(f"Malformed JSON: {why}") from None
    except RecursionError:
        raise Malformed("Malformed JSON: it is nested too deeply.") from None
    checks.check_depth(raw)
    if not isinstance(raw, dict):
        raise Malformed("The definition must be a JSON object.")
    if raw.get("Version") != VERSION:
        raise Malformed(f"Unsupported version '{raw.get('Version')}'; the supported version is '{VERSION}'.")
    checks.check_metadata(raw.get("Metadata"))
    parameters = _read_parameters(raw.get("Parameters") or [])
    found = list(_flatten(raw.get("Steps"), None))
    steps = {step["Name"]: _read_step(step, branch) for step, branch in _unique(found)}
    for step in steps.values():
        _check_references(step, parameters, steps)
    order = _find_order(steps)
    experiment, mlflow = raw.get("PipelineExperimentConfig"), raw.get("MlflowConfig")
    _check_config("PipelineExperimentConfig", experiment, parameters)
    _check_config("MlflowConfig", mlflow, parameters)
    return Definition(parameters, steps, order, experiment, mlflow)


def _no_number(text: str) -> float:
    """Raises: ValueError, for NaN and Infinity: JSON has none, and nothing could keep them."""
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


# --- parameters
def _read_parameters(raw: Any) -> dict[str, Parameter]:
    if not isinstance(raw, list) or len(raw) > MAX_PARAMETERS:
        raise Malformed(f"'Parameters' must be a list of at most {MAX_PARAMETERS}.")
    parameters: dict[str, Parameter] = {}
    for item in raw:
        parameter = _read_parameter(item)
        if parameter.name in parameters:
            raise Malformed(f"Duplicate parameter name '{parameter.name}'.")
        parameters[parameter.name] = parameter
    return parameters


def _read_parameter(raw: Any) -> Parameter:
    name = raw.get("Name") if isinstance(raw, dict) else None
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9\-_]{1,256}", name):
        raise Malformed(
            f"Invalid parameter name '{name}': it must match [A-Za-z0-9\\-_]* and have 1 to 256 characters."
        )
    kind = checks.PARAMETER_TYPES.get(raw.get("Type"))
    if kind is None:
        raise Malformed(
            f"Parameter '{name}' has the unknown type '{raw.get('Type')}'; "
            f"the types are {', '.join(checks.PARAMETER_TYPES)}."
        )
    default, choices = raw.get("DefaultValue"), raw.get("EnumValues") or []
    if default is not None and not kind.fits(default):
        raise Malformed(f"The default value of parameter '{name}' is no {raw['Type']}: {json.dumps(default)[:100]}.")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise Malformed(f"The EnumValues of parameter '{name}' must be a list of texts.")
    if choices and default is not None and to_text(default) not in choices:
        raise Malformed(
            f"The default value '{default}' of parameter '{name}' is not one of its EnumValues [{', '.join(choices)}]."
        )
    return Parameter(name, raw["Type"], default, tuple(choices))


# --- steps
def _flatten(raw: Any, branch: tuple[str, bool] | None) -> Iterator[tuple[dict[str, Any], tuple[str, bool] | None]]:
    """Every step with the branch it stands in, outer ones first."""
    where = f"the {'IfSteps' if branch[1] else 'ElseSteps'} of step '{branch[0]}'" if branch else "'Steps'"
    if not isinstance(raw, list):
        raise Malformed(f"{where[0].upper()}{where[1:]} must be a list of steps.")
    for step in raw:
        checks.check_form(step, where)
        yield step, branch
        if step["Type"] == "Condition":
            yield from _flatten(step["Arguments"].get("IfSteps") or [], (step["Name"], True))
            yield from _flatten(step["Arguments"].get("ElseSteps") or [], (step["Name"], False))


def _unique(
    found: Iterable[tuple[dict[str, Any], tuple[str, bool] | None]],
) -> Iterator[tuple[dict[str, Any], tuple[str, bool] | None]]:
    seen: set[str] = set()
    for step, branch in found:
        if step["Name"] in seen:
            raise Malformed(
                f"Step names must be unique: '{step['Name']}' is used more than once. A step that stands in "
                "the IfSteps or ElseSteps of a Condition step must not stand in the pipeline's Steps too."
            )
        seen.add(step["Name"])
        yield step, branch


def _read_step(raw: dict[str, Any], branch: tuple[str, bool] | None) -> Step:
    name, kind = raw["Name"], raw["Type"]
    arguments = raw.get("Arguments") or {}
    checks.check_arguments(name, kind, arguments)
    checks.check_policies(name, raw)
    own = {"Conditions": arguments.get("Conditions") or []} if kind == "Condition" else raw
    depends = checks.read_depends(name, raw)
    needs = dict.fromkeys(depends)
    reads = dict.fromkeys(
        reference.name for reference in _refer(name, kind, own) if reference.kind in ("member", "file")
    )
    needs |= reads
    return Step(
        name, kind, arguments, tuple(needs), branch, checks.read_files(name, raw, arguments),
        raw.get("DisplayName") or "", raw.get("Description") or "", raw, frozenset(reads),
        frozenset(each for each, trigger in depends.items() if trigger in ("Failed", "Stopped")),
    )  # fmt: skip


def _refer(name: str, kind: str, own: dict[str, Any]) -> list[Reference]:
    try:
        if kind == "Condition":
            return [reference for condition in own["Conditions"] for reference in conditions.check(condition)]
        found = list(references(checks.outside_of_each(own) if kind == "ForEach" else own))
        inner = checks.names_in_each(own) if kind == "ForEach" else set()
        return [reference for reference in found if reference.kind not in ("member", "file") or reference.name not in inner]
    except ValueError as why:
        raise Malformed(f"Step '{name}': {why}.") from None


def _check_references(step: Step, parameters: Mapping[str, Parameter], steps: Mapping[str, Step]) -> None:
    own = {"Conditions": step.arguments.get("Conditions") or []} if step.type == "Condition" else step.raw
    for need in step.needs:
        if need not in steps:
            raise Malformed(f"Step '{step.name}' depends on the step '{need}', which is not defined.")
        if steps[need].type == "Fail":
            raise Malformed(
                f"Step {step.name} can not depends on {need}: it is a Fail step, and nothing comes after it."
            )
    for reference in _refer(step.name, step.type, own):
        if reference.kind == "parameter" and reference.name not in parameters:
            raise Malformed(f"Step '{step.name}' refers to the parameter '{reference.name}', which is not defined.")
        if reference.kind == "variable" and reference.name not in VARIABLES:
            raise Malformed(
                f"Step '{step.name}' refers to the unknown execution variable '{reference.name}'; "
                f"the variables are {', '.join(sorted(VARIABLES))}."
            )
        if reference.kind == "file" and reference.path[0] not in steps[reference.name].files:
            raise Malformed(
                f"Step '{step.name}' refers to the property file '{reference.path[0]}', "
                f"which is undefined in step '{reference.name}'."
            )


def _check_config(member: str, raw: Any, parameters: Mapping[str, Parameter]) -> None:
    if raw is None:
        return
    try:
        found = list(references(raw)) if isinstance(raw, dict) else None
    except ValueError as why:
        raise Malformed(f"{member}: {why}.") from None
    if found is None:
        raise Malformed(f"{member} must be an object.")
    for reference in found:
        known = parameters if reference.kind == "parameter" else VARIABLES
        if reference.kind not in ("parameter", "variable") or reference.name not in known:
            raise Malformed(f"{member}: Invalid property reference '{reference.text}'.")


def _find_order(steps: Mapping[str, Step]) -> tuple[str, ...]:
    """The steps' names, each after all that it waits for. Refuses steps that wait for each other."""
    waits = {name: [*step.needs, *([step.branch[0]] if step.branch else [])] for name, step in steps.items()}
    left = {name: len(before) for name, before in waits.items()}
    after: dict[str, list[str]] = {}
    for name, before in waits.items():
        for other in before:
            after.setdefault(other, []).append(name)
    free = [name for name, count in left.items() if not count]
    for name in free:
        for other in after.get(name, ()):
            left[other] -= 1
            if not left[other]:
                free.append(other)
    if len(free) < len(steps):
        raise Malformed(
            f"Cycle detected in the pipeline's steps: {' -> '.join(_cycle(waits, set(steps) - set(free)))}."
        )
    return tuple(free)


def _cycle(waits: Mapping[str, list[str]], stuck: set[str]) -> list[str]:
    """One cycle among steps of which each waits for another of them."""
    trail = [min(stuck)]
    while True:
        following = next(name for name in waits[trail[-1]] if name in stuck)
        if following in trail:
            return [*trail[trail.index(following) :], following]
        trail.append(following)
