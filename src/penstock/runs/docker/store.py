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
from penstock.runs.docker.daemon import ANSWER_S, HELLO_S, Daemon, find_image, missing, reach
from penstock.runs.images.registry import LocalImages
from penstock.runs.images.uris import parse_uri

BELIEVED_S = 5.0
"""How long an answer of the store stands: a job's start and its metrics ask one after the other."""
AWAY_S, AGAIN_S = 60.0, 1.0
"""How long, and how often, an engine that is away is asked again before its images are refused."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class DockerImages:
    """Implements `Images`: a machine's own, and those of the engine at an address.

    An engine answers when it can: Podman's waits for whoever adds an image. So a look starts a question and gives None until it is
    answered, and a check, for which a client waits, takes for there what it could not find out in time.
    """

    def __init__(self, local: LocalImages, address: str):
        self._local, self._address = local, address
        self._answers: dict[str, tuple[float, Environment | ImageError]] = {}
        self._asked: set[str] = set()
        self._heard: list[Callable[[str], None]] = []
        self._lock = threading.Lock()

    def look(self, uri: str) -> Environment | None:
        """The environment if it is ready, None while it is being built or asked for.

        Raises: ImageError for a URI that nothing stands for, here and at the engine.
        """
        unknown = self._unknown(uri)
        if not unknown:
            return self._local.look(uri)
        with self._lock:
            when, answer = self._answers.get(uri, (0.0, None))
            if answer is None or time.monotonic() - when > BELIEVED_S:
                if uri not in self._asked:
                    self._asked.add(uri)
                    threading.Thread(target=self._learn, args=(uri, unknown), name="docker-image", daemon=True).start()
                return None
        if isinstance(answer, ImageError):
            raise answer
        return answer

    def check(self, uri: str) -> None:
        """Raises: ImageError for a URI that nothing stands for, here and at the engine."""
        if unknown := self._unknown(uri):
            if why := missing(self._address):
                raise ImageError(f"{unknown} {why}")
            answer = self._ask(uri, unknown, HELLO_S)
            if isinstance(answer, ImageError):
                raise answer

    def lacks(self, uri: str) -> str:
        """Why an image has another Python here than it asks for; a real one has its own."""
        return "" if self._unknown(uri) else self._local.lacks(uri)

    def listen(self, heard: Callable[[str], None]) -> None:
        self._heard.append(heard)
        self._local.listen(heard)

    def known(self) -> list[dict[str, Any]]:
        return self._local.known()

    def held(self) -> list[Held]:
        return self._local.held()

    def remove(self, uri: str) -> bool:
        return self._local.remove(uri)

    def packages(self) -> tuple[dict[str, str], list[str]]:
        return self._local.packages()

    def _unknown(self, uri: str) -> str:
        """Why this machine has nothing of its own for a URI; empty where it has."""
        try:
            self._local.check(uri)
        except ImageError as fault:
            return f"{str(fault).rstrip('.')}."
        return ""

    def _learn(self, uri: str, unknown: str) -> None:
        """Asks until the engine has answered, or has been away for too long."""
        deadline = time.monotonic() + AWAY_S
        while (answer := self._ask(uri, unknown, ANSWER_S)) is None and time.monotonic() < deadline:
            time.sleep(AGAIN_S)
        with self._lock:
            away = ImageError(f"{unknown} And no container engine answers at {self._address}.")
            self._answers[uri] = time.monotonic(), answer or away
            self._asked.discard(uri)
        for heard in list(self._heard):
            heard(uri)

    def _ask(self, uri: str, unknown: str, timeout_s: float) -> Environment | ImageError | None:
        """What the engine has; None where it did not say."""
        try:
            daemon = reach(self._address, timeout_s)
            with daemon.client(timeout_s) as client:
                return _environment(uri, find_image(client, uri), daemon)
        except ImageError:
            name = daemon.name.lower()
            return ImageError(f"{unknown} Nor is it in the store of {name}: `{name} pull {uri}` brings one.")
        except (Refused, APIError, requests.RequestException):
            return None


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
