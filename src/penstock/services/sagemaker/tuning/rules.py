"""Pure functions of tuning jobs: what may be asked, which values a trial may have, how the trials stand."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.kernel.errors import invalid
from penstock.search.base import DONE, FAILED, RUNNING, Plan, Range, Trial

PARAMETERS_MOST = 30
LOGARITHMIC_FROM = 1000.0
"""Scaling Auto is logarithmic where the largest value is so many times the smallest."""
HYPERBAND = (1, 27)
"""Hyperband's resources where the job names none."""
FAILURES = frozenset({"Failed", "Stopped"})
CONVERGED_AFTER = 20
"""Trials without a better one after which a search counts as converged."""
IMPROVEMENT = 0.01
"""What counts as better: by this share."""
KINDS = {
    "IntegerParameterRanges": "integer",
    "ContinuousParameterRanges": "continuous",
    "CategoricalParameterRanges": "categorical",
}
Body = Mapping[str, Any]


# --- what is asked


def told(expression: str) -> str:
    """A metric's expression for a sentence's end, with what keeps it from ever finding a number."""
    try:
        fault = "" if re.compile(expression).groups else "; it has no group: put the number's part into parentheses"
    except re.error as why:
        fault = f"; it is no regular expression: {why}"
    return f" ({expression}{fault})"


def definitions(body: Body) -> list[dict[str, Any]]:
    """The training definitions: several that compete, or the one."""
    several: list[dict[str, Any]] = body.get("TrainingJobDefinitions") or []
    return several or [body["TrainingJobDefinition"]]


def ranges(body: Body, definition: Mapping[str, Any]) -> dict[str, Any]:
    """A definition's ranges: its own, or those of the job."""
    config = body["HyperParameterTuningJobConfig"]
    found: dict[str, Any] = definition.get("HyperParameterRanges") or config.get("ParameterRanges") or {}
    return found


def objective(body: Body, definition: Mapping[str, Any]) -> dict[str, str]:
    """What a definition's trials are judged by: {Type, MetricName}; empty where nothing is said."""
    config = body["HyperParameterTuningJobConfig"]
    found: dict[str, str] = definition.get("TuningObjective") or config.get("HyperParameterTuningJobObjective") or {}
    return found


def resources(definition: Body) -> dict[str, Any]:
    """The ResourceConfig of a definition's training jobs: of several that would do, the one that is preferred."""
    flexible = definition.get("HyperParameterTuningResourceConfig")
    if not flexible:
        return dict(definition.get("ResourceConfig", {}))
    preferred = (flexible.get("InstanceConfigs") or [{}])[0]
    members = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")
    return {member: value for member in members if (value := preferred.get(member, flexible.get(member))) is not None}


def check(body: Body) -> None:
    """Refuses a job that cannot be searched.

    Raises: ServiceError (ValidationException).
    """
    single, several = body.get("TrainingJobDefinition"), body.get("TrainingJobDefinitions")
    if bool(single) == bool(several):
        raise invalid("You must specify exactly one of TrainingJobDefinition and TrainingJobDefinitions.")
    config = body["HyperParameterTuningJobConfig"]
    if several:
        _check_several(config, several)
    for definition in definitions(body):
        _check_definition(body, definition)
    _check_strategy(body, config)
    if body.get("Autotune"):
        raise invalid("Autotune is not served: name the ranges of the hyperparameters.")


def _check_several(config: Body, several: Sequence[Body]) -> None:
    names = [definition.get("DefinitionName") for definition in several]
    if None in names or len(set(names)) != len(names):
        raise invalid("Each of the TrainingJobDefinitions needs a DefinitionName of its own.")
    if config.get("ParameterRanges") or config.get("HyperParameterTuningJobObjective"):
        raise invalid(
            "With TrainingJobDefinitions, HyperParameterRanges and TuningObjective are members of each definition, "
            "not of HyperParameterTuningJobConfig."
        )
    kinds = {definition.get("TuningObjective", {}).get("Type") for definition in several}
    if len(kinds) > 1:
        raise invalid("The TuningObjectives of all training job definitions must have the same Type.")


def _check_definition(body: Body, definition: Body) -> None:
    goal = objective(body, definition)
    if not goal:
        raise invalid("A tuning job needs an objective: HyperParameterTuningJobObjective, or TuningObjective.")
    known = [metric["Name"] for metric in definition["AlgorithmSpecification"].get("MetricDefinitions", [])]
    if known and goal["MetricName"] not in known:
        raise invalid(
            f"The objective metric {goal['MetricName']} is not one of the MetricDefinitions: {', '.join(known)}."
        )
    if not resources(definition):
        raise invalid("A training job definition needs a ResourceConfig or a HyperParameterTuningResourceConfig.")
    given = ranges(body, definition)
    if given.get("AutoParameters"):
        raise invalid("AutoParameters are not served: name the ranges of the hyperparameters.")
    space = read_ranges(given)
    if not 1 <= len(space) <= PARAMETERS_MOST:
        raise invalid(f"A tuning job searches 1 to {PARAMETERS_MOST} hyperparameters; {len(space)} are given.")
    names = [each.name for each in space]
    twice = {name for name in names if names.count(name) > 1} | (set(names) & set(definition.get("StaticHyperParameters", {})))
    if twice:
        raise invalid(f"Hyperparameters are given more than once, as a range or as static: {', '.join(sorted(twice))}.")


def _check_strategy(body: Body, config: Body) -> None:
    strategy, limits = config["Strategy"], config["ResourceLimits"]
    most = limits.get("MaxNumberOfTrainingJobs")
    if strategy == "Grid":
        space = [each for definition in definitions(body) for each in read_ranges(ranges(body, definition))]
        if others := [f"{each.name} ({each.kind})" for each in space if each.kind != "categorical"]:
            raise invalid(
                f"The strategy Grid takes categorical ranges only, and these are others: {', '.join(others)}. "
                "Give their values as categories, or take another strategy."
            )
        if most is not None and most != grid_size(body):
            raise invalid(
                f"The strategy Grid runs each combination once: MaxNumberOfTrainingJobs is {most}, and there are {grid_size(body)}."
            )
    elif most is None:
        raise invalid(f"The strategy {strategy} needs MaxNumberOfTrainingJobs.")
    if strategy == "Hyperband" and config.get("TrainingJobEarlyStoppingType") == "Auto":
        raise invalid("The strategy Hyperband stops training jobs by itself: TrainingJobEarlyStoppingType must be Off.")
    low, high = hyperband(config)
    if low > high:
        raise invalid(f"HyperbandStrategyConfig: MinResource {low} is greater than MaxResource {high}.")


def hyperband(config: Body) -> tuple[int, int]:
    given = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
    low = int(given.get("MinResource", HYPERBAND[0]))
    return low, int(given.get("MaxResource", max(low, HYPERBAND[1])))


# --- ranges


def read_ranges(given: Mapping[str, Any]) -> list[Range]:
    """The ranges of all kinds.

    Raises: ServiceError (ValidationException) for one that holds nothing.
    """
    return [_read_range(kind, each) for member, kind in KINDS.items() for each in given.get(member, [])]


def _read_range(kind: str, given: Mapping[str, Any]) -> Range:
    name = given["Name"]
    if kind == "categorical":
        choices = tuple(given["Values"])
        if not choices or len(set(choices)) != len(choices):
            raise invalid(f"Hyperparameter {name}: Values must be given, each once.")
        return Range(name, kind, choices=choices)
    low, high = (_read_bound(kind, name, given[member]) for member in ("MinValue", "MaxValue"))
    if low > high:
        raise invalid(f"Hyperparameter {name}: MinValue {given['MinValue']} is greater than MaxValue {given['MaxValue']}.")
    scale = given.get("ScalingType", "Auto")
    if scale == "Auto":
        scale = "Logarithmic" if low > 0 and high >= LOGARITHMIC_FROM * low else "Linear"
    if scale == "Logarithmic" and low <= 0:
        raise invalid(f"Hyperparameter {name}: ScalingType Logarithmic takes values greater than 0.")
    if scale == "ReverseLogarithmic" and (kind == "integer" or not 0 <= low <= high < 1):
        raise invalid(f"Hyperparameter {name}: ScalingType ReverseLogarithmic takes continuous values from 0 up to, not including, 1.")
    return Range(name, kind, low, high, scale)


def _read_bound(kind: str, name: str, text: str) -> float:
    try:
        number = float(int(text)) if kind == "integer" else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise invalid(f"Hyperparameter {name}: {text!r} is no {'whole ' if kind == 'integer' else ''}number.")
    return number


def grid_size(body: Body) -> int:
    return sum(
        math.prod(len(each.choices) for each in read_ranges(ranges(body, definition))) for definition in definitions(body)
    )


def grid_trial(body: Body, number: int) -> Trial:
    """The combination of that number: all of the first definition's, then those of the next."""
    for algorithm, definition in enumerate(definitions(body)):
        space = read_ranges(ranges(body, definition))
        count = math.prod(len(each.choices) for each in space)
        if number < count:
            chosen = next(itertools.islice(itertools.product(*(each.choices for each in space)), number, None))
            return Trial(algorithm, {each.name: value for each, value in zip(space, chosen, strict=True)})
        number -= count
    raise IndexError(number)


def most_trials(body: Body) -> int:
    config = body["HyperParameterTuningJobConfig"]
    most = config["ResourceLimits"].get("MaxNumberOfTrainingJobs")
    return grid_size(body) if most is None else int(most)


# --- the search


def plan(body: Body, arn: str, parents: Sequence[Trial] = ()) -> Plan:
    """What the search is asked. A job without a RandomSeed has one of its name."""
    config = body["HyperParameterTuningJobConfig"]
    every = definitions(body)
    seed = config.get("RandomSeed", int.from_bytes(hashlib.sha256(arn.encode()).digest()[:4]))
    return Plan(
        spaces=[read_ranges(ranges(body, definition)) for definition in every],
        maximize=maximizes(body),
        strategy=config["Strategy"],
        seed=int(seed),
        resources=hyperband(config),
        parents=parents,
    )


def maximizes(body: Body) -> bool:
    return objective(body, definitions(body)[0]).get("Type") == "Maximize"


def trials(entries: Iterable[Mapping[str, Any]]) -> list[Trial]:
    """The entries of a tuning job as its search knows them."""
    return [
        Trial(each["d"], each["v"], RUNNING if not ended(each) else DONE if each["o"] is not None else FAILED, each["o"])
        for each in entries
    ]


def name_trial(job: str, number: int, arn: str) -> str:
    """A training job's name: the tuning job's, the number from 1, and eight letters; the same for the same trial."""
    word = hashlib.sha256(f"{arn}/{number}".encode()).hexdigest()[:8]
    return f"{job}-{number + 1:03d}-{word}"


# --- how it stands


def ended(entry: Mapping[str, Any]) -> bool:
    return entry["s"] in ("Completed", "Failed", "Stopped")


def counters(entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """The members that count trials, by status and by what became of their objective."""
    statuses = [entry["s"] for entry in entries]
    return {
        "TrainingJobStatusCounters": {
            "Completed": statuses.count("Completed"),
            "InProgress": sum(not ended(entry) for entry in entries),
            "RetryableError": 0,
            "NonRetryableError": statuses.count("Failed"),
            "Stopped": statuses.count("Stopped"),
        },
        "ObjectiveStatusCounters": {
            "Succeeded": sum(objective_status(entry) == "Succeeded" for entry in entries),
            "Pending": sum(objective_status(entry) == "Pending" for entry in entries),
            "Failed": sum(objective_status(entry) == "Failed" for entry in entries),
        },
    }


def objective_status(entry: Mapping[str, Any]) -> str:
    if not ended(entry):
        return "Pending"
    return "Failed" if entry["o"] is None else "Succeeded"


def best(entries: Sequence[Mapping[str, Any]], maximize: bool) -> int | None:
    """The number of the best trial, the earliest of several; None where none has an objective."""
    told = [number for number, entry in enumerate(entries) if entry["o"] is not None]
    sign = -1 if maximize else 1
    return min(told, key=lambda number: (sign * entries[number]["o"], number), default=None)


def not_improving(entries: Sequence[Mapping[str, Any]], maximize: bool) -> int:
    """How many trials in a row have ended since one was better by at least one per cent."""
    count, top = 0, None
    for entry in entries:
        value = entry["o"]
        if not ended(entry):
            continue
        if value is not None and (top is None or _better(value, top, maximize)):
            count, top = 0, value
        else:
            count += 1
    return count


def _better(value: float, top: float, maximize: bool) -> bool:
    gain = value - top if maximize else top - value
    return gain > abs(top) * IMPROVEMENT


def reached(body: Body, entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a completion criterion holds."""
    criteria = body["HyperParameterTuningJobConfig"].get("TuningJobCompletionCriteria", {})
    maximize = maximizes(body)
    number = best(entries, maximize)
    target = criteria.get("TargetObjectiveMetricValue")
    if target is not None and number is not None:
        value = entries[number]["o"]
        if value >= target if maximize else value <= target:
            return True
    patience = criteria.get("BestObjectiveNotImproving", {}).get("MaxNumberOfTrainingJobsNotImproving")
    stale = not_improving(entries, maximize)
    if patience is not None and stale >= patience:
        return True
    return converges(body) and stale >= CONVERGED_AFTER


def converges(body: Body) -> bool:
    criteria = body["HyperParameterTuningJobConfig"].get("TuningJobCompletionCriteria", {})
    return bool(criteria.get("ConvergenceDetected", {}).get("CompleteOnConvergence") == "Enabled")
