"""What invoking a function means: an order by value, its outcome, and what a dispatcher promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from penstock.runs.base import RunSpec

PREFIX = "function."
"""Of the names of workers' runs."""
THROTTLED = "TooManyRequestsException"
FAILED = "ServiceException"
UNHANDLED = "Unhandled"


class Order(msgspec.Struct, kw_only=True, tag=True):
    """One invocation: all that a dispatcher needs to know."""

    request_id: str
    account: str
    region: str
    function: str
    """Its name."""
    version: str = "$LATEST"
    stamp: str = ""
    """Which code and configuration: a worker of another one is not used."""
    arn: str = ""
    """As it was invoked, with the qualifier."""
    payload: bytes = b"{}"
    timeout_s: float = 3.0
    limit: int | None = None
    """How many invocations of the function may run at once, where some are reserved for it."""
    client_context: str = ""
    tail: bool = False
    """Whether the outcome brings the end of the log."""
    key: str = ""
    """Of an order that outlives this process: by this it is found again."""
    quiet: bool = False
    """Whether nobody wants to know what the function returns, unless it fails."""


class Gone(msgspec.Struct, tag=True):
    """A function that was deleted, or one of its versions."""

    account: str
    region: str
    function: str
    version: str = ""
    """Empty for all."""


class Outcome(msgspec.Struct, kw_only=True):
    """What became of an order."""

    payload: bytes = b""
    error: str = ""
    """ "Unhandled" for an error of the function, which `payload` describes."""
    refused: str = ""
    """The code of an error of the service; then nothing of the function is known, and `message` says why."""
    message: str = ""
    lost: bool = False
    """Whether the worker was lost through no fault of its own: the order may be given again."""
    log: bytes = b""


class Refusal(Exception):
    """A worker that cannot be made: the code and the sentence for whoever invoked."""

    def __init__(self, code: str, message: str):
        self.code, self.message = code, message
        super().__init__(message)


Make = Callable[[Order, str], "RunSpec | None"]
"""The run of a worker for an order, by the run's name; None while something it needs is on its way. Raises: Refusal."""
Forget = Callable[[str], None]
"""Called with the name of a worker's run that has ended, or could not be started: its credentials go."""


class Functions(Protocol):
    """The way to the functions' workers."""

    async def invoke(self, order: Order) -> Outcome:
        """Waits for the outcome."""
        ...

    def begin(self, order: Order) -> None:
        """Has an order with a key carried out, unless it is already; in the engine process only."""
        ...

    def look(self, key: str) -> Outcome | bool:
        """The outcome of an order by its key; True while it is carried out, False where nothing is known of it."""
        ...

    def forget(self, key: str) -> None:
        """Lets go of an outcome that was heard; in the engine process only."""
        ...

    async def drop(self, gone: Gone) -> None:
        """Ends the workers of a function that was deleted, as soon as they are idle."""
        ...
