"""Which component is in which trial, and the metrics of components."""

from __future__ import annotations

import statistics
from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker.experiments.state import LINK
from penstock.store.records import Document, Query, Ref

MOST = 10_000


def link(call: Call, trial: Document, component: Document) -> None:
    ref = _ref(call, trial, component)
    if call.find(ref) is not None:
        return
    for read in (trial, component):
        if read.version and call.was_put(read.ref) is None:
            call.change.reads.append(read)
    call.put(
        Document(
            kind=LINK.kind,
            account=ref.account,
            region=ref.region,
            name=ref.name,
            parent=trial.name,
            label=component.name,
            status=trial.parent,
            created=call.now,
            body={"TrialName": trial.body["TrialName"], "ExperimentName": trial.body["ExperimentName"]},
        )
    )


def unlink(call: Call, trial: Document, component: Document) -> None:
    """Where there is no link, nothing changes."""
    known = call.find(_ref(call, trial, component))
    if known is not None:
        call.delete(known)


def components_of(call: Call, trial: str | None = None, experiment: str | None = None) -> set[str]:
    """The names of the components in a trial, or in all trials of an experiment."""
    return {found.label for found in _links(call, parent=trial, status=experiment)}


def trials_of(call: Call, component: str) -> set[str]:
    """The names of the trials that have a component."""
    return {found.parent for found in _links(call, label=component)}


def parents_of(call: Call, component: str) -> list[dict[str, str]]:
    """A component's trials and experiments, as Search shows them."""
    found = _links(call, label=component)
    return [{"TrialName": one.parent, "ExperimentName": one.status} | one.body for one in sorted(found, key=lambda one: one.name)]


def completed(call: Call, component: Document, shown: dict[str, Any]) -> dict[str, Any]:
    """The Describe answer with a summary of each metric of the component and of its training job (series "<arn>/<metric>").

    Its maps and metrics are shown when they are empty, too: the SDK's analytics read them without asking.
    """
    job = component.body.get("Source", {}).get("SourceArn", "")
    summaries = []
    for source in [component.arn, *([job] if ":training-job/" in job else [])]:
        prefix = source + "/"
        for series in sorted(call.app.store.series(prefix)):
            if points := call.app.store.points(series):
                summaries.append({"MetricName": series.removeprefix(prefix), "SourceArn": source, **summary(points)})
    return {"Parameters": {}, "InputArtifacts": {}, "OutputArtifacts": {}, **shown, "Metrics": summaries}


def summary(points: list[tuple[float, float, float]]) -> dict[str, Any]:
    """Max, Min, Last, Count, Avg and StdDev of points (moment, value, step)."""
    values = [value for _, value, _ in points]
    return {
        "TimeStamp": points[-1][0],
        "Max": max(values),
        "Min": min(values),
        "Last": values[-1],
        "Count": len(values),
        "Avg": statistics.fmean(values),
        "StdDev": statistics.pstdev(values),
    }


def _ref(call: Call, trial: Document, component: Document) -> Ref:
    return Ref(LINK.kind, call.account, call.region, f"{trial.name}|{component.name}")


def _links(
    call: Call, parent: str | None = None, label: str | None = None, status: str | None = None
) -> list[Document]:
    """The links of the store, and those of this change that fit."""
    query = Query(
        kind=LINK.kind, account=call.account, region=call.region, parent=parent, label=label, status=status, limit=MOST
    )
    gone = {one.ref for one in call.change.deletes}
    found = {one.ref: one for one in call.app.store.page(query) if one.ref not in gone}
    for put in call.change.puts:
        fits = parent in (None, put.parent) and label in (None, put.label) and status in (None, put.status)
        if put.kind == LINK.kind and fits:
            found[put.ref] = put
    return list(found.values())
