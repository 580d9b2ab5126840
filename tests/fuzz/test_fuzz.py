"""A few thousand hostile requests at everything that is served; and every one that ever went wrong, again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.services import SERVICES
from tests.fuzz.hunt import CASES, hunt, operations
from tests.fuzz.judge import Gun
from tests.fuzz.shots import TWISTS, Shot
from tests.fuzz.stage import Stage, raised
from tests.fuzz.values import PAYLOADS, Values

EXAMPLES = 5
SEED = 20261121


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with raised() as made:
        yield made


@pytest.fixture(scope="module")
def gun(stage: Stage) -> Iterator[Gun]:
    made = Gun(stage)
    yield made
    made.close()


@pytest.mark.parametrize("case", sorted(CASES.glob("*.json")), ids=lambda path: path.stem)
def test_what_went_wrong_once_goes_right(gun: Gun, case: Path) -> None:
    gun.fire(Shot.read(case.read_text()))


@pytest.mark.parametrize("name", sorted(TWISTS))
def test_every_twist_is_answered_as_it_must_be(gun: Gun, name: str) -> None:
    headers = {"x-amz-target": "SageMaker.ListModels", "content-type": "application/x-amz-json-1.1"}
    gun.fire(Shot("sagemaker", "ListModels", "sagemaker", "POST", "/", headers, b'{"MaxResults": 1}', name))
    gun.fire(Shot("s3", "PutObject", "s3", "PUT", "/fuzz-bucket/twisted", {}, b"abc", name))
    gun.fire(Shot("s3", "ListObjectsV2", "s3", "GET", "/fuzz-bucket?list-type=2", {}, b"", name))
    form = {"content-type": "application/x-www-form-urlencoded"}
    gun.fire(Shot("iam", "ListRoles", "iam", "POST", "/", form, b"Action=ListRoles&Version=2010-05-08", name))


@pytest.mark.parametrize("kind", ["RequestResponse", "Event"])
def test_every_payload_is_answered(gun: Gun, kind: str) -> None:
    path, headers = "/2015-03-31/functions/fuzz/invocations", {"x-amz-invocation-type": kind}
    for payload in PAYLOADS:
        body = payload.encode(errors="surrogatepass")
        answer = gun.fire(Shot("lambda", "Invoke", "lambda", "POST", path, dict(headers), body, "plain"))
        assert answer is not None
        assert answer.status != 404


@pytest.mark.parametrize("service", SERVICES)
def test_hostile_requests_are_refused_in_the_services_own_form(stage: Stage, gun: Gun, service: str) -> None:
    stage.set()
    values = Values(stage.pool)
    wrong = [found for each in operations((service,)) if (found := hunt(gun, values, each, EXAMPLES, SEED))]
    assert not wrong, "\n".join(map(str, wrong))
