"""Small forms of what `make bench ARGS=size` measures: that all end right, and that no more run together than have room."""

from __future__ import annotations

import json

import pytest

from bench import size
from bench.steps import chain, step
from penstock.settings import Settings
from tests.conftest import Boto, Family

EXECUTIONS = 8


@pytest.mark.sandbox
def test_executions_that_start_together_all_end_right_and_keep_within_the_room(family: Family) -> None:
    boto = account_of(family)
    sagemaker = boto("sagemaker")
    text = size.definition(chain(2)(boto.role))
    sagemaker.create_pipeline(
        PipelineName="many", PipelineDefinition=text, RoleArn=boto.role, ClientRequestToken="m" * 32
    )
    arns = [sagemaker.start_pipeline_execution(PipelineName="many")["PipelineExecutionArn"] for _ in range(EXECUTIONS)]
    assert set(size.wait(sagemaker, arns).values()) == {"Succeeded"}
    spans = size.spans_of(sagemaker)
    assert len(spans) == 2 * EXECUTIONS
    assert size.overlap(spans) <= size.room_for(Settings.load(data=family.data))
    boto.close()


def account_of(family: Family) -> Boto:
    """A new account's clients: nobody else's jobs are in its lists."""
    keys = json.loads(family.penstock("account", "add", "--json").stdout)
    names = {
        "account": "AccountId",
        "access_key_id": "AccessKeyId",
        "secret_access_key": "SecretAccessKey",
        "role_arn": "RoleArn",
    }
    return Boto(str(family.about["url"]), {ours: keys[theirs] for ours, theirs in names.items()})


def test_the_most_that_ran_together_is_found() -> None:
    assert size.overlap([(0, 2), (1, 3), (2, 4), (5, 6)]) == 2
    assert size.overlap([(0, 9), (1, 3), (2, 4)]) == 3


def test_a_definition_of_a_thousand_steps_is_taken_and_described(client: Boto) -> None:
    steps = [step(f"s{n}", [f"s{n - 1}"] if n % 10 else [], client.role) for n in range(1000)]
    text = size.definition(steps)
    sagemaker = client("sagemaker")
    sagemaker.create_pipeline(
        PipelineName="long", PipelineDefinition=text, RoleArn=client.role, ClientRequestToken="l" * 32
    )
    assert len(json.loads(sagemaker.describe_pipeline(PipelineName="long")["PipelineDefinition"])["Steps"]) == 1000
    assert sagemaker.start_pipeline_execution(PipelineName="long")["PipelineExecutionArn"]


def test_a_page_of_pipelines_is_two_reads_however_many_it_shows(
    client: Boto, house: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    sagemaker, text = client("sagemaker"), size.definition(chain(1)(client.role))
    for number in range(12):
        name = f"p{number}"
        sagemaker.create_pipeline(
            PipelineName=name, PipelineDefinition=text, RoleArn=client.role, ClientRequestToken=f"{name}-{0:032}"
        )
    sagemaker.start_pipeline_execution(PipelineName="p3")
    store = house.app.store  # type: ignore[attr-defined]
    pages, page = [], store.page
    monkeypatch.setattr(type(store), "page", lambda self, query: (pages.append(query.kind), page(query))[1])
    shown = sagemaker.list_pipelines(MaxResults=100)["PipelineSummaries"]
    assert pages == ["sagemaker.pipeline"]
    assert [one["PipelineName"] for one in shown if "LastExecutionTime" in one] == ["p3"]
    assert len(shown) == 12
