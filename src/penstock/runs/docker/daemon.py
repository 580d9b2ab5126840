"""The container engine: where it is, whether it answers, and a client of its API.

Source: Docker Engine API 1.41, as Docker 20.10 and Podman 4 speak it. https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from docker import APIClient
from docker.errors import APIError, DockerException, ImageNotFound

from penstock import Refused
from penstock.runs import handout
from penstock.runs.base import ImageError

AUTO = "auto"
ANSWER_S = 600.0
"""What an engine has for one answer; it may have to copy an image's files, and others wait for it meanwhile."""
HELLO_S = 5.0
"""What it has where a person, or a request, waits."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """An engine that answered."""

    address: str
    name: str
    """"Docker" or "Podman"."""
    version: str
    api: str
    """The version of the API that both know."""

    @property
    def podman(self) -> bool:
        return self.name == "Podman"

    def client(self, timeout_s: float | None = ANSWER_S) -> APIClient:
        """A client of its own for one thread."""
        return APIClient(self.address, version=self.api, timeout=timeout_s)


def find_address(chosen: str, environ: Mapping[str, str]) -> str:
    """The address of the engine that a setting means: itself, or with `auto` the first one that is there, else Docker's usual place.

    Raises: Refused for one that is not on this machine.
    """
    if chosen != AUTO:
        return _checked(chosen)
    if environ.get("DOCKER_HOST"):
        return _checked(environ["DOCKER_HOST"])
    user = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    places = ["/run/docker.sock", f"{user}/docker.sock", "/run/podman/podman.sock", f"{user}/podman/podman.sock"]
    found = [place for place in places if os.access(place, os.R_OK | os.W_OK)]
    return f"unix://{(found or places)[0]}"


def _checked(address: str) -> str:
    if not address.startswith("unix:///"):
        raise Refused(
            f"PENSTOCK_DOCKER names {address!r}: it is `auto` or the socket of an engine on this machine, unix:///run/docker.sock "
            "(the ports that jobs call Penstock at are handed out of the container as open files, which no network carries)."
        )
    return address


def missing(address: str) -> str:
    """Why nobody can be listening at an address; empty where somebody does, be he slow. Waits for nothing."""
    try:
        handout.connect(address.removeprefix("unix://"), wait=False).close()
    except BlockingIOError:
        return ""
    except OSError as fault:
        return f"No container engine answers at {address}: {fault.strerror or fault}."
    return ""


def reach(address: str, timeout_s: float = HELLO_S) -> Daemon:
    """The engine at an address. Raises Refused with the reason where it does not answer."""
    try:
        handout.connect(address.removeprefix("unix://")).close()  # its own error is a plain one
        with APIClient(address, version="auto", timeout=timeout_s) as client:
            about, api = client.version(), client.api_version
    except (DockerException, requests.RequestException, OSError) as fault:
        why = getattr(fault, "strerror", None) or str(fault)
        raise Refused(f"No container engine answers at {address}: {why.rstrip('.')}.") from None
    parts = {part["Name"]: part["Version"] for part in about.get("Components") or []}
    podman = parts.get("Podman Engine")
    return Daemon(address, "Podman" if podman else "Docker", podman or about["Version"], api)


def told_by(fault: BaseException) -> str:
    """What an engine said of something that it would not do."""
    return str(getattr(fault, "explanation", "") or fault)


def find_image(client: APIClient, uri: str) -> dict[str, Any]:
    """What an engine's store knows of an image; Podman keeps what was built under a plain name as `localhost/name`.

    Raises: ImageError where it has none; OSError where it does not answer.
    """
    for name in (uri, f"localhost/{uri}"):
        try:
            found: dict[str, Any] = client.inspect_image(name)
            return found
        except ImageNotFound:
            continue
        except APIError as fault:
            if fault.status_code in (400, 404):
                continue
            raise
    raise ImageError(f"{uri} is not in the store of the container engine.")
