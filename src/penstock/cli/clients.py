"""AWS clients of the command line itself: it reads what any client could read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session
from botocore import exceptions
from botocore.config import Config

from penstock import Refused
from penstock.cli import world
from penstock.settings import Settings


class Unanswered(Refused):
    """The server went away while something was looked at."""

    code = 3


@contextmanager
def answering(remark: str) -> Iterator[None]:
    """Tells a server that stopped answering in one sentence.

    Takes: `remark`, what becomes of what was looked at, and what to do.
    Raises: Unanswered.
    """
    try:
        yield
    except (exceptions.ConnectionError, exceptions.HTTPClientError):
        raise Unanswered(f"the server is not answering; {remark}") from None


class Clients:
    """Clients of one server, made when first asked for."""

    def __init__(self, settings: Settings, about: dict[str, Any]):
        self.url = str(about["url"])
        self.region = settings.region
        self._keys = world.credentials(settings)
        self._session = botocore.session.get_session()
        self._made: dict[str, Any] = {}

    def __getitem__(self, service: str) -> Any:
        if service not in self._made:
            self._made[service] = self._session.create_client(
                service,
                region_name=self.region,
                endpoint_url=self.url,
                aws_access_key_id=self._keys["access_key_id"],
                aws_secret_access_key=self._keys["secret_access_key"],
                config=Config(
                    retries={"max_attempts": 3, "mode": "standard"}, s3={"addressing_style": "path"}, proxies={}
                ),
            )
        return self._made[service]

    def every(self, service: str, operation: str, **params: Any) -> Iterator[dict[str, Any]]:
        """The items of all pages of a List operation."""
        paginator = self[service].get_paginator(operation)
        key = paginator.result_keys[0].expression
        for page in paginator.paginate(**params):
            yield from page.get(key, [])
