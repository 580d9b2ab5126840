"""The fixture where nobody asked for a server: it skips, and says how to ask."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def penstock() -> Any:
    """An account of the test's own (with --penstock; else the test is skipped)."""
    pytest.skip("needs a Penstock server: pytest --penstock")
