"""Hypothesis over the models: volleys of hostile requests at one operation, shrunk to the smallest that goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from penstock import server
from penstock.services import SERVICES
from penstock.wire import models
from tests.fuzz.judge import Gun, Wrong
from tests.fuzz.shots import TWISTS, Shot
from tests.fuzz.values import Values
from tests.fuzz.writing import shot_of

CASES = Path(__file__).parent / "cases"
VOLLEY = 6
"""Requests that an example fires, mostly, of the same parameters with other twists."""
COUNT = st.sampled_from((1, *(VOLLEY,) * 9))
TWIST = st.sampled_from((*("plain",) * len(TWISTS), *TWISTS))


def operations(services: tuple[str, ...] = SERVICES) -> Iterator[models.Operation]:
    """Everything that is served; what deletes comes last, so that others find something."""
    for name in services:
        served = [each for each, is_there in server.coverage_of(name).items() if is_there]
        for each in sorted(served, key=lambda known: ("Delete" in known, known)):
            yield models.service(name).operations[each]


class Volley(list[Shot]):
    """Shots; Hypothesis writes them down in vain, so briefly."""

    def __repr__(self) -> str:
        return f"{len(self)} shots"


@st.composite
def volleys(draw: Any, values: Values, operation: models.Operation) -> Volley:
    """One request, and the twists with which it is sent."""
    shot = shot_of(operation, values.params(draw, operation), operation.service.protocol)
    twists = [draw(TWIST) for _ in range(draw(COUNT))]
    return Volley(replace(shot, headers=dict(shot.headers), twist=name) for name in twists)


def hunt(gun: Gun, values: Values, operation: models.Operation, examples: int, seed: int) -> Wrong | None:
    """Fires so many volleys. Gives the smallest shot that went wrong, if any did."""
    seen: list[Wrong] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(volleys(values, operation))
    def volley(shots: Volley) -> None:
        for shot in shots:
            try:
                gun.fire(shot)
            except Wrong as wrong:
                seen.append(wrong)
                raise

    try:
        volley()
    except Wrong as wrong:
        return wrong
    except Flaky:
        if not seen:
            raise
        return seen[-1]
    return None


def keep(wrong: Wrong) -> Path:
    """Writes a shot down as a case that every run of the suite fires again."""
    shot = wrong.shot
    number = 1
    while (path := CASES / f"{shot.service}-{shot.operation}-{shot.twist}-{number}.json").exists():
        number += 1
    path.write_text(shot.kept(wrong.why))
    return path
