"""The model's containers: each a server of its own, started, waited for, and asked one after another."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib import util as importing
from typing import Any, BinaryIO, Dict, List, NamedTuple, Optional, Union

LOOK_S = 0.02
START_S = 1200.0
"""How long a container may take until it answers /ping."""
STOP_S = 5.0
PORT = 8080
TEMPORARY = os.environ.get("PENSTOCK_TRANSFORM_TMP", "/tmp")

Body = Union[bytes, BinaryIO]


class Broken(Exception):
    """A container that did not start, or is gone: the sentence says why. `client`: it was the user's data or model."""


class Refused(Exception):
    """An answer that is no 2xx."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Answer(NamedTuple):
    """What a container answered."""

    status: int
    body: bytes
    content_type: str


class Container:
    """One container of the model. `config` is what the engine wrote of it."""

    def __init__(self, number: int, config: Dict[str, Any], workers: int, base: Dict[str, str]):
        self.name = config["name"]
        self._failure = f"{TEMPORARY}/penstock-failure-{number}"
        environment = {**base, **config["env"]}
        command, self.addresses = self._command(number, config, workers, environment)
        if workers > 1:
            environment["OMP_NUM_THREADS"] = str(max(1, int(base.get("OMP_NUM_THREADS") or 1) // workers))
        sys.stdout.flush()
        try:
            self._process = subprocess.Popen(command, env=environment, cwd=config.get("cwd") or "/")
        except OSError as error:
            raise Broken(f"{self.name}: {command[0]} cannot be started: {error.strerror}") from None

    def _command(
        self, number: int, config: Dict[str, Any], workers: int, environment: Dict[str, str]
    ) -> "tuple[List[str], List[str]]":
        """The program, and where it listens: the image's own, else the model server."""
        own = config.get("entrypoint")
        if not own and config["framework"] == "python":
            found = shutil.which("serve", path=environment.get("PATH"))
            own = [found] if found else None
        if own:
            if config.get("archive"):
                unpack(config["archive"], config["model_dir"])
            port = PORT + number
            environment["SAGEMAKER_BIND_TO_PORT"] = str(port)
            environment.setdefault("SAGEMAKER_SAFE_PORT_RANGE", "18080-18999")
            return list(own), [f"127.0.0.1:{port}"]
        places = [f"unix:{TEMPORARY}/penstock-model-{number}-{worker}.sock" for worker in range(workers)]
        command = [
            config["python"], config["server"], "--bind", ",".join(places), "--framework", config["framework"],
            "--model-dir", config["model_dir"], "--failure", self._failure,
        ]  # fmt: skip
        for option in ("archive", "source"):
            command += [f"--{option}", config[option]] if config.get(option) else []
        return command, places

    def wait(self) -> None:
        """Returns when every worker answers /ping.

        Raises: Broken with the reason that the server left, or how it ended.
        """
        deadline = time.monotonic() + START_S
        for place in self.addresses:
            connection = Connection(place, 60.0)
            while not connection.alive():
                self.check()
                if time.monotonic() > deadline:
                    raise Broken(f"{self.name} did not answer /ping with 200 within {START_S:.0f} seconds")
                time.sleep(LOOK_S)
            connection.close()

    def check(self) -> None:
        """Raises: Broken where the process has ended."""
        code = self._process.poll()
        if code is None:
            return
        if os.path.exists(self._failure):
            with open(self._failure) as file:
                raise Broken(f"{self.name} cannot serve the model: {file.read().strip()}")
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise Broken(f"{self.name}: the model server ended with {ended}; its log says why")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def unpack(archive: str, folder: str) -> None:
    """A model's archive, for a program that expects its files; the model server unpacks its own.

    Raises: Broken.
    """
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "training", "entry.py")
    spec = importing.spec_from_file_location("penstock_training_entry", path)
    assert spec is not None
    assert spec.loader is not None
    entry = importing.module_from_spec(spec)
    spec.loader.exec_module(entry)
    try:
        entry.unpack(archive, folder)
    except entry.Failed as error:
        raise Broken(str(error).partition(": ")[2]) from None


class Connection:
    """A kept-alive connection to one worker."""

    def __init__(self, address: str, timeout_s: float):
        self._address, self._timeout_s = address, timeout_s
        self._connection: Optional[http.client.HTTPConnection] = None

    def alive(self) -> bool:
        """Whether GET /ping is answered with 200."""
        try:
            return self.ask("GET", "/ping").status == 200
        except (OSError, http.client.HTTPException):
            self.close()
            return False

    def ask(
        self, method: str, path: str, body: Optional[Body] = None, headers: Optional[Dict[str, str]] = None
    ) -> Answer:
        """Raises: OSError, HTTPException; then the connection is closed."""
        if self._connection is None:
            self._connection = _Local(self._address, self._timeout_s)
        chunked = body is not None and not isinstance(body, (bytes, bytearray, memoryview))
        given = {**(headers or {}), **({"Transfer-Encoding": "chunked"} if chunked else {})}
        try:
            self._connection.request(method, path, body=body, headers=given, encode_chunked=chunked)
            response = self._connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if response.will_close:
            self.close()
        return Answer(response.status, data, response.getheader("Content-Type") or "")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Local(http.client.HTTPConnection):
    """To a Unix socket or a port."""

    def __init__(self, address: str, timeout_s: float):
        self._place = address
        host = "localhost" if address.startswith("unix:") else address
        super().__init__(host, timeout=timeout_s)

    def connect(self) -> None:
        if self._place.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._place[len("unix:") :])
        else:
            super().connect()


class Pipeline:
    """One way through all containers, for one request at a time."""

    def __init__(
        self, containers: List[Container], lane: int, content_type: str, accept: str, timeout_s: float, retries: int
    ):
        self._containers = containers
        self._connections = [Connection(c.addresses[lane % len(c.addresses)], timeout_s) for c in containers]
        self._content_type, self._accept, self._retries = content_type, accept, retries

    def invoke(self, body: Body) -> bytes:
        """The last container's answer; each gets what the one before it answered.

        Raises: Refused, Broken.
        """
        kind = self._content_type
        for place, container in enumerate(self._containers):
            last = place == len(self._containers) - 1
            headers = {"Accept": self._accept or "*/*"} if last else {}
            if kind:
                headers["Content-Type"] = kind
            answer = self._patiently(container, self._connections[place], body, headers)
            body, kind = answer.body, answer.content_type or "application/json"
        return bytes(body) if isinstance(body, (bytes, bytearray, memoryview)) else b""

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _patiently(self, container: Container, connection: Connection, body: Body, headers: Dict[str, str]) -> Answer:
        """Asks again when the server failed, so often as the job says."""
        tries = self._retries + 1 if isinstance(body, (bytes, bytearray, memoryview)) else 1
        for left in range(tries - 1, -1, -1):
            try:
                answer = connection.ask("POST", "/invocations", body, headers)
            except socket.timeout:
                wrong = Refused(504, "no answer within InvocationsTimeoutInSeconds")
            except (OSError, http.client.HTTPException) as error:
                time.sleep(LOOK_S)
                container.check()
                wrong = Refused(502, f"the connection broke: {error}")
            else:
                if 200 <= answer.status < 300:
                    return answer
                text = answer.body.decode("utf-8", "replace").strip()
                wrong = Refused(answer.status, f"{container.name}: {text}" if len(self._containers) > 1 else text)
                if answer.status < 500:
                    raise wrong
            if not left:
                raise wrong
        raise AssertionError("a request has at least one try")


def parameters(container: Container) -> Dict[str, Any]:
    """What the first container says to /execution-parameters; nothing where it does not."""
    connection = Connection(container.addresses[0], 60.0)
    try:
        answer = connection.ask("GET", "/execution-parameters")
        found = json.loads(answer.body) if answer.status == 200 else {}
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return found if isinstance(found, dict) else {}
