"""Time, handed in, so that schedules, leases and expiry are tested without waiting."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since 1970 UTC."""
        ...

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        """Waits until the event is set (True) or the time is over (False)."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        return event.wait(timeout_s)


class FakeClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: float = 1_700_000_000.0):
        self._now = now
        self._moved = threading.Condition()

    def now(self) -> float:
        return self._now

    def move(self, seconds: float) -> None:
        with self._moved:
            self._now += seconds
            self._moved.notify_all()

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        until = None if timeout_s is None else self._now + timeout_s
        while not event.is_set():
            with self._moved:
                if until is not None and self._now >= until:
                    return False
                self._moved.wait(0.005)  # the event has no condition to join: look again soon
        return True
