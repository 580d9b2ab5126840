from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.runs.capacity import Capacity, Claim

GB = 1 << 30


def names(claims: list[Claim]) -> list[str]:
    return [claim.name for claim in claims]


def test_what_fits_starts_at_once() -> None:
    assert names(Capacity(4, 8 * GB).ask(Claim("a", 4, GB))) == ["a"]


def test_what_does_not_fit_waits_until_there_is_room() -> None:
    capacity = Capacity(4, 8 * GB)
    capacity.ask(Claim("a", 3, GB))
    assert capacity.ask(Claim("b", 2, GB)) == []
    assert names(capacity.release("a")) == ["b"]


def test_memory_counts_as_well_as_cpus() -> None:
    capacity = Capacity(4, 8 * GB)
    capacity.ask(Claim("a", 1, 6 * GB))
    assert capacity.ask(Claim("b", 1, 3 * GB)) == []


def test_a_claim_larger_than_the_machine_runs_alone() -> None:
    capacity = Capacity(2, GB)
    assert names(capacity.ask(Claim("big", 96, 768 * GB))) == ["big"]
    assert capacity.ask(Claim("small", 1, 1)) == []


def test_nobody_overtakes_a_large_claim() -> None:
    capacity = Capacity(4, 8 * GB)
    capacity.ask(Claim("a", 3, GB))
    capacity.ask(Claim("large", 4, GB))
    assert capacity.ask(Claim("small", 1, GB)) == []
    assert names(capacity.release("a")) == ["large"]


def test_the_party_that_holds_least_is_next() -> None:
    capacity = Capacity(2, 8 * GB)
    for number in range(4):
        capacity.ask(Claim(f"many-{number}", 1, 1, party="many"))
    capacity.ask(Claim("one", 1, 1, party="one"))
    assert names(capacity.release("many-0")) == ["one"]


def test_of_parties_that_hold_the_same_the_one_whose_turn_was_longest_ago_is_next() -> None:
    capacity = Capacity(1, GB)
    for number in range(3):
        capacity.ask(Claim(f"many-{number}", 0, GB, "functions", "many"))
    for name in ("one", "two"):
        capacity.ask(Claim(name, 0, GB, "functions", name))
    order = ["many-0"]
    while started := capacity.release(order[-1]):
        order += names(started)
    assert order == ["many-0", "one", "two", "many-1", "many-2"]


def test_memory_counts_where_cpus_are_the_same() -> None:
    capacity = Capacity(4, 4 * GB)
    for name, party in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")):
        capacity.ask(Claim(name, 0, GB, "functions", party))
    capacity.ask(Claim("e", 0, GB, "functions", "x"))
    capacity.ask(Claim("f", 0, GB, "functions", "y"))
    assert names(capacity.release("c")) == ["f"]


def test_shares_are_counted_apart() -> None:
    capacity = Capacity(2, 8 * GB)
    capacity.ask(Claim("function", 2, GB, "functions"))
    assert names(capacity.ask(Claim("job", 2, GB))) == ["job"]


def test_asking_twice_counts_once() -> None:
    capacity = Capacity(2, 8 * GB)
    capacity.ask(Claim("a", 1, GB))
    assert capacity.ask(Claim("a", 1, GB)) == []
    assert names(capacity.ask(Claim("b", 1, GB))) == ["b"]


def test_what_was_found_running_holds_its_room() -> None:
    capacity = Capacity(2, 8 * GB)
    capacity.hold(Claim("old", 2, GB))
    assert capacity.ask(Claim("new", 1, GB)) == []


def test_what_waits_can_be_withdrawn() -> None:
    capacity = Capacity(1, 8 * GB)
    for name in "abc":
        capacity.ask(Claim(name, 1, GB))
    capacity.release("b")
    assert names(capacity.release("a")) == ["c"]
    assert capacity.waiting() == []


def test_an_unknown_share_is_an_error() -> None:
    with pytest.raises(KeyError):
        Capacity(1, GB).ask(Claim("a", 1, 1, "others"))


@given(st.lists(st.tuples(st.floats(0.1, 6), st.integers(1, 10), st.sampled_from("xyz")), max_size=30))
def test_everything_is_admitted_in_the_end_and_never_too_much_at_once(wanted: list[tuple[float, int, str]]) -> None:
    capacity = Capacity(4, 8)
    running: dict[str, Claim] = {}
    started = 0

    def begin(claims: list[Claim]) -> None:
        nonlocal started
        for claim in claims:
            running[claim.name] = claim
            started += 1
        assert len(running) == 1 or sum(c.cpus for c in running.values()) <= 4 + 1e-6 or not running
        assert len(running) == 1 or sum(c.memory_bytes for c in running.values()) <= 8 or not running

    for number, (cpus, memory, party) in enumerate(wanted):
        begin(capacity.ask(Claim(str(number), cpus, memory, party=party)))
    while running:
        name = next(iter(running))
        del running[name]
        begin(capacity.release(name))
    assert started == len(wanted)
