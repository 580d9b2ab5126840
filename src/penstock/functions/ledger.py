"""Orders with keys: what became of them, and which worker has which, written down for the process that comes after this one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from penstock.functions.base import Order, Outcome

KEPT_S = 900.0
"""How long an outcome is kept that nobody hears: its invocation was deleted, say."""


class Written(msgspec.Struct):
    """An order with a key that a worker has, as it is written down."""

    order: Order
    until: float
    log: str
    memory_mb: str


@dataclass(slots=True, eq=False)
class _Entry:
    outcome: Outcome | None = None
    landed: float = 0.0


class Ledger:
    """Knows orders by their keys. `look`, `begin` and `forget` may be called from any thread.

    Takes: `folder`, for what is written down; `ended`, called with the key of an order that has ended.
    """

    def __init__(self, folder: Path, ended: Callable[[str], None]):
        self._folder, self._tell = folder, ended
        self._entries: dict[str, _Entry] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def look(self, key: str) -> Outcome | bool:
        """The outcome; True while it is carried out, False where nothing is known of it."""
        entry = self._entries.get(key)
        return False if entry is None else entry.outcome or True

    def begin(self, key: str) -> bool:
        """Whether the order is new, and to be carried out by whoever asks."""
        entry = _Entry()
        return self._entries.setdefault(key, entry) is entry

    def keep(self, order: Order, outcome: Outcome) -> None:
        """Keeps an outcome until it is forgotten, and tells that it is there."""
        if order.quiet and not outcome.error:
            outcome.payload = b""
        self._entries[order.key] = _Entry(outcome, time.monotonic())
        self._tell(order.key)

    def forget(self, key: str) -> None:
        """Whoever heard the outcome has it safe."""
        entry = self._entries.get(key)
        if entry is not None and entry.outcome is not None:
            self._entries.pop(key, None)

    def prune(self) -> None:
        before = time.monotonic() - KEPT_S
        for key in [key for key, entry in list(self._entries.items()) if entry.outcome and entry.landed < before]:
            self._entries.pop(key, None)

    # --- what is written down
    def adopt(self) -> None:
        """At the start: what workers have is known again."""
        for run in self.runs():
            if (written := self.read(run)) is not None:
                self.begin(written.order.key)

    def runs(self) -> Iterator[str]:
        """The workers' runs that something is written down of."""
        return (file.stem for file in list(self._folder.glob("*.order")))

    def write(self, run: str, written: Written) -> None:
        """Not synced: a power failure takes the worker, too.

        Raises: OSError; then nothing is written down.
        """
        try:
            self._file(run).write_bytes(msgspec.msgpack.encode(written))
        except OSError:
            self.erase(run)
            raise

    def read(self, run: str) -> Written | None:
        try:
            return msgspec.msgpack.decode(self._file(run).read_bytes(), type=Written)
        except (OSError, msgspec.DecodeError):
            return None

    def erase(self, run: str) -> None:
        with contextlib.suppress(OSError):
            self._file(run).unlink(missing_ok=True)

    def _file(self, run: str) -> Path:
        return self._folder / f"{run}.order"
