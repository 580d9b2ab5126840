"""Fires shots and judges the answers: a 4xx in the service's own form, or a success; never another 5xx, never silence."""

from __future__ import annotations

import copy
import errno
import http.client
import json
import re
import socket
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from botocore.parsers import ResponseParserError, create_parser

from penstock.wire import cborbody, models
from tests.fuzz.shots import BROKEN, LOOSE, REFUSED, TWISTS, Keys, Shot
from tests.fuzz.stage import Stage

WAIT_S = 60.0
FRESH = b"fresh-0000"
"""A name that each shot gets a new one for."""
FOLLOWED = {
    "CreatePipeline": ("StartPipelineExecution", "PipelineName"),
    "UpdatePipeline": ("StartPipelineExecution", "PipelineName"),
}
STEP = re.compile(r"The step of (\S+) failed")
NOT_SERVED = {"NotImplemented", "UnknownService"}


class Wrong(AssertionError):
    """An answer that must not be given, and the shot that brought it."""

    def __init__(self, shot: Shot, why: str):
        self.shot, self.why = shot, why
        super().__init__(f"{shot.service}:{shot.operation} [{shot.twist}] {why}")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Gun:
    """One client's connection to a stage."""

    stage: Stage
    fired: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    _socket: socket.socket | None = None
    _seen_bytes: int = 0
    _steps: set[str] = field(default_factory=set)
    """Documents whose steps failed: they fail again and again."""

    def __post_init__(self) -> None:
        self.keys = Keys.of(self.stage.keys, self.stage.url)
        self.other = Keys.of(self.stage.other, self.stage.url)

    def fire(self, shot: Shot) -> Answer | None:
        """Sends a shot, and judges what comes of it.

        Raises: Wrong.
        """
        self.fired += 1
        sent = copy.deepcopy(shot)
        number = b"fresh-%04d" % (self.fired % 10_000)
        sent.body = sent.body.replace(FRESH, number)
        sent.path = sent.path.replace(FRESH.decode(), number.decode())
        try:
            answer = self._exchange(TWISTS[shot.twist](sent, self.keys, self.other), sent, shot.twist in BROKEN)
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            self.close()
            if shot.twist in BROKEN and not isinstance(error, TimeoutError):
                return None
            raise Wrong(shot, f"no answer: {error!r}") from error
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        why = judged(shot, answer, sent.method) or self.logged()
        if why:
            if answer.status >= 500:
                why += f" {self.logged()}"
            raise Wrong(shot, why)
        if answer.status == 200 and shot.operation in FOLLOWED and shot.twist == "plain":
            self._follow(sent, *FOLLOWED[shot.operation])
        return answer

    def _follow(self, sent: Shot, operation: str, member: str) -> None:
        """What was made is set going: what the engine makes of it shows in the log."""
        body = json.dumps({member: json.loads(sent.body)[member], "ClientRequestToken": f"{self.fired:032}"}).encode()
        headers = {"x-amz-target": f"SageMaker.{operation}", "content-type": "application/x-amz-json-1.1"}
        self.fire(Shot("sagemaker", operation, "sagemaker", "POST", "/", headers, body, "plain"))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, sent: bytes, shot: Shot, broken: bool) -> Answer:
        if broken:
            self.close()
        if self._socket is None:
            host, _, port = self.keys.host.partition(":")
            self._socket = socket.create_connection((host, int(port)), timeout=WAIT_S)
        try:
            self._socket.sendall(sent)
            if broken:
                self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:  # the answer may have come, and the connection gone, before the whole was sent
            if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
                raise
        response = http.client.HTTPResponse(self._socket, method=shot.method)
        try:
            response.begin()
            body = response.read()
        except ConnectionError as error:
            if broken:
                raise
            raise http.client.RemoteDisconnected(str(error)) from error
        if response.will_close or broken:
            self.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, body)

    def logged(self) -> str:
        """What the server logged since it was last looked at: it logs nothing but its own faults, each step's once."""
        errors = self.stage.errors
        size = errors.stat().st_size if errors.exists() else 0
        if size <= self._seen_bytes:
            return ""
        with errors.open("rb") as file:
            file.seek(self._seen_bytes)
            text = file.read(size - self._seen_bytes).decode(errors="replace")
        self._seen_bytes = size
        told = []
        for entry in re.split(r"^(?=ERROR:)", text, flags=re.MULTILINE):
            step = STEP.search(entry)
            if entry.strip() and not (step and step[1] in self._steps):
                told.append(entry)
            if step:
                self._steps.add(step[1])
        lines = [line for line in "".join(told).splitlines() if line.strip()]
        return f"the server logged: {lines[0][:300]} … {' | '.join(lines[-3:])[:600]}" if lines else ""


def judged(shot: Shot, answer: Answer, method: str) -> str:
    """What is wrong with an answer; empty where nothing is."""
    service = models.service(shot.service)
    status, body = answer.status, answer.body
    if status < 400:
        if shot.twist in REFUSED and shot.path != "/_penstock/health":
            return f"answered {status}, where nothing may succeed: {body[:200]!r}"
        return _parsed(shot, answer) if shot.twist not in LOOSE and method == shot.method and status < 300 else ""
    loose = shot.twist in LOOSE
    if method == "HEAD" or status == 304:
        return "" if status < 500 or status == 501 else f"answered {status} to HEAD"
    if loose and answer.headers.get("content-type", "").startswith("text/plain") and status == 400:
        return "" if shot.twist in BROKEN or b"Invalid HTTP" in body else f"no form: {body[:100]!r}"
    try:
        code = code_of(answer, None if loose else service.protocol)
    except (ValueError, ElementTree.ParseError) as error:
        return f"{status} in no form of the service's ({error}): {body[:300]!r}"
    if status >= 500 and not (status == 501 and code in NOT_SERVED):
        return f"answered {status} {code}: {body[:400]!r}"
    if not {"x-amzn-requestid", "x-amz-request-id"} & set(answer.headers):
        return f"{status} without a request id"
    return ""


def code_of(answer: Answer, protocol: str | None) -> str:
    """The code of an error in the protocol's form, of any where that is None.

    Raises: ValueError, ParseError for what has none.
    """
    body = answer.body
    if answer.headers.get("content-type") == "application/cbor":  # of a service that speaks it, too
        found = str(cborbody.decode(body)["__type"])
    elif protocol in ("json", "rest-json") or (protocol is None and body.startswith(b"{")):
        told = json.loads(body)
        if not isinstance(told, dict) or not {"message", "Message"} & set(told):
            raise ValueError("no message")
        found = str(told.get("__type") or (answer.headers.get("x-amzn-errortype") if protocol != "json" else ""))
    else:
        tree = ElementTree.fromstring(body.decode())
        within = tree.find("{*}Error") if tree.tag.endswith("ErrorResponse") else tree if tree.tag == "Error" else None
        found = (within.findtext("{*}Code") or "") if within is not None else ""
    if not re.fullmatch(r"[A-Za-z0-9_.# ]+", found):
        raise ValueError(f"no code: {found!r}")
    return found


def _parsed(shot: Shot, answer: Answer) -> str:
    """Whether botocore's own parser reads a success."""
    operation = models.service(shot.service).operations[shot.operation]
    if operation.streaming_output or operation.event_stream or operation.output is None:
        return ""
    told: dict[str, Any] = {"status_code": answer.status, "headers": answer.headers, "body": answer.body}
    try:
        is_cbor = answer.headers.get("content-type") == "application/cbor"
        create_parser("smithy-rpc-v2-cbor" if is_cbor else operation.service.protocol).parse(
            told, operation.model.output_shape
        )
    except (ResponseParserError, ValueError, KeyError, TypeError) as error:
        if shot.service == "s3" and "invalid character number" in str(error):
            return ""  # a key's control characters, as S3 writes them to who does not ask for encoding-type=url
        return f"{answer.status} that no client can read ({error}): {answer.body[:300]!r}"
    return ""
