"""A hundred thousand hostile requests: `make fuzz`.

    python -m tests.fuzz [--requests 100000] [--minutes N] [--seed N] [--services sagemaker iam] [--only CreateModel]

Every served operation gets its share. What goes wrong is shrunk and kept under `tests/fuzz/cases`; the suite fires that
again each time. It ends with 1 where something went wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter

from penstock.services import SERVICES
from tests.fuzz.hunt import VOLLEY, hunt, keep, operations
from tests.fuzz.judge import Gun, Wrong
from tests.fuzz.stage import raised
from tests.fuzz.values import Values

ROUNDS = 5
"""Everything is fired at so many times, a share of the requests each: a run that is stopped has seen all of it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=0, help="stop after so many (0: when all are fired)")
    parser.add_argument("--services", nargs="*", default=list(SERVICES))
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    wanted = [each for each in operations(tuple(args.services)) if not args.only or each.name in args.only]
    print(f"seed {seed}: {args.requests} requests at {len(wanted)} operations", flush=True)
    began, statuses = time.monotonic(), Counter[int]()
    found: list[object] = []
    fired = 0
    with raised() as stage:
        gun, values = Gun(stage), Values(stage.pool)
        turns = [each for _ in range(ROUNDS) for each in wanted]
        for turn, operation in enumerate(turns):
            if args.minutes and time.monotonic() - began > args.minutes * 60:
                print(f"stopped after {args.minutes:g} minutes, in round {turn // len(wanted) + 1} of {ROUNDS}")
                break
            stage.set()
            before, share = gun.fired, max(VOLLEY, (args.requests - fired) // (len(turns) - turn))
            wrong = hunt(gun, values, operation, max(1, share // VOLLEY), seed + turn)
            fired += gun.fired - before
            if wrong:
                found.append(wrong)
                told(wrong)
            if turn % 100 == 99:
                print(f"{fired} requests, {time.monotonic() - began:.0f} s", flush=True)
        time.sleep(2)  # what the engine still makes of it
        if words := gun.logged():
            print(f"WRONG at the end: {words}", file=sys.stderr)
            found.append(words)
        gun.close()
        statuses.update(gun.statuses)
    taken = time.monotonic() - began
    counts = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    print(f"{fired} requests in {taken:.0f} s ({counts}); {len(found)} went wrong (seed {seed})")
    return 1 if found else 0


def told(wrong: Wrong) -> None:
    path = keep(wrong)
    print(f"WRONG {wrong}\n      kept as {os.path.relpath(path)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
