"""Image URIs become Python environments, built once by uv and shared by all runs."""

from __future__ import annotations

from penstock.runs.images.registry import LocalImages

__all__ = ["LocalImages"]
