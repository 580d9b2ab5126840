"""The two shapes that everything above HTTP composes on: a request as it came, a reply as it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Headers = dict[str, str]
"""Lower-case names; a repeated header is one value joined by commas."""


@dataclass(slots=True)
class Request:
    """A request as it came over HTTP."""

    method: str
    path: str
    """As sent: percent-encoded, without the query."""
    query: str
    """As sent: percent-encoded, without the question mark."""
    headers: Headers
    body: bytes = b""
    """The whole body; empty while a streaming body is received elsewhere (then `upload` holds what became of it)."""
    upload: Any = None
    """What stands for the body of a streaming operation: the server puts a `blobs.base.Received` here."""
    signed_path: str = ""
    """The path that the client signed, where the front put the bucket of a virtual host before it. Filled by the front."""
    run: str | None = None
    """The name of the run whose socket the request came from; None for a client of the host. Filled by the front."""


@dataclass(slots=True)
class Reply:
    """A reply as it leaves. A body of several chunks is read lazily, in a thread, so it may be larger than memory."""

    status: int = 200
    headers: Headers = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""
