"""kill -9 of every member of a family at random moments, while executions run in real sandboxes.

    python -m tests.crash.chaos --kills 200 --seed 7      the long run (`make chaos`)
    python -m tests.crash.chaos hostile                   jobs that mean harm, in whole sizes (`make chaos ARGS=hostile`)

A run's supervisor is killed once at most: a job that is lost twice fails, as `test_chaos.py` holds.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash import hostile, workload
from tests.crash.families import Clan, is_dead, raise_clan, raise_foreign_clan, until

WEIGHTS = {"front": 3, "engine": 4, "doorway": 1, "porter": 2, "runner": 3, "supervisor": 6, "keeper": 2, "all": 1, "burst": 2}
ATTEMPT = "penstock: the run was lost; attempt 2 begins."


@dataclass
class Chaos:
    """A story of kills: what was started, what was killed, how it ended."""

    clan: Clan
    seed: int
    word: str = ""
    executions: dict[str, str] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    struck: set[str] = field(default_factory=set)
    """Runs whose supervisor was killed."""
    down_s: list[float] = field(default_factory=list)
    """How long the API was away after a kill."""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.word = f"chaos-{self.seed}-{os.getpid()}"

    def begin(self, count: int) -> None:
        """Starts executions, by a client that tries again."""
        for _ in range(count):
            run = f"r{len(self.executions)}"
            self.executions[run] = workload.start(self.clan, run, self.word, self.chance.uniform(0, 0.4))

    def running(self) -> int:
        """How many executions have not ended."""
        reads = self.clan.reads()
        try:
            found = [reads.by_arn(arn) for arn in self.executions.values()]
        finally:
            reads.close()
        return sum(1 for each in found if each is not None and each.status == "Executing")

    def strike(self) -> str:
        """Kills one member, and waits until it is back; gives its name, or nothing where there was none."""
        name = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if not (self._burst() if name == "burst" else self._kill(name)):
            return ""
        self.kills[name] += 1
        began = time.monotonic()
        if is_dead(self.clan.keeper):
            self.clan.up()
        for member in ("engine", "front", "runner"):
            until(lambda member=member: self.clan.member(member), f"the {member} is back after {name} was killed")
        until(self.answers, f"the API is back after {name} was killed")
        self.down_s.append(time.monotonic() - began)
        return name

    def _burst(self) -> bool:
        """Several members one after another, before the first of them is back."""
        names = [name for name in WEIGHTS if name != "burst"]
        struck = [self._kill(name) for name in self.chance.sample(names, self.chance.randint(2, 4)) if self._pause()]
        return any(struck)

    def _pause(self) -> bool:
        time.sleep(self.chance.uniform(0.0, 0.03))
        return not is_dead(self.clan.keeper)

    def _kill(self, name: str) -> bool:
        if name == "all":
            self.clan.kill_all()
            return True
        if name != "supervisor":
            return self.clan.kill(name)
        fresh = sorted(set(self.clan.supervisors()) - self.struck)
        if not fresh:
            return False
        run = self.chance.choice(fresh)
        if self.clan.strike(run):
            self.struck.add(run)
            return True
        return False

    def answers(self) -> bool:
        """Whether the API takes a write."""
        try:
            self.clan.client("s3", 1).put_object(Bucket=workload.ASIDE, Key="answers", Body=b"")
        except Exception:
            return False
        return True

    def settle(self, seconds: float = 120) -> list[str]:
        """Waits for the end of all, and gives what is not as it must be."""
        with suppress(AssertionError):
            until(lambda: not self.running(), "all executions end", seconds)
        deadline = time.monotonic() + 20
        while (found := workload.faults(self.clan, self.executions, self.word)) and time.monotonic() < deadline:
            time.sleep(0.25)  # folders are given back a little later
        return found

    def losses(self) -> int:
        """How many jobs went through a second attempt, as their logs tell."""
        return sum(ATTEMPT in path.read_text() for path in (self.clan.data / "logs").rglob("*") if path.is_file())


def rage(
    clan: Clan, seed: int, kills: int, seconds: float, at_once: int = 4, say: Callable[[str], Any] = print
) -> Chaos:  # fmt: skip
    """Keeps `at_once` executions going and kills, until there were so many kills or the time is over."""
    chaos = Chaos(clan, seed)
    say(f"seed {seed}")
    workload.prepare(clan)
    deadline = time.monotonic() + seconds
    while sum(chaos.kills.values()) < kills and time.monotonic() < deadline:
        chaos.begin(at_once - chaos.running())
        time.sleep(chaos.chance.uniform(0.0, 0.6))
        if name := chaos.strike():
            say(
                f"{sum(chaos.kills.values()):4} {name:10} away {chaos.down_s[-1]:.2f} s, {len(chaos.executions)} executions"
            )
    return chaos


def main() -> None:
    if sys.argv[1:2] == ["hostile"]:
        return hostile.main(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--user", type=int, help="run the family as this user, by root")
    given = parser.parse_args()
    settings = {"cpus": "8", "memory_bytes": str(16 << 30)}
    folder = Path(tempfile.mkdtemp(prefix="penstock-chaos-"))
    # Killed while images are built, too.
    raising = raise_foreign_clan(given.user, **settings) if given.user else raise_clan(folder, images=False, **settings)
    with raising as clan:
        chaos = rage(clan, given.seed, given.kills, given.seconds, given.at_once, lambda line: print(line, flush=True))
        found = chaos.settle()
        print("kills", dict(chaos.kills), "executions", len(chaos.executions), "second attempts", chaos.losses())
        print("lines of the server's log that tell of a bug:", *workload.failures(clan.log()), sep="\n  ")
        print("faults:", *found or ["none"], sep="\n  ")
        print("folder", folder)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
