"""Who may start now: first come, first served, within a fair share for each party. Pure: no clock, no processes, no instance types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SHARES: Mapping[str, float] = {"jobs": 1.0, "replicas": 1.0, "functions": 1.0}


@dataclass(frozen=True, slots=True)
class Claim:
    """What a run wants: all its instances together."""

    name: str
    cpus: float
    memory_bytes: int
    share: str = "jobs"
    party: str = ""


@dataclass(slots=True)
class _Share:
    """One share's claims: those that run, and those that wait in order of arrival."""

    running: dict[str, Claim] = field(default_factory=dict)
    waiting: dict[str, Claim] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    """Of the parties that have claims: when one of theirs was admitted last, by counting."""
    admitted: int = 0

    def note_turn(self, party: str) -> None:
        self.admitted += 1
        here = {claim.party for claims in (self.running, self.waiting) for claim in claims.values()}
        self.turns = {name: turn for name, turn in self.turns.items() if name in here} | {party: self.admitted}


class Capacity:
    """Admits claims while they fit; one that is larger than its whole share runs alone.

    Takes: the machine's cpus and memory, and of both the fraction each share may use. The shares are counted apart: a function that
    waits for a job it started holds nothing that the job needs. They may add up to more than the machine, which the kernel shares out.
    """

    def __init__(self, cpus: float, memory_bytes: int, shares: Mapping[str, float] = SHARES):
        self.cpus, self.memory_bytes = cpus, memory_bytes
        self.fractions = dict(shares)
        self._shares = {name: _Share() for name in shares}

    def ask(self, claim: Claim) -> list[Claim]:
        """Puts a claim in the queue; gives the claims that may start now (often just this one)."""
        share = self._shares[claim.share]
        if claim.name not in share.running:
            share.waiting.setdefault(claim.name, claim)
        return self.admit()

    def hold(self, claim: Claim) -> None:
        """Counts a claim that runs already, whether it fits or not (found after a restart)."""
        share = self._shares[claim.share]
        share.waiting.pop(claim.name, None)
        share.running[claim.name] = claim

    def release(self, name: str) -> list[Claim]:
        """Gives a claim's room back, or takes it out of the queue; gives the claims that may start now."""
        for share in self._shares.values():
            share.running.pop(name, None)
            share.waiting.pop(name, None)
        return self.admit()

    def admit(self) -> list[Claim]:
        """The claims that may start now; they count as running from here on."""
        started = []
        for name, share in self._shares.items():
            while (claim := self._next(share)) and self._fits(name, share, claim):
                del share.waiting[claim.name]
                share.running[claim.name] = claim
                share.note_turn(claim.party)
                started.append(claim)
        return started

    def waiting(self) -> list[str]:
        return [name for share in self._shares.values() for name in share.waiting]

    def _next(self, share: _Share) -> Claim | None:
        """Whose turn it is: of the party that holds the fewest cpus, the least memory, had its turn longest ago, the first.

        Nobody overtakes it, or a large claim might starve.
        """
        held: dict[str, tuple[float, int]] = {}
        for claim in share.running.values():
            cpus, memory_bytes = held.get(claim.party, (0.0, 0))
            held[claim.party] = cpus + claim.cpus, memory_bytes + claim.memory_bytes
        return min(
            share.waiting.values(), key=lambda claim: (held.get(claim.party, (0.0, 0)), share.turns.get(claim.party, 0)), default=None
        )

    def _fits(self, name: str, share: _Share, claim: Claim) -> bool:
        if not share.running:
            return True
        fraction = self.fractions[name]
        cpus = sum(c.cpus for c in share.running.values()) + claim.cpus
        memory = sum(c.memory_bytes for c in share.running.values()) + claim.memory_bytes
        return cpus <= self.cpus * fraction + 1e-9 and memory <= self.memory_bytes * fraction
