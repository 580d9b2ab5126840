"""Where the commands print: as wide as the terminal, and where there is none, as wide as the line."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

WIDE = 10_000


def screen(stderr: bool = False) -> Console:
    """A console that breaks and shortens no line in a pipe, where others count characters."""
    made = Console(highlight=False, stderr=stderr)
    if not made.is_terminal:
        made.width = WIDE
    return made


def theirs(text: object) -> str:
    """Somebody else's text, for a line with markup of ours: names, paths and reasons are shown as they are."""
    return escape(str(text))
