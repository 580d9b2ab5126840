"""Where the commands print: as wide as the terminal, and where there is none, as wide as the line."""

from __future__ import annotations

from rich.console import Console

WIDE = 10_000


def screen() -> Console:
    """A console that breaks and shortens no line in a pipe, where others count characters."""
    made = Console(highlight=False)
    if not made.is_terminal:
        made.width = WIDE
    return made
