"""`DockerImages`: images of a container engine's store, for URIs that Penstock itself knows nothing of.

The rule: what was built or added here comes first, then the table of AWS's images, and both run in sandboxes; then the engine's store,
and what is found there runs as a container. Nothing is pulled: what is not there is refused with the command that brings it.
"""

from __future__ import annotations

import math
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
ANSWERS = 1000
"""How many answers are kept."""
AWAY_S, AGAIN_S = 60.0, 1.0
"""How long, and how often, an engine that is away is asked again before its images are refused."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Away(ImageError):
    """The engine has not answered for so long that its images are refused."""


class DockerImages:
    """Implements `Images`: a machine's own, and those of the engine at an address.

    An engine answers when it can: Podman's waits for whoever adds an image. So one thread asks it. A look starts a question and gives
    None until it is answered, and a check, for which a client waits, takes for there what it could not find out in time.
    """

    def __init__(self, local: LocalImages, address: str):
        self._local, self._address = local, address
        self._answers: dict[str, tuple[float, Environment | ImageError]] = {}
        self._asked: dict[str, tuple[str, float]] = {}
        """What is not answered yet: why this machine has nothing for it, and since when it is asked for."""
        self._asking = False
        self._began, self._silent = math.inf, -math.inf
        """When the question began that the engine has before it, and when it last gave no answer to one."""
        self._heard: list[Callable[[str], None]] = []
        self._told = threading.Condition()

    def look(self, uri: str) -> Environment | None:
        """The environment if it is ready, None while it is being built or asked for.

        Raises: ImageError for a URI that nothing stands for, here and at the engine.
        """
        unknown = self._unknown(uri)
        if not unknown:
            return self._local.look(uri)
        with self._told:
            answer = self._fresh(uri)
            if answer is None:
                self._ask_for(uri, unknown)
        if isinstance(answer, ImageError):
            raise answer
        return answer

    def asks(self, uri: str) -> bool:
        """Whether a check waits for the engine; not where one waits in vain already."""
        if not self._unknown(uri):
            return False
        with self._told:
            return not isinstance(self._fresh(uri), Environment) and not self._hangs()

    def check(self, uri: str) -> None:
        """Raises: ImageError for a URI that nothing stands for, here and at the engine. What was refused before is asked for anew."""
        unknown = self._unknown(uri)
        if not unknown:
            return
        if why := missing(self._address):
            raise ImageError(f"{unknown} {why}")
        with self._told:
            if isinstance(self._fresh(uri), Environment):
                return
            self._answers.pop(uri, None)
            self._ask_for(uri, unknown)
            if self._hangs():
                return
            begun = time.monotonic()
            self._told.wait_for(lambda: self._fresh(uri) or self._silent >= begun, HELLO_S)
            answer = self._fresh(uri)
        if isinstance(answer, ImageError) and not isinstance(answer, Away):
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

    def _fresh(self, uri: str) -> Environment | ImageError | None:
        """An answer that still stands."""
        when, answer = self._answers.get(uri, (0.0, None))
        return answer if time.monotonic() - when <= BELIEVED_S else None

    def _hangs(self) -> bool:
        return time.monotonic() - self._began > HELLO_S

    def _ask_for(self, uri: str, unknown: str) -> None:
        """Has the one thread ask; it lives as long as there is something to ask."""
        self._asked.setdefault(uri, (unknown, time.monotonic()))
        if not self._asking:
            self._asking = True
            threading.Thread(target=self._learn, name="docker-images", daemon=True).start()

    def _learn(self) -> None:
        """Asks until the engine has answered everything, or has been away for too long."""
        while True:
            with self._told:
                if not self._asked:
                    self._asking = False
                    return
                uri, (unknown, _) = next(iter(self._asked.items()))
                self._began = time.monotonic()
            for answered in self._settle(uri, self._ask(uri, unknown, ANSWER_S)):
                for heard in list(self._heard):
                    heard(answered)

    def _settle(self, uri: str, answer: Environment | ImageError | None) -> list[str]:
        """Notes an answer, or that there was none: then the others come first, after a pause. Gives the URIs that are answered now."""
        with self._told:
            now, self._began = time.monotonic(), math.inf
            answers = {uri: answer} if answer else {}
            if answer is None:
                self._silent = now
                self._asked[uri] = self._asked.pop(uri)
                for each, (unknown, since) in self._asked.items():
                    if now - since >= AWAY_S:
                        answers[each] = Away(f"{unknown} And no container engine answers at {self._address}.")
            for each, told in answers.items():
                del self._asked[each]
                self._answers.pop(each, None)
                self._answers[each] = now, told
            while len(self._answers) > ANSWERS:
                del self._answers[next(iter(self._answers))]
            self._told.notify_all()
            if not answers:
                self._told.wait(AGAIN_S)
        return list(answers)

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
