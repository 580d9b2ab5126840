"""Gives back the room of what no image stands on: never what a run that has not ended has mounted."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from penstock.runs.base import ENDED, LOST
from penstock.runs.folder import NAME, SPEC, RunFolder
from penstock.runs.images.built import measure
from penstock.runs.trees import remove_tree

DIGEST = re.compile(r"[0-9a-f]{24}")
LAYER = re.compile(r"[0-9a-f]{32}")
GONE = ".gone-"


def prune(images: Path, layers: set[str], digests: set[str], runs: Path) -> int:
    """Deletes layers and environments that are not among the ones named; gives the bytes.

    Files that environments share by hard links count once for each.
    """
    busy = _specs(runs)
    doomed = [path for path in _folders(images / "layers") if LAYER.fullmatch(path.name) and path.name not in layers]
    doomed += [path for path in _folders(images) if DIGEST.fullmatch(path.name) and path.name not in digests]
    freed = 0
    for path in [path for path in doomed if path.name not in busy]:
        gone = path.with_name(f"{GONE}{secrets.token_hex(6)}")
        path.rename(gone)  # at once, so that nobody begins to stand on half of it
    for gone in [path for parent in (images, images / "layers") for path in _folders(parent)]:
        if gone.name.startswith(GONE):
            freed += measure(gone)
            remove_tree(gone)
    return freed


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []


def _specs(runs: Path) -> str:
    """All that runs which have not ended are told, as one text to look for names in."""
    texts = []
    for path in _folders(runs):
        state = RunFolder(path).look() if NAME.fullmatch(path.name) else None
        if state is not None and state.phase not in (ENDED, LOST):
            texts.append((path / SPEC).read_text(errors="replace"))
    return "\n".join(texts)
