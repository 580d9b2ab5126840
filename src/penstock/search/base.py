"""What a search is asked and told.

A search keeps nothing that matters: it is handed the trials that were made, in order, and gives the next one's values.
So it goes on after any death of its process where the records of the trials say it was.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

RUNNING, DONE, FAILED = "running", "done", "failed"


@dataclass(frozen=True, slots=True)
class Range:
    """The values a hyperparameter may have.

    Takes: `low` and `high`, both possible, of "integer" and "continuous"; `choices` of "categorical"; `scale`, "Linear",
    "Logarithmic" or "ReverseLogarithmic".
    """

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    scale: str = "Linear"
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial: whose ranges it took (the algorithm's number), the values as text, and what came of it."""

    algorithm: int
    values: Mapping[str, str]
    state: str = RUNNING
    value: float | None = None
    """The objective; None where there is none (yet)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is searched, and how.

    Takes: `spaces`, the ranges of each algorithm that competes; `strategy`, "Bayesian", "Random" or "Hyperband";
    `resources`, Hyperband's smallest and largest number of reports of the objective; `parents`, trials of earlier searches.
    """

    spaces: Sequence[Sequence[Range]]
    maximize: bool
    strategy: str
    seed: int
    resources: tuple[int, int] = (1, 27)
    parents: Sequence[Trial] = field(default_factory=list)


class Search(Protocol):
    """A search over hyperparameters."""

    def suggest(self, name: str, plan: Plan, trials: Sequence[Trial]) -> Trial:
        """The next trial, after those that were made. The same question has the same answer, up to rounding.

        Takes: `name`, which tells searches apart.
        """

    def hopeless(
        self, plan: Plan, curves: Sequence[Sequence[float]], running: Sequence[Sequence[float]]
    ) -> list[bool]:
        """Of each running trial whether it need not go on.

        Takes: the values that the objective had, report by report: of the trials that have ended, and of those that run.
        """


class LateSearch:
    """A search whose library is imported, in a thread, when it is first wanted: it takes longer than an engine step may."""

    def __init__(self, module: str):
        self._module = module
        self._loading: threading.Thread | None = None
        self._found: Search | None = None

    def ready(self) -> Search | None:
        """The search; None while its library is being imported.

        Raises: ImportError where it is not installed.
        """
        if self._found is None:
            if self._loading is None:
                self._loading = threading.Thread(target=importlib.import_module, args=(self._module,), daemon=True)
                self._loading.start()
            if self._loading.is_alive():
                return None
            self._found = importlib.import_module(self._module).open_search()
        return self._found
