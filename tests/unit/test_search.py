"""The search for hyperparameters: values lie in their ranges, good ones are found, and a new process goes on alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from penstock.search.base import DONE, FAILED, LateSearch, Plan, Range, Search, Trial
from penstock.search.bayesian import open_search

RATE = Range("rate", "continuous", 1e-4, 1.0, "Logarithmic")
DEPTH = Range("depth", "integer", 1, 9)
KERNEL = Range("kernel", "categorical", choices=("rbf", "linear"))
DECAY = Range("decay", "continuous", 0.5, 0.999, "ReverseLogarithmic")
PLAN = Plan([[RATE, DEPTH, KERNEL]], maximize=False, strategy="Bayesian", seed=7)


def loss(trial: Trial) -> float:
    away = abs(math.log10(float(trial.values["rate"])) + 2) + abs(int(trial.values["depth"]) - 5) / 10
    return away + (trial.values["kernel"] == "linear")


def run(search: Search, plan: Plan, count: int, trials: Sequence[Trial] = ()) -> list[Trial]:
    """So many trials, one after another; each is told before the next is asked for."""
    made = list(trials)
    for _ in range(count):
        trial = search.suggest("search", plan, made)
        made.append(replace(trial, state=DONE, value=loss(trial)))
    return made


def test_values_lie_in_their_ranges() -> None:
    space = [RATE, DEPTH, KERNEL, DECAY]
    for strategy in ("Random", "Bayesian", "Hyperband"):
        plan = replace(PLAN, spaces=[space], strategy=strategy)
        for trial in run(open_search(), plan, 20):
            assert 1e-4 <= float(trial.values["rate"]) <= 1.0
            assert int(trial.values["depth"]) in range(1, 10)
            assert trial.values["kernel"] in KERNEL.choices
            assert 0.5 <= float(trial.values["decay"]) <= 0.999


def test_a_logarithmic_range_is_drawn_by_its_magnitude() -> None:
    drawn = [float(trial.values["rate"]) for trial in run(open_search(), replace(PLAN, strategy="Random"), 60)]
    assert sum(value < 0.01 for value in drawn) > 15


def test_a_bayesian_search_beats_random_values() -> None:
    good = run(open_search(), PLAN, 50)
    blind = run(open_search(), replace(PLAN, strategy="Random"), 50)

    def late(trials: list[Trial]) -> float:
        return sum(trial.value or 0.0 for trial in trials[-15:]) / 15

    assert late(good) < late(blind) / 2


def test_a_search_that_begins_anew_goes_on_alike() -> None:
    first = open_search()
    made = run(first, PLAN, 15)
    assert open_search().suggest("search", PLAN, made) == first.suggest("search", PLAN, made)


def test_a_suggestion_that_was_not_used_is_given_again() -> None:
    search = open_search()
    made = run(search, PLAN, 12)
    assert search.suggest("search", PLAN, made) == search.suggest("search", PLAN, made)


def test_trials_that_run_are_not_suggested_twice() -> None:
    search = open_search()
    made = run(search, PLAN, 15)
    for _ in range(4):
        made.append(search.suggest("search", PLAN, made))
    assert len({trial.values["rate"] for trial in made[-4:]}) == 4


def test_a_failed_trial_teaches_nothing_and_harms_nothing() -> None:
    made = [replace(trial, state=FAILED, value=None) for trial in run(open_search(), PLAN, 5)]
    assert open_search().suggest("search", PLAN, made).state == "running"


def test_each_algorithm_has_its_turn_and_the_better_one_is_preferred() -> None:
    plan = replace(PLAN, spaces=[[DEPTH], [RATE]])
    search, made = open_search(), []
    for _ in range(40):
        trial = search.suggest("two", plan, made)
        made.append(replace(trial, state=DONE, value=float(trial.algorithm) + 0.01 * len(trial.values)))
    assert [trial.algorithm for trial in made[:4]] == [0, 1, 0, 1]
    assert set(made[1].values) == {"rate"}
    assert sum(trial.algorithm == 0 for trial in made) > 25


def test_trials_of_an_earlier_search_are_learnt_from() -> None:
    parents = run(open_search(), PLAN, 40)
    warm = run(open_search(), replace(PLAN, parents=parents), 5)
    cold = run(open_search(), PLAN, 5)
    assert sum(trial.value or 0 for trial in warm) < sum(trial.value or 0 for trial in cold)


@pytest.mark.parametrize("strategy", ["Bayesian", "Hyperband"])
def test_a_trial_far_behind_the_others_is_hopeless(strategy: str) -> None:
    plan = replace(PLAN, strategy=strategy, resources=(1, 9))
    others, search = [[1.0, 0.9, 0.8]] * 6, open_search()
    running = [[2.0, 2.0, 2.0], [0.5, 0.4, 0.3], [2.0, 2.0, 2.0], []]
    assert search.hopeless(plan, others, running) == [True, False, True, False]
    assert search.hopeless(plan, [], [[2.0]]) == [False]


def test_a_late_search_is_not_waited_for() -> None:
    late = LateSearch("penstock.search.bayesian")
    first = late.ready()
    assert late._loading is not None
    late._loading.join()
    assert late.ready() is not None
    assert first is None or first is late.ready()
