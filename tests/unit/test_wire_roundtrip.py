"""Every operation of every service: botocore writes what we read, and reads what we write. Known gaps are in a file."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.awsrequest import HeadersDict, create_request_object, prepare_request_dict
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from wire_shapes import Values, plain, pruned

from penstock.wire.message import Reply, Request
from penstock.wire.models import Operation, Service, service
from penstock.wire.protocols import error, parse, reply
from penstock.wire.routes import Router

SERVICES = [
    *("sagemaker", "sagemaker-runtime", "sagemaker-metrics", "s3", "sts", "iam", "ecr", "lambda", "events", "logs"),
    *("application-autoscaling", "cloudwatch", "sqs", "sns", "cloudformation", "cloudcontrol", "codepipeline"),
    *("codecommit", "codebuild", "glue", "stepfunctions", "ssm", "kms", "resourcegroupstaggingapi"),
]
GAP_FILE = Path(__file__).parents[1] / "conformance" / "wire_gaps.toml"
GAPS: dict[str, dict[str, str]] = tomllib.loads(GAP_FILE.read_text())
ROUNDS = 4


def spoken(owner: Service) -> Iterator[str]:
    for protocol in owner.protocols:
        if protocol in (owner.model.metadata.get("protocols") or [owner.protocol]):
            yield protocol


CASES = [(name, protocol) for name in SERVICES for protocol in spoken(service(name))]


def sent(operation: Operation, protocol: str, params: dict[str, Any]) -> Request:
    """What botocore puts on the wire for these parameters."""
    made = create_serializer(protocol, include_validation=False).serialize_to_request(params, operation.model)
    made.setdefault("context", {})
    prepare_request_dict(made, endpoint_url="http://127.0.0.1:4600")
    ready = create_request_object(made).prepare()
    url = urlsplit(ready.url)
    body = ready.body or b""
    headers = {
        key.lower(): value if isinstance(value, str) else value.decode("utf-8") for key, value in ready.headers.items()
    }
    body = body.encode() if isinstance(body, str) else bytes(body)
    if protocol == "rest-xml" and operation.streaming_input is None:
        body = body.replace(b"\r", b"&#xD;")  # as a handler of botocore's S3 client does
    if "content-length" in headers:
        headers["content-length"] = str(len(body))  # an HTTP server has seen to that
    return Request(ready.method, url.path, url.query, headers, body)


def received(operation: Operation, protocol: str, answer: Reply, shape: Any) -> dict[str, Any]:
    """What botocore makes of our reply."""
    body: Any = answer.body if isinstance(answer.body, (bytes, Stream)) else b"".join(answer.body)
    if operation.streaming_output and answer.status < 300:
        body = io.BytesIO(body)
    response = {
        "status_code": answer.status,
        "headers": HeadersDict(answer.headers),
        "body": body,
        "context": {"operation_name": operation.name},
    }
    parsed: dict[str, Any] = create_parser(protocol).parse(response, shape)
    if operation.streaming_output and operation.streaming_output in parsed:
        parsed[operation.streaming_output] = parsed[operation.streaming_output].read()
    return parsed


def check_request(operation: Operation, protocol: str, router: Router, seed: str) -> str:
    if operation.event_input:
        return "takes a stream of events"
    params = Values(seed, moments=True).make(operation.input) if operation.input is not None else {}
    request = sent(operation, protocol, params)
    found = router.find(request, operation.service.signing_name, operation.service.endpoint_prefix)
    if found is not operation:
        return f"routed to {found.name}"
    given = parse(operation, request, protocol)
    wanted = plain(params)
    if operation.streaming_input and "ContentLength" in operation.input.members:
        wanted["ContentLength"] = len(request.body)  # the HTTP client's own word
    if protocol == "query":
        wanted, given = pruned(wanted), pruned(given)
    return "" if plain(given) == wanted else f"{wanted} arrives as {plain(given)}"


class Stream:
    """What botocore reads a stream of events from."""

    def __init__(self, body: bytes):
        self._body = body

    def stream(self) -> Iterator[bytes]:
        for at in range(0, len(self._body), 7):
            yield self._body[at : at + 7]

    def close(self) -> None:
        pass


def check_stream(operation: Operation, protocol: str, seed: str) -> str:
    values, name = Values(seed, moments=False), operation.event_stream
    union = operation.output.members[name]
    kinds = [kind for kind, shape in union.members.items() if not shape.metadata.get("exception")]
    events = [{kind: values.make(union.members[kind])} for kind in kinds]
    result = {**values.make(operation.output), name: iter(events)}
    answer = reply(operation, result, "the-request-id", protocol)
    answer.body = Stream(b"".join(answer.body))
    parsed = received(operation, protocol, answer, operation.output)
    came = plain(list(parsed[name]))
    if came != plain(events):
        return f"{events} arrives as {came}"
    wanted = {key: each for key, each in plain(result).items() if key != name}
    held = {key: each for key, each in plain(parsed).items() if key not in (name, "ResponseMetadata")}
    # The content type of the stream itself is a member too (Lambda's).
    return "" if wanted.items() <= held.items() else f"{wanted} arrives as {held}"


def check_reply(operation: Operation, protocol: str, seed: str) -> str:
    if operation.event_stream:
        return check_stream(operation, protocol, seed)
    result = Values(seed, moments=False).make(operation.output) if operation.output is not None else {}
    answer = reply(operation, {**result, "_hidden": 1, "NoSuchMember": [1]}, "the-request-id", protocol)
    parsed = received(operation, protocol, answer, operation.output)
    wanted, meta = plain(result), parsed.pop("ResponseMetadata")
    # botocore looks for no request id in a CBOR answer that has no members.
    if meta.get("RequestId") != "the-request-id" and (protocol != "smithy-rpc-v2-cbor" or operation.output is not None):
        return f"request id {meta.get('RequestId')}"
    return "" if plain(parsed) == wanted else f"{wanted} arrives as {plain(parsed)}"


def failing(check: Any, name: str, protocol: str, kind: str) -> dict[str, str]:
    found = {}
    for operation in service(name).operations.values():
        for n in range(ROUNDS):
            try:
                wrong = check(operation, f"{name}.{operation.name}.{kind}.{n}")
            except Exception as error:  # any failure is a gap or a fault
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                found[f"{name}.{operation.name}"] = wrong
    return found


def compare(found: dict[str, str], name: str, section: str) -> None:
    known = {key for key in GAPS.get(section, {}) if key.rpartition(".")[0] == name}
    new = {key: wrong[:1000] for key, wrong in found.items() if key not in known}
    assert not new, f"not in wire_gaps.toml [{section}]: {new}"
    closed = known - set(found)
    assert not closed, f"no longer a gap, remove from wire_gaps.toml [{section}]: {closed}"


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_every_request_of_botocore_is_read_as_it_was_meant(name: str, protocol: str) -> None:
    router = Router(SERVICES)
    found = failing(lambda op, seed: check_request(op, protocol, router, seed), name, protocol, "request")
    compare(found, name, f"requests-{protocol}")


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_every_reply_is_read_by_botocore_as_it_was_meant(name: str, protocol: str) -> None:
    found = failing(lambda op, seed: check_reply(op, protocol, seed), name, protocol, "reply")
    compare(found, name, f"replies-{protocol}")


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_every_modelled_error_reaches_botocore_with_code_message_and_members(name: str, protocol: str) -> None:
    owner = service(name)
    operation = next(op for op in owner.operations.values() if op.method != "HEAD")
    found = {}
    for shape in owner.model.error_shapes:
        members = Values(f"{name}.{shape.name}", moments=False).make(shape)
        members = {key: value for key, value in members.items() if key.lower() not in ("message", "code")}
        status = shape.metadata.get("error", {}).get("httpStatusCode", 400)
        answer = error(owner, operation, shape.name, "It <broke> & so", status, members, "the-request-id", protocol)
        parsed = received(operation, protocol, answer, operation.output)
        code = parsed["Error"]["Code"]
        modelled = received(operation, protocol, answer, owner.model.shape_for_error_code(code) or shape)
        given = {key: value for key, value in plain(modelled).items() if key.lower() not in ("message", "code")}
        wanted = (shape.error_code, "It <broke> & so", plain(members))
        if protocol in ("json", "rest-json", "smithy-rpc-v2-cbor") and not owner.query_compatible:
            wanted = (shape.name, *wanted[1:])
        if (code, parsed["Error"]["Message"], given) != wanted:
            found[f"{name}.{shape.name}"] = f"{wanted} arrives as {(code, parsed['Error'], given)}"
    compare(found, name, f"errors-{protocol}")
