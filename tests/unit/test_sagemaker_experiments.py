"""Experiments, trials and trial components, by boto3."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.services.sagemaker.experiments.links import summary
from penstock.store.records import Change, Points
from tests.refusals import refused


@pytest.fixture
def lab(client: Any) -> Any:
    """A SageMaker client with the experiment "e", its trial "t" and in it the component "c"."""
    sagemaker = client("sagemaker")
    sagemaker.create_experiment(ExperimentName="e", Description="d")
    sagemaker.create_trial(TrialName="t", ExperimentName="e")
    sagemaker.create_trial_component(TrialComponentName="c", Parameters={"lr": {"NumberValue": 0.1}})
    sagemaker.associate_trial_component(TrialName="t", TrialComponentName="c")
    return sagemaker


def test_names_are_taken_once_and_the_sdk_reads_so(lab: Any) -> None:
    for operation, params in (
        (lab.create_experiment, {"ExperimentName": "e"}),
        (lab.create_trial, {"TrialName": "t", "ExperimentName": "e"}),
        (lab.create_trial_component, {"TrialComponentName": "c"}),
    ):
        code, message = refused(operation, **params)
        assert code == "ValidationException"
        assert "already exists" in message


def test_names_are_not_told_apart_by_case(lab: Any, client: Any) -> None:
    made = lab.create_experiment(ExperimentName="My-Flowers")["ExperimentArn"]
    shown = lab.describe_experiment(ExperimentName="my-flowers")
    assert (shown["ExperimentName"], shown["ExperimentArn"]) == ("My-Flowers", made)
    assert refused(lab.create_experiment, ExperimentName="MY-FLOWERS")[0] == "ValidationException"
    lab.create_trial(TrialName="Red", ExperimentName="MY-flowers")
    lab.create_trial_component(TrialComponentName="One")
    lab.associate_trial_component(TrialName="red", TrialComponentName="ONE")
    assert [one["TrialName"] for one in lab.list_trials(ExperimentName="My-Flowers")["TrialSummaries"]] == ["Red"]
    (found,) = lab.list_trial_components(ExperimentName="my-flowers")["TrialComponentSummaries"]
    assert found["TrialComponentName"] == "One"
    client("sagemaker-metrics").batch_put_metrics(
        TrialComponentName="one", MetricData=[{"MetricName": "a", "Timestamp": 1_700_000_000, "Value": 1.0}]
    )
    assert lab.describe_trial_component(TrialComponentName="one")["Metrics"][0]["Last"] == 1.0
    wanted = {"Filters": [{"Name": "TrialComponentName", "Value": "One"}]}
    (record,) = lab.search(Resource="ExperimentTrialComponent", SearchExpression=wanted)["Results"]
    assert record["TrialComponent"]["Parents"][0]["TrialName"] == "Red"


def test_what_is_missing_is_not_found(lab: Any) -> None:
    assert refused(lab.describe_experiment, ExperimentName="x")[0] == "ResourceNotFound"
    assert refused(lab.create_trial, TrialName="y", ExperimentName="x")[0] == "ResourceNotFound"
    assert refused(lab.describe_trial, TrialName="x")[0] == "ResourceNotFound"
    assert refused(lab.associate_trial_component, TrialName="t", TrialComponentName="x")[0] == "ResourceNotFound"
    assert refused(lab.list_trials, ExperimentName="x")[0] == "ResourceNotFound"


def test_an_experiment_is_shown_and_changed(lab: Any, client: Any) -> None:
    assert lab.describe_experiment(ExperimentName="e")["DisplayName"] == "e"
    lab.update_experiment(ExperimentName="e", DisplayName="shown", Description="other")
    experiment = lab.describe_experiment(ExperimentName="e")
    assert experiment["ExperimentArn"] == f"arn:aws:sagemaker:us-east-1:{client.account}:experiment/e"
    assert (experiment["DisplayName"], experiment["Description"]) == ("shown", "other")
    assert [one["ExperimentName"] for one in lab.list_experiments()["ExperimentSummaries"]] == ["e"]


def test_an_update_of_a_component_merges(lab: Any) -> None:
    lab.update_trial_component(
        TrialComponentName="c", Parameters={"depth": {"NumberValue": 3.0}}, Status={"PrimaryStatus": "Completed"},
        OutputArtifacts={"model": {"Value": "s3://b/m"}},
    )  # fmt: skip
    component = lab.describe_trial_component(TrialComponentName="c")
    assert component["Parameters"] == {"lr": {"NumberValue": 0.1}, "depth": {"NumberValue": 3.0}}
    assert component["Status"] == {"PrimaryStatus": "Completed"}
    lab.update_trial_component(TrialComponentName="c", ParametersToRemove=["lr"], OutputArtifactsToRemove=["model"])
    component = lab.describe_trial_component(TrialComponentName="c")
    assert component["Parameters"] == {"depth": {"NumberValue": 3.0}}
    assert (component["OutputArtifacts"], component["InputArtifacts"], component["Metrics"]) == ({}, {}, [])


def test_components_are_listed_by_trial_and_by_experiment(lab: Any) -> None:
    lab.create_trial_component(TrialComponentName="loose")

    def names(**filters: Any) -> list[str]:
        return [one["TrialComponentName"] for one in lab.list_trial_components(**filters)["TrialComponentSummaries"]]

    assert names(TrialName="t") == ["c"] == names(ExperimentName="e")
    assert names() == ["loose", "c"]
    assert [one["TrialName"] for one in lab.list_trials(TrialComponentName="c")["TrialSummaries"]] == ["t"]
    assert [one["TrialName"] for one in lab.list_trials(ExperimentName="e")["TrialSummaries"]] == ["t"]
    assert lab.list_trials(TrialComponentName="loose")["TrialSummaries"] == []


def test_what_is_in_use_is_not_deleted(lab: Any) -> None:
    assert refused(lab.delete_experiment, ExperimentName="e")[0] == "ValidationException"
    assert refused(lab.delete_trial, TrialName="t")[0] == "ValidationException"
    assert refused(lab.delete_trial_component, TrialComponentName="c")[0] == "ValidationException"
    lab.disassociate_trial_component(TrialName="t", TrialComponentName="c")
    lab.delete_trial_component(TrialComponentName="c")
    lab.delete_trial(TrialName="t")
    lab.delete_experiment(ExperimentName="e")
    assert lab.list_experiments()["ExperimentSummaries"] == []


def test_an_association_made_twice_is_one(lab: Any) -> None:
    lab.associate_trial_component(TrialName="t", TrialComponentName="c")
    lab.disassociate_trial_component(TrialName="t", TrialComponentName="c")
    lab.disassociate_trial_component(TrialName="t", TrialComponentName="c")
    assert lab.list_trial_components(TrialName="t")["TrialComponentSummaries"] == []


def test_a_component_shows_a_summary_of_its_metrics(lab: Any, house: Any) -> None:
    arn = lab.describe_trial_component(TrialComponentName="c")["TrialComponentArn"]
    points = [(1_700_000_000.0, 3.0, 0.0), (1_700_000_001.0, 1.0, 1.0)]
    house.app.store.commit(Change(rows=[Points(series=f"{arn}/loss", points=points)]))
    (metric,) = lab.describe_trial_component(TrialComponentName="c")["Metrics"]
    shown = {name: metric[name] for name in ("MetricName", "Max", "Min", "Last", "Count", "Avg", "StdDev")}
    assert shown == {"MetricName": "loss", "Max": 3.0, "Min": 1.0, "Last": 1.0, "Count": 2, "Avg": 2.0, "StdDev": 1.0}


def test_a_summary_of_one_point_has_no_spread() -> None:
    assert summary([(5.0, 2.0, 0.0)])["StdDev"] == 0.0
