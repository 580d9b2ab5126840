"""The search by Optuna: tree-structured Parzen estimators, random values, Hyperband's and the median rule.

Source: optuna.readthedocs.io (samplers, pruners).
"""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from penstock.search.base import DONE, RUNNING, Plan, Range, Search, Trial

optuna.logging.set_verbosity(optuna.logging.ERROR)
ALGORITHM = "algorithm"
REMEMBERED = 32
"""Searches whose trials are kept ready; others are rebuilt from their records."""
ROUNDS = 2
"""How often each algorithm is tried before the search chooses among them."""
REDUCTION = 3
"""Of the trials that reach a rung of Hyperband, one in so many goes on; rungs are so many times as far apart."""
STATES = {RUNNING: TrialState.RUNNING, DONE: TrialState.COMPLETE}


def open_search() -> Search:
    return OptunaSearch()


class OptunaSearch:
    """Implements `Search`."""

    def __init__(self) -> None:
        self._studies: OrderedDict[str, optuna.Study] = OrderedDict()

    def suggest(self, name: str, plan: Plan, trials: Sequence[Trial]) -> Trial:
        study = self._study(name, plan, trials)
        study.sampler = _sampler(plan, len(trials))
        count = len(plan.spaces)
        if count > 1 and (plan.strategy == "Random" or len(trials) < ROUNDS * count):
            study.enqueue_trial({ALGORITHM: len(trials) % count})  # each algorithm's turn, before any is preferred
        asked = study.ask()
        algorithm = asked.suggest_categorical(ALGORITHM, tuple(range(count))) if count > 1 else 0
        return Trial(algorithm, {each.name: _draw(asked, algorithm, each) for each in plan.spaces[algorithm]})

    def hopeless(
        self, plan: Plan, curves: Sequence[Sequence[float]], running: Sequence[Sequence[float]]
    ) -> list[bool]:
        if plan.strategy == "Hyperband":
            return [bool(curve) and _falls_out(plan, curves, curve) for curve in running]
        if not any(running):
            return [False] * len(running)
        study = optuna.create_study(direction=_direction(plan))
        study.add_trials([_with_curve(ended, TrialState.COMPLETE) for ended in curves if ended])
        return [bool(curve) and _below_median(study, curve) for curve in running]

    def _study(self, name: str, plan: Plan, trials: Sequence[Trial]) -> optuna.Study:
        """The study of these trials: the one that is remembered, brought up to date, or a new one."""
        study = self._studies.pop(name, None)
        behind = len(plan.parents)
        if study is None or len(study.get_trials(deepcopy=False)) > behind + len(trials):
            # New to this process; or a trial was suggested that was then not made.
            study = optuna.create_study(study_name=name, direction=_direction(plan))
            study.add_trials([_frozen(plan, trial) for trial in plan.parents])
        known = study.get_trials(deepcopy=False)
        for trial, seen in zip(trials, known[behind:], strict=False):
            if trial.state != RUNNING and seen.state == TrialState.RUNNING:
                _tell(study, seen.number, trial)
        study.add_trials([_frozen(plan, trial) for trial in trials[max(0, len(known) - behind) :]])
        self._studies[name] = study
        while len(self._studies) > REMEMBERED:
            self._studies.popitem(last=False)
        return study


def _direction(plan: Plan) -> StudyDirection:
    return StudyDirection.MAXIMIZE if plan.maximize else StudyDirection.MINIMIZE


def _sampler(plan: Plan, number: int) -> optuna.samplers.BaseSampler:
    """Seeded by the trial's number, so that a question that is asked again has the same answer."""
    seed = (plan.seed + number * 7919) % (1 << 32)
    if plan.strategy == "Random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


# --- ranges


def _key(algorithm: int, each: Range) -> str:
    return f"{algorithm}/{each.name}"


def _mirrored(each: Range) -> bool:
    return each.kind == "continuous" and each.scale == "ReverseLogarithmic"


def _distribution(each: Range) -> BaseDistribution:
    if each.kind == "categorical":
        return CategoricalDistribution(each.choices)
    logarithmic = each.scale == "Logarithmic"
    if each.kind == "integer":
        return IntDistribution(int(each.low), int(each.high), log=logarithmic)
    if _mirrored(each):
        return FloatDistribution(1.0 - each.high, 1.0 - each.low, log=True)
    return FloatDistribution(each.low, each.high, log=logarithmic)


def _draw(asked: optuna.Trial, algorithm: int, each: Range) -> str:
    key, logarithmic = _key(algorithm, each), each.scale == "Logarithmic"
    if each.kind == "categorical":
        return str(asked.suggest_categorical(key, each.choices))
    if each.kind == "integer":
        return str(asked.suggest_int(key, int(each.low), int(each.high), log=logarithmic))
    if _mirrored(each):  # what is drawn is the distance from 1
        drawn = asked.suggest_float(key, 1.0 - each.high, 1.0 - each.low, log=True)
        return repr(min(max(1.0 - drawn, each.low), each.high))
    return repr(asked.suggest_float(key, each.low, each.high, log=logarithmic))


def _read(each: Range, text: str) -> Any:
    """The value that was drawn, of a hyperparameter's text; None where the range no longer has it."""
    if each.kind == "categorical":
        return text if text in each.choices else None
    try:
        number = float(text)
    except ValueError:
        return None
    if not each.low <= number <= each.high:
        return None
    if each.kind == "integer":
        return int(number)
    return 1.0 - number if _mirrored(each) else number


# --- trials


def _frozen(plan: Plan, trial: Trial) -> FrozenTrial:
    """A trial as Optuna keeps it: with the parameters that the present ranges have."""
    parameters: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    if len(plan.spaces) > 1:
        parameters[ALGORITHM] = trial.algorithm
        distributions[ALGORITHM] = CategoricalDistribution(tuple(range(len(plan.spaces))))
    for each in plan.spaces[trial.algorithm]:
        value = _read(each, trial.values.get(each.name, ""))
        if value is not None:
            parameters[_key(trial.algorithm, each)] = value
            distributions[_key(trial.algorithm, each)] = _distribution(each)
    state = STATES.get(trial.state, TrialState.FAIL)
    if state == TrialState.COMPLETE and not _told(trial):
        state = TrialState.FAIL
    value = trial.value if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=value, params=parameters, distributions=distributions)


def _told(trial: Trial) -> bool:
    return trial.value is not None and math.isfinite(trial.value)


def _tell(study: optuna.Study, number: int, trial: Trial) -> None:
    if trial.state == DONE and _told(trial):
        study.tell(number, trial.value)
    else:
        study.tell(number, state=TrialState.FAIL)


def _below_median(study: optuna.Study, curve: Sequence[float]) -> bool:
    """Whether a running trial is worse than the median of those that have ended; it is compared with no running one."""
    study.add_trial(_with_curve(curve, TrialState.RUNNING))
    return optuna.pruners.MedianPruner().prune(study, study.get_trials(deepcopy=False)[-1])


def _with_curve(curve: Sequence[float], state: TrialState) -> FrozenTrial:
    return create_trial(
        state=state,
        value=curve[-1] if state == TrialState.COMPLETE else None,
        intermediate_values=dict(enumerate(curve, 1)),
    )


# --- successive halving


def _falls_out(plan: Plan, curves: Sequence[Sequence[float]], curve: Sequence[float]) -> bool:
    """Whether a trial is not among the best third of those that got as far as the last rung it reached."""
    low, high = plan.resources
    rung = low
    while rung * REDUCTION <= min(len(curve), high):
        rung *= REDUCTION
    others = [_best(plan, other[:rung]) for other in curves if len(other) >= rung]
    if len(curve) < rung or len(others) < REDUCTION - 1:
        return False
    own = _best(plan, curve[:rung])
    better = sum(other > own if plan.maximize else other < own for other in others)
    return better >= max(1, (len(others) + 1) // REDUCTION)


def _best(plan: Plan, values: Sequence[float]) -> float:
    return max(values) if plan.maximize else min(values)
