"""`DockerImages`: images of a container engine's store, for URIs that Penstock itself knows nothing of.

The rule: what was built or added here comes first, then the table of AWS's images, and both run in sandboxes; then the engine's store,
and what is found there runs as a container. Nothing is pulled: what is not there is refused with the command that brings it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import requests
from docker.errors import APIError

from penstock import Refused
from penstock.runs.base import Environment, Held, ImageError
from penstock.runs.docker.daemon import Daemon, find_image, reach
from penstock.runs.images.registry import LocalImages
from penstock.runs.images.uris import parse_uri

BELIEVED_S = 2.0
"""How long an answer of the store stands: a job's checks, its start and its metrics ask one after the other."""
ANSWER_S = 5.0
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class DockerImages:
    """Implements `Images`: a machine's own, and those of the engine at an address."""

    def __init__(self, local: LocalImages, address: str):
        self._local, self._address = local, address
        self._daemon: Daemon | None = None
        self._seen: dict[str, tuple[float, Environment]] = {}
        self._lock = threading.Lock()

    def look(self, uri: str) -> Environment | None:
        """The environment if it is ready, None while it is being built. Raises ImageError."""
        return self._find(uri) or self._local.look(uri)

    def check(self, uri: str) -> None:
        """Raises: ImageError for a URI that nothing stands for, here and at the engine."""
        self._find(uri)

    def listen(self, heard: Callable[[str], None]) -> None:
        self._local.listen(heard)

    def known(self) -> list[dict[str, Any]]:
        return self._local.known()

    def held(self) -> list[Held]:
        return self._local.held()

    def remove(self, uri: str) -> bool:
        return self._local.remove(uri)

    def packages(self) -> tuple[dict[str, str], list[str]]:
        return self._local.packages()

    def _find(self, uri: str) -> Environment | None:
        """The engine's image, where the machine has none of its own (None where it has).

        Raises: ImageError.
        """
        try:
            self._local.check(uri)
            return None
        except ImageError as unknown:
            sentence = str(unknown)
        with self._lock:
            when, found = self._seen.get(uri, (0.0, None))
            if found is None or time.monotonic() - when > BELIEVED_S:
                found = self._ask(uri, sentence)
                self._seen[uri] = time.monotonic(), found
            return found

    def _ask(self, uri: str, unknown: str) -> Environment:
        try:
            self._daemon = self._daemon or reach(self._address)
            with self._daemon.client(ANSWER_S) as client:
                return _environment(uri, find_image(client, uri), self._daemon)
        except ImageError:
            name = (self._daemon.name if self._daemon else "").lower()
            raise ImageError(f"{unknown} Nor is it in the store of {name}: `{name} pull {uri}` brings one.") from None
        except Refused as fault:
            raise ImageError(f"{unknown} {fault}") from None
        except (APIError, requests.RequestException) as fault:
            self._daemon = None
            raise ImageError(f"{unknown} The container engine at {self._address} does not answer: {fault}") from None


def _environment(uri: str, about: dict[str, Any], daemon: Daemon) -> Environment:
    """An image as an environment: its own program, its own variables, nothing of ours."""
    config = about.get("Config") or {}
    env = dict(each.partition("=")[::2] for each in config.get("Env") or [])
    identity = str(about["Id"])
    note = f"{uri} runs as a container of {daemon.name} {daemon.version}: image {identity.removeprefix('sha256:')[:12]}."
    return Environment(
        uri=uri,
        framework="",
        version=parse_uri(uri).tag,
        python="",
        env={"PATH": DEFAULT_PATH, **env},
        note=note,
        cwd=config.get("WorkingDir") or "/",
        entrypoint=_words(config.get("Entrypoint")),
        command=_words(config.get("Cmd")),
        container=identity,
    )


def _words(command: list[str] | str | None) -> list[str]:
    return ["/bin/sh", "-c", command] if isinstance(command, str) else list(command or [])
