"""SageMaker Metrics' operations."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker_metrics import rules
from penstock.store.records import Points, Ref

COMPONENT = "sagemaker.trial-component"


def batch_put_metrics(call: Call) -> dict[str, Any]:
    """Keeps points of a trial component, in the series "<its ARN>/<metric>".

    Gives: an error for each point where the component is missing.
    """
    component = call.find(Ref(COMPONENT, call.account, call.region, call.params["TrialComponentName"]))
    if component is None:
        indices = range(len(call.params["MetricData"]))
        return {"Errors": [{"Code": "VALIDATION_ERROR", "MetricIndex": index} for index in indices]}
    found: dict[str, list[rules.Point]] = defaultdict(list)
    for point in call.params["MetricData"]:
        found[point["MetricName"]].append((point["Timestamp"], point["Value"], float(point.get("Step", 0))))
    for name, points in found.items():
        call.row(Points(series=f"{component.arn}/{name}", points=points))
    return {"Errors": []}


def batch_get_metrics(call: Call) -> dict[str, Any]:
    """Answers each query with a statistic by period or iteration; one that names no resource has a ValidationError."""
    return {"MetricQueryResults": [_answer(call, query) for query in call.params["MetricQueries"]]}


def _answer(call: Call, query: dict[str, Any]) -> dict[str, Any]:
    component = call.app.store.by_arn(query["ResourceArn"])
    if component is None or component.ref != Ref(COMPONENT, call.account, call.region, component.name):
        message = f"Resource {query['ResourceArn']} does not exist."
        return {"Status": "ValidationError", "Message": message, "XAxisValues": [], "MetricValues": []}
    points = call.app.store.points(f"{component.arn}/{query['MetricName']}")
    job = component.body.get("Source", {}).get("SourceArn", "")
    if not points and ":training-job/" in job:  # what the job's log told
        points = call.app.store.points(f"{job}/{query['MetricName']}")
    by_step = query["XAxisType"] == "IterationNumber"
    found = rules.series(points, query["MetricStat"], query["Period"], by_step, query.get("Start"), query.get("End"))
    return {
        "Status": "Complete",
        "XAxisValues": [place for place, _ in found],
        "MetricValues": [value for _, value in found],
    }
