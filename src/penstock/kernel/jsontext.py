"""JSON that a client wrote as the text of a member: a policy, a manifest."""

from __future__ import annotations

import json
from typing import Any


def read(text: str | bytes) -> Any:
    """The value that a text holds.

    Raises: ValueError for what is no JSON, and for JSON that nothing could keep: nested too deeply, or half a character.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if (b"\\u" if isinstance(text, bytes) else "\\u") in text:  # type: ignore[operator]
        json.dumps(value, ensure_ascii=False).encode()  # half a character has no UTF-8: a ValueError, too
    return value
