"""What a metric's points say, by period or iteration."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from itertools import groupby

Point = tuple[float, float, float]
"""Moment, value, step."""

PERIODS_S = {"OneMinute": 60, "FiveMinute": 300, "OneHour": 3600}
STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "Min": min,
    "Max": max,
    "Avg": statistics.fmean,
    "Count": lambda values: float(len(values)),
    "StdDev": statistics.pstdev,
    "Last": lambda values: values[-1],
}


def series(
    points: Sequence[Point], statistic: str, period: str, by_step: bool, start: int | None, end: int | None
) -> list[tuple[int, float]]:
    """A statistic of the points of each bucket: a step, or the period (epoch seconds) that their moment lies in."""
    width = PERIODS_S.get(period, 1)

    def bucket(point: Point) -> int:
        return int(point[2]) if by_step else int(point[0] // width * width)

    inside = [one for one in points if (start is None or bucket(one) >= start) and (end is None or bucket(one) <= end)]
    ordered = sorted(inside, key=lambda one: (bucket(one), one[0]))
    of = STATISTICS[statistic]
    return [(place, of([value for _, value, _ in group])) for place, group in groupby(ordered, bucket)]
