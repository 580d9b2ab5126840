"""SageMaker Metrics, by boto3 and by its rules."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.services.sagemaker_metrics.rules import series

POINTS = [(60.0, 1.0, 0.0), (90.0, 3.0, 1.0), (200.0, 5.0, 1.0)]


@pytest.mark.parametrize(
    ("statistic", "period", "by_step", "expected"),
    [
        ("Avg", "OneMinute", False, [(60, 2.0), (180, 5.0)]),
        ("Max", "IterationNumber", True, [(0, 1.0), (1, 5.0)]),
        ("Count", "OneHour", False, [(0, 3.0)]),
        ("Last", "IterationNumber", True, [(0, 1.0), (1, 5.0)]),
        ("StdDev", "OneMinute", False, [(60, 1.0), (180, 0.0)]),
    ],
)
def test_points_are_summed_up_by_bucket(statistic: str, period: str, by_step: bool, expected: list[Any]) -> None:
    assert series(POINTS, statistic, period, by_step, None, None) == expected


def test_points_outside_the_range_are_left_out() -> None:
    assert series(POINTS, "Count", "IterationNumber", True, 1, 1) == [(1, 2.0)]


def test_metrics_that_were_put_are_summarised_and_read_back(client: Any) -> None:
    sagemaker, metrics = client("sagemaker"), client("sagemaker-metrics")
    arn = sagemaker.create_trial_component(TrialComponentName="run")["TrialComponentArn"]
    data = [
        {"MetricName": "loss", "Timestamp": 1_700_000_000 + step, "Step": step, "Value": 1.0 / (step + 1)}
        for step in range(4)
    ]
    metrics.batch_put_metrics(TrialComponentName="run", MetricData=data)
    (summary,) = sagemaker.describe_trial_component(TrialComponentName="run")["Metrics"]
    assert (summary["MetricName"], summary["Count"], summary["Last"], summary["Max"]) == ("loss", 4, 0.25, 1.0)
    asked = {"ResourceArn": arn, "MetricStat": "Last", "Period": "IterationNumber", "XAxisType": "IterationNumber"}
    answers = metrics.batch_get_metrics(
        MetricQueries=[{"MetricName": "loss", **asked}, {"MetricName": "none", **asked}]
    )
    first, second = answers["MetricQueryResults"]
    assert (first["XAxisValues"], first["MetricValues"]) == ([0, 1, 2, 3], [1.0, 0.5, pytest.approx(1 / 3), 0.25])
    assert second["MetricValues"] == []


def test_metrics_need_their_component(client: Any) -> None:
    data = [{"MetricName": "loss", "Timestamp": 1_700_000_000, "Value": 1.0}]
    answer = client("sagemaker-metrics").batch_put_metrics(TrialComponentName="none", MetricData=data)
    assert answer["Errors"] == [{"Code": "VALIDATION_ERROR", "MetricIndex": 0}]
