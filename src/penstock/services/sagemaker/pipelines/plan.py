"""A plan: what an execution would do that is not started: its jobs, what the cache has of them, their time and price at AWS.

The steps are gone through in order, as the engine would. One that the cache has an earlier result for counts as succeeded with
that job, so what comes after it is resolved with that job's properties. What hangs on a step that would run is known at run
time only. Nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker import costs
from penstock.services.sagemaker.costs import Use
from penstock.services.sagemaker.pipelines import bills, cache, cachekeys, conditions, jobs, lambdas
from penstock.services.sagemaker.pipelines.checks import EXECUTED
from penstock.services.sagemaker.pipelines.definition import Step, parse
from penstock.services.sagemaker.pipelines.expressions import Unresolved, function_of, resolve, to_text
from penstock.services.sagemaker.pipelines.scope import StepScope
from penstock.services.sagemaker.pipelines.state import EXECUTION, STEP, VERSION
from penstock.store.records import Document, Query, Ref

EXECUTIONS, RUNS = 20, 5
"""In how many of the last executions earlier runs of a step are looked for, and how many of them its time is taken of."""
NAME = "plan"
HIT, SKIPPED = "hit", "skipped"
DONE = frozenset({HIT, SKIPPED, "at once"})
"""Expectations under which nothing is billed for a step."""


@dataclass(slots=True)
class Planned:
    """What is expected of one step."""

    step: Step
    expected: str
    """ "runs", "hit", "at once", "skipped", "decided", "fails" or "unknown" (whether the cache has it, is known at run time)."""
    why: str
    sure: bool = True
    """Whether it is reached: False in a branch that is decided at run time."""
    uses: list[Use] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)
    """How long earlier runs took, the last one first."""
    jobs: int = 0

    @property
    def usd(self) -> float | None:
        return 0.0 if self.expected in DONE else costs.total(self.uses)

    @property
    def unknown(self) -> bool:
        return self.expected not in DONE and (self.jobs > 0 or bool(self.uses)) and (self.usd is None or not self.uses)

    def told(self) -> dict[str, Any]:
        return {
            "step": self.step.name, "type": self.step.type, "after": sorted(self.step.needs), "expected": self.expected,
            "why": self.why, "reached": self.sure, "jobs": self.jobs, "uses": [bills.show(use) for use in self.uses],
            "last_s": self.runs[0] if self.runs else None, "runs": len(self.runs), "usd": self.usd,
        }  # fmt: skip


def plan(call: Call, pipeline: Document, version: Document, given: Mapping[str, str]) -> dict[str, Any]:
    """What an execution of a pipeline's version, with these parameters, is expected to do.

    Gives {"pipeline", "version", "cache", "parameters", "prices", "usd" (of the steps that are reached for sure), "usd_most" (with
    the undecided branches), "unknown" (steps whose price is not known), "unpriced" (types of instances), "steps"}.
    Raises: Malformed for a wrong parameter; ServiceError.
    """
    definition = parse(version.body["PipelineDefinition"])
    execution = _stand_in(call, pipeline, version, definition.values(given))
    view = View(call, execution, definition.steps, _earlier(call, pipeline))
    planned = [view.look(definition.steps[name]) for name in definition.order]
    paid = [each for each in planned if each.expected not in DONE]
    sums = [math.fsum(each.usd or 0.0 for each in paid if each.sure or anyway) for anyway in (False, True)]
    return {
        "pipeline": pipeline.name, "version": version.body["PipelineVersionId"], "cache": view.cache.mode,
        "parameters": {name: to_text(value) for name, value in execution.body["_parameters"].items()},
        "prices": costs.prices().header(call.region), "usd": sums[0], "usd_most": sums[1],
        "unknown": [each.step.name for each in paid if each.unknown],
        "unpriced": sorted({str(use.instance_type) for each in paid for use in each.uses if use.unpriced}),
        "steps": [each.told() for each in planned],
    }  # fmt: skip


def _stand_in(call: Call, pipeline: Document, version: Document, values: dict[str, Any]) -> Document:
    """An execution that is nowhere kept."""
    body = {
        "PipelineArn": pipeline.arn, "_pipeline": pipeline.name, "_version": version.name, "_steps": {}, "_begun": 0,
        "_parameters": values, "_cache": cache.mode_of(call, pipeline),
    }  # fmt: skip
    arn = EXECUTION.arn_of(call, NAME, pipeline=pipeline.name)
    return Document(
        kind=EXECUTION.kind, account=pipeline.account, region=pipeline.region, name=NAME, arn=arn, created=call.now, body=body
    )  # fmt: skip


def _earlier(call: Call, pipeline: Document) -> list[Document]:
    """The pipeline's last executions, the latest first."""
    query = Query(
        kind=EXECUTION.kind, account=call.account, region=call.region, parent=pipeline.name, descending=True, limit=EXECUTIONS
    )  # fmt: skip
    return call.app.store.page(query)


class View:
    """The steps of an execution that is not started, looked at in their order."""

    def __init__(self, call: Call, execution: Document, steps: Mapping[str, Step], earlier: list[Document]):
        self.call, self.execution, self.steps, self.earlier = call, execution, steps, earlier
        self.cache = cache.Cache(call, execution)
        self.entries: dict[str, dict[str, Any]] = execution.body["_steps"]
        self.planned: dict[str, Planned] = {}
        self.made: dict[str, dict[str, list[Document]]] = {}
        """What earlier executions made, by their names, each read once."""

    def look(self, step: Step) -> Planned:
        found = self._expect(step)
        before = [self.planned[name] for name in (*step.needs, *(step.branch or ())[:1])]
        undecided = step.branch is not None and step.branch[0] not in self.entries
        found.sure = not undecided and all(each.sure for each in before)
        self.planned[step.name] = found
        return found

    def _expect(self, step: Step) -> Planned:
        if why := self._skipped(step):
            return Planned(step, SKIPPED, why)
        if step.type == "Condition":
            return self._decide(step)
        if step.type == "Fail":
            return Planned(step, "fails", "ends the execution as failed")
        if step.type not in EXECUTED:
            return Planned(step, "fails", f"a step of the type {step.type} is not run here")
        if step.type == lambdas.TYPE:
            expected, why, _ = self._judge(step, lambda: lambdas.arguments_of(step, self._scope(step)))
            return Planned(step, expected, f"{why}; what functions cost is left out")
        if step.type == "Callback":
            return Planned(step, "runs", "it waits for whoever answers its token")
        return self._job(step) if step.type in cachekeys.KEYS else Planned(step, "at once", "has no instances")

    def _skipped(self, step: Step) -> str | None:
        if step.branch is not None:
            condition, wanted = step.branch
            if self.planned[condition].expected == SKIPPED:
                return f"{condition} is not reached"
            outcome = self.entries.get(condition, {}).get("outcome")
            if outcome is not None and outcome is not wanted:
                return f"{condition} is {str(outcome).lower()}"
        gone = [need for need in step.needs if self.planned[need].expected == SKIPPED]
        return f"{gone[0]} is not reached" if gone else None

    def _decide(self, step: Step) -> Planned:
        def value(operand: Any) -> Any:
            return resolve(operand, self._scope(step))

        given = step.arguments.get("Conditions") or []
        try:
            outcome = all(conditions.holds(condition, value) for condition in given)
        except Unresolved:
            return Planned(step, "decided", f"is decided at run time{self._running(step)}")
        self.entries[step.name] = {"status": "Succeeded", "outcome": outcome}
        return Planned(step, "at once", f"is {str(outcome).lower()}")

    def _job(self, step: Step) -> Planned:
        expected, why, arguments = self._judge(step, lambda: resolve(step.arguments, self._scope(step)))
        found = Planned(step, expected, why)
        self._measure(found, self._partly(step.arguments, step) if arguments is None else arguments)
        return found

    def _judge(self, step: Step, resolved: Callable[[], dict[str, Any]]) -> tuple[str, str, dict[str, Any] | None]:
        """What the cache has for a step, why, and its arguments; None where they are not all known."""
        on = (step.raw.get("CacheConfig") or {}).get("Enabled")
        try:
            arguments = resolved()
        except Unresolved:
            why = f"its key is known at run time{self._running(step)}"
            return ("unknown", why, None) if on else ("runs", "caching is not on for it", None)
        verdict = self.cache.look(step, arguments)
        if verdict is None:
            return "runs", "caching is not on for it", arguments
        if verdict.hit:
            assert verdict.record is not None
            self.entries[step.name] = {"status": "Succeeded", "job": verdict.record.body["job"]}
        return "hit" if verdict.hit else "runs", verdict.why, arguments

    def _running(self, step: Step) -> str:
        """What a step hangs on that runs: its result is another than any that is known."""
        names = sorted(name for name in step.reads or step.needs if name in self.steps and name not in self.entries)
        return f": it reads what {', '.join(names)} makes" if names else ""

    def _partly(self, value: Any, step: Step) -> Any:
        """The arguments, without what is known at run time only."""
        try:
            return resolve(value, self._scope(step))
        except Unresolved:
            if isinstance(value, dict) and function_of(value) is None:
                return {name: self._partly(inner, step) for name, inner in value.items()}
            return [self._partly(inner, step) for inner in value] if isinstance(value, list) else None

    def _scope(self, step: Step) -> StepScope:
        name = jobs.name_job(self.execution, step) if step.type in jobs.MAKERS else ""
        return StepScope(self.call, self.execution, self.steps, name)

    # --- time
    def _measure(self, found: Planned, arguments: Mapping[str, Any]) -> None:
        """The instances that a step asks for, and the time that they are expected to take."""
        step, earlier = found.step, self._runs(found.step)
        found.runs = [ran_s for ran_s, _ in earlier]
        if step.type == "Tuning":
            found.uses, found.jobs = self._tuning(arguments, earlier)
            return
        found.jobs = 1
        seconds = math.ceil(math.fsum(found.runs) / len(found.runs)) if found.runs else None
        share = self.call.app.settings.spot_share if arguments.get("EnableManagedSpotTraining") else 1.0
        billed = None if seconds is None else float(max(1, math.ceil(seconds * share)))
        found.uses = [replace(use, billable_s=billed, ran_s=seconds) for use in costs.uses_of(step.type, arguments)]

    def _tuning(self, arguments: Mapping[str, Any], earlier: list[tuple[float, list[Use]]]) -> tuple[list[Use], int]:
        """A tuning job's trials: as many as it may make, each as long as those before took on average."""
        limits = (arguments.get("HyperParameterTuningJobConfig") or {}).get("ResourceLimits") or {}
        most = costs.number(limits.get("MaxNumberOfTrainingJobs")) or 0
        definitions = [arguments.get("TrainingJobDefinition"), *(arguments.get("TrainingJobDefinitions") or [])]
        types = [(each, use) for each in definitions if isinstance(each, Mapping) for use in costs.uses_of("Training", each)]
        trials = [use for _, uses in earlier for use in uses]
        mean_s = math.fsum(use.ran_s or 0.0 for use in trials) / len(trials) if trials else None
        found = []
        for each, use in types:  # algorithms that compete are taken to have an equal share
            share = self.call.app.settings.spot_share if each.get("EnableManagedSpotTraining") else 1.0
            seconds = None if mean_s is None else mean_s * most / len(types)
            found.append(replace(use, billable_s=None if seconds is None else float(math.ceil(seconds * share)), ran_s=seconds))
        return found, most

    def _runs(self, step: Step) -> list[tuple[float, list[Use]]]:
        """How long earlier runs of the step took, and what was billed for each; the last one first."""
        found: list[tuple[float, list[Use]]] = []
        for execution in self.earlier:
            document = self.call.find(Ref(STEP.kind, execution.account, execution.region, f"{execution.name}/{step.name}"))
            if document is None or document.status != "Succeeded" or len(found) >= RUNS:
                continue
            store = self.call.app.store
            if execution.name not in self.made:
                self.made[execution.name] = bills.made_by(store, execution)
            jobs = bills.jobs_of(store, execution, step.name, self.made[execution.name])
            made = jobs[-1 if step.type != "Tuning" else 0 :]
            uses = [use for job in made for use in costs.billed(costs.KINDS[job.kind], job.body)]
            if uses:
                took = document.body["EndTime"] - document.body["StartTime"] if step.type == "Tuning" else uses[0].ran_s
                found.append((float(took or 0.0), uses))
        return found


def version_of(call: Call, pipeline: Document) -> Document:
    """A pipeline's latest version.

    Raises: ServiceError where it is gone.
    """
    name = f"{pipeline.body['_id']}.{pipeline.body['_version']}"
    version = call.find(Ref(VERSION.kind, pipeline.account, pipeline.region, name))
    if version is None:
        raise VERSION.error(VERSION.missing, call, name)
    return version
