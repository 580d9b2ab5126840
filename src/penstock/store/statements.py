"""How a driver runs a statement: the seam between the SQL text and the databases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol


class Rows(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def close(self) -> None: ...


class Run(Protocol):
    """Runs one statement with named parameters in the open transaction."""

    def __call__(self, text: str, values: Mapping[str, Any] = ..., /) -> Rows: ...
