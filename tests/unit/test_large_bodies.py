"""Requests that are larger than bodies may be: operations that carry archives take them, no other does."""

from __future__ import annotations

import io
import os
import zipfile
from base64 import b64encode
from pathlib import Path

import pytest

from penstock.services.lambda_.state import REQUEST_BYTES, ZIPPED_BYTES
from tests.conftest import Boto, House, World
from tests.unit.test_edge import Raw
from tests.unit.test_lambda import Lambda, refusal

CREATE = "/2015-03-31/functions"


@pytest.fixture
def raw(house: House) -> Raw:
    return Raw(house.url, house.account())


@pytest.fixture
def lam(world: World) -> Lambda:
    return Lambda(world)


@pytest.fixture(scope="module")
def archive(house: House) -> bytes:
    """One that is larger than a body may be elsewhere."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as packed:
        packed.writestr("app.py", "def handler(event, context):\n    return event\n")
        packed.writestr("data.bin", os.urandom(house.app.settings.max_body_bytes))
    return held.getvalue()


def test_functions_and_layers_take_archives_that_no_other_operation_takes(client: Boto, archive: bytes) -> None:
    functions = client("lambda")
    made = functions.create_function(
        FunctionName="large", Runtime="python3.11", Handler="app.handler", Role=client.role, Code={"ZipFile": archive}
    )
    assert made["CodeSize"] == len(archive)
    with pytest.raises(functions.exceptions.ResourceConflictException, match="Pending"):  # no engine runs here
        functions.update_function_code(FunctionName="large", ZipFile=archive)
    layer = functions.publish_layer_version(LayerName="large", Content={"ZipFile": archive})
    assert layer["Content"]["CodeSize"] == len(archive)
    with pytest.raises(functions.exceptions.ClientError, match=r"\(413\)|RequestEntityTooLarge"):
        functions.create_alias(FunctionName="large", Name="a", FunctionVersion="$LATEST", Description="x" * len(archive))


def test_a_large_body_of_nobodys_signature_is_kept_nowhere(raw: Raw, house: House, archive: bytes) -> None:
    body = b'{"Code": {"ZipFile": "%s"}}' % b64encode(archive)
    answer = raw.send(raw.sign("lambda", path=CREATE, body=body, secret="another"), path=CREATE, body=body)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
    data = Path(house.app.settings.data)
    assert all(path.stat().st_size < len(archive) for path in data.rglob("*") if path.is_file() and "blobs" not in path.parts)


@pytest.mark.parametrize(("key", "length", "status", "told"), [
    ("", REQUEST_BYTES + 1, 413, f"Request must be smaller than {REQUEST_BYTES} bytes for the CreateFunction operation"),
    ("AKIAIOSFODNN7EXAMPLE", REQUEST_BYTES, 403, "The security token included in the request is invalid"),
])  # fmt: skip
def test_a_large_body_is_refused_before_it_comes(raw: Raw, key: str, length: int, status: int, told: str) -> None:
    sender = Raw(raw.url, raw.keys | ({"access_key_id": key} if key else {}))
    answer = raw.send(sender.sign("lambda", path=CREATE, body=b"{}") | {"Content-Length": str(length)}, path=CREATE)
    assert answer.status == status
    assert told in answer.message


def test_an_archive_in_a_request_is_limited(lam: Lambda) -> None:
    told = refusal(lambda: lam.create(Code={"ZipFile": bytes(ZIPPED_BYTES + 1)}))
    assert told == ("RequestEntityTooLargeException", f"Zipped size must be smaller than {ZIPPED_BYTES} bytes")
