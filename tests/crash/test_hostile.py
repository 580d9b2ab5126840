"""Jobs that mean harm: each is contained, its end says what happened, others are answered meanwhile, all is given back.

The programs are in `hostile.py`; all of them run in one family, as many at once as it has room for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.runs import limits, sandbox
from tests.crash import workload
from tests.crash.families import raise_clan
from tests.crash.hostile import ATTACKS, SETTINGS, Attack, Neighbour, Ring

SMALL = [attack for attack in ATTACKS if not attack.heavy]
pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
    pytest.mark.skipif(not limits.find_means(take=False).memory, reason="no cgroup holds memory and processes here"),
]


class Arena:
    """The family, the attacks that were begun, and a neighbour of theirs."""

    def __init__(self, ring: Ring, neighbour: Neighbour):
        self.ring, self.neighbour = ring, neighbour
        self.names = {attack.name: ring.begin(attack) for attack in SMALL}

    def job(self, attack: Attack) -> dict[str, Any]:
        return self.ring.ended(self.names[attack.name], 240)


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with raise_clan(tmp_path_factory.mktemp("hostile"), **SETTINGS | {"cpus": "4"}) as clan:
        ring = Ring(clan)
        with Neighbour(clan) as neighbour:
            yield Arena(ring, neighbour)


@pytest.mark.parametrize("attack", SMALL, ids=lambda attack: attack.name.replace(" ", "-"))
def test_an_attack_is_contained_and_its_end_is_told(arena: Arena, attack: Attack) -> None:
    assert arena.ring.judge(attack, arena.job(attack)) == []


def test_y_everybody_else_was_answered_all_along(arena: Arena) -> None:
    for attack in SMALL:
        arena.job(attack)
    assert arena.neighbour.faults == []
    assert len(arena.neighbour.took_s) > len(SMALL)


def test_z_everything_is_given_back(arena: Arena) -> None:
    for attack in SMALL:
        arena.ring.await_given_back(arena.job(attack)["ProcessingJobName"])
    clan = arena.ring.clan
    assert workload.failures(clan.log()) == []
    assert clan.mounts() == []
    data = sum(os.lstat(path).st_blocks * 512 for path in Path(clan.data).rglob("*") if "images" not in path.parts)
    assert data < 256 << 20  # the largest thing that is left is a log
