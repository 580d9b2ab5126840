"""The engine of tuning jobs: each look sees which trials ended, makes new ones, and says how the whole stands.

A trial's training job is made in the same change in which the trial is noted, so it is made once or not at all. Training
jobs wake their tuning job whenever their status changes (their document's `_tuning`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.search.base import Plan, Search, Trial
from penstock.services.sagemaker import contract, nouns, orders
from penstock.services.sagemaker.training import engine as training
from penstock.services.sagemaker.training.state import JOB as TRAINING
from penstock.services.sagemaker.training.state import move_on
from penstock.services.sagemaker.tuning import rules, summaries
from penstock.services.sagemaker.tuning.events import tell
from penstock.services.sagemaker.tuning.state import JOB
from penstock.store.records import Document, Ref

BATCH = 4
"""How many training jobs one look makes: it must not hold the engine for long, and looks again at once."""
MANY = 50
"""Trials, parents' too, from which the search is asked where it holds up nobody: hundreds take it tens of milliseconds."""
LOADING_S = 0.05
"""How soon to look again for the search's library."""
LOOK_AGAIN_S = 60.0
"""Training jobs wake their tuning job; this is for the case that one did not."""
WATCH_S = 5.0
"""How often the objective of running trials is looked at, where trials may be stopped early."""
NONE_TOLD = 5
"""Trials without an objective after which the search is given up."""
ALL_FAILED = "All training jobs failed. Please take a look at the training jobs failures to get more details."
SHARED = (
    "AlgorithmSpecification", "RoleArn", "InputDataConfig", "VpcConfig", "OutputDataConfig", "StoppingCondition",
    "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining",
    "RetryStrategy", "Environment",
)  # fmt: skip
"""The members of a definition that each of its training jobs has as they are."""
METRIC = "_tuning_objective_metric"


def advance(call: Call, document: Document) -> float | None:
    """One look at a tuning job."""
    if document.status in nouns.FINAL:
        return None
    look = Look(call, document)
    look.follow()
    if look.closes():
        look.stop()
    else:
        look.watch()
        look.begin()
    return look.conclude()


def give_up(call: Call, document: Document) -> float | None:
    """Ends a tuning job whose looks raise whatever is done; its training jobs that run are asked to stop."""
    if document.status in nouns.FINAL:
        return None
    look = Look(call, document)
    look.stop()
    document.body["FailureReason"] = contract.INTERNAL_REASON
    document.body["HyperParameterTuningEndTime"] = call.now
    JOB.move(call, document, "Failed")
    tell(call, document)
    return None


def _trains(job: Document) -> bool:
    return job.status == "InProgress" and "TrainingStartTime" in job.body


STEPS = {JOB.kind: advance}
GIVE_UP = {JOB.kind: give_up}


class Look:
    """One look at one tuning job: its trials, and what is found and done."""

    def __init__(self, call: Call, document: Document):
        self.call, self.document, self.body = call, document, document.body
        self.entries: list[dict[str, Any]] = document.body["_trials"]
        self.changed = False
        self.again: float | None = LOOK_AGAIN_S

    def job(self, entry: dict[str, Any]) -> Document | None:
        return self.call.find(Ref(TRAINING.kind, self.document.account, self.document.region, entry["job"]))

    @property
    def running(self) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if not rules.ended(entry)]

    # --- what became of the trials
    def follow(self) -> None:
        """Notes how the training jobs that ran stand now, and their objective when they have ended."""
        for entry in self.running:
            job = self.job(entry)
            status = job.status if job else "Failed"
            if status == entry["s"]:
                continue
            entry["s"], self.changed = status, True
            if job is not None and rules.ended(entry):
                entry["o"] = self.objective(entry, job)

    def objective(self, entry: dict[str, Any], job: Document) -> float | None:
        """The last value of the objective that the training job told, unless it failed."""
        if job.status == "Failed":
            return None
        wanted = self.goal(entry)["MetricName"]
        found = job.body.get("FinalMetricDataList", [])
        return next((float(metric["Value"]) for metric in found if metric["MetricName"] == wanted), None)

    def goal(self, entry: dict[str, Any]) -> dict[str, str]:
        return rules.objective(self.body, rules.definitions(self.body)[entry["d"]])

    # --- ending
    def closes(self) -> bool:
        """Whether no further trial is to be made: the search was stopped, is over, or cannot go on."""
        if self.document.status == "Stopping" or "_closing" in self.body:
            return True
        if fault := self._hopeless():
            self.close("Failed", fault)
        elif rules.reached(self.body, self.entries) or self._out_of_time():
            self.close("Completed")
        return "_closing" in self.body

    def close(self, status: str, fault: str = "") -> None:
        self.body["_closing"], self.changed = status, True
        if fault:
            self.body["FailureReason"] = contract.clip(fault, contract.REASON_CHARS)

    def _out_of_time(self) -> bool:
        most = self.body["HyperParameterTuningJobConfig"]["ResourceLimits"].get("MaxRuntimeInSeconds")
        if most is None:
            return False
        left: float = self.document.created + most - self.call.now
        self.again = min(LOOK_AGAIN_S, max(left, 0.0))
        return left <= 0

    def _hopeless(self) -> str:
        """Why the search fails, empty where it does not: nothing tells what it searches for."""
        ended = [entry for entry in self.entries if rules.ended(entry)]
        if any(entry["o"] is not None for entry in ended):
            return ""
        over = len(ended) == len(self.entries) >= rules.most_trials(self.body)
        completed = [entry for entry in ended if entry["s"] == "Completed"]
        if completed and (len(completed) >= NONE_TOLD or over):
            goal, definition = self.goal(completed[0]), rules.definitions(self.body)[completed[0]["d"]]
            metrics = definition["AlgorithmSpecification"].get("MetricDefinitions", [])
            regex = next((rules.told(metric["Regex"]) for metric in metrics if metric["Name"] == goal["MetricName"]), "")
            return (
                f"No objective metrics found after running {len(completed)} training jobs. Please ensure that the custom algorithm "
                f"is emitting the objective metric {goal['MetricName']} as defined by the regular expression provided{regex}."
            )
        return ALL_FAILED if over and ended else ""

    def stop(self, doomed: Sequence[dict[str, Any]] | None = None) -> None:
        """Asks running training jobs to stop, once."""
        for entry in self.running if doomed is None else doomed:
            job = self.job(entry)
            if job is not None and job.status == "InProgress":
                move_on(job.body, "Stopping", self.call.now)
                orders.stop(self.call, TRAINING, job)

    # --- early stopping
    def watch(self) -> None:
        """Stops running trials whose objective, so far, is worse than others' was."""
        config = self.body["HyperParameterTuningJobConfig"]
        early = config["Strategy"] == "Hyperband" or config.get("TrainingJobEarlyStoppingType") == "Auto"
        search: Search | None = self.call.app.search.ready() if early and self.running else None
        if search is None:
            return
        self.again = min(self.again or WATCH_S, WATCH_S)
        watched = [(entry, job) for entry in self.running if (job := self.job(entry)) is not None and _trains(job)]
        if not watched:
            return
        if len(self.entries) > MANY:
            self.call.take_time()
        running = [self.told(entry, job) for entry, job in watched]
        curves = [self.curve(entry) for entry in self.entries if rules.ended(entry) and entry["o"] is not None]
        verdicts = search.hopeless(rules.plan(self.body, self.document.arn), curves, running)
        self.stop([entry for (entry, _), doomed in zip(watched, verdicts, strict=True) if doomed])

    def told(self, entry: dict[str, Any], job: Document) -> list[float]:
        """The values that a running trial's objective had so far."""
        series = training.read_metrics(self.call, job).get(self.goal(entry)["MetricName"], [])
        return [value for _, value, _ in series]

    def curve(self, entry: dict[str, Any]) -> list[float]:
        """The values that an ended trial's objective had, one after another."""
        arn = TRAINING.arn_of(self.call, entry["job"])
        points = self.call.app.store.points(f"{arn}/{self.goal(entry)['MetricName']}")
        return [value for _, value, _ in points]

    # --- beginning
    def begin(self) -> None:
        """Makes as many trials as may run at once."""
        limits = self.body["HyperParameterTuningJobConfig"]["ResourceLimits"]
        most = rules.most_trials(self.body)
        for _ in range(BATCH):
            if len(self.running) >= limits["MaxParallelTrainingJobs"] or len(self.entries) >= most:
                return
            trial = self.suggest()
            if trial is None:
                self.again = LOADING_S
                return
            if not self.make(trial):
                return
        self.again = 0.0

    def suggest(self) -> Trial | None:
        """The next trial; None while the search's library is being imported."""
        if self.body["HyperParameterTuningJobConfig"]["Strategy"] == "Grid":
            return rules.grid_trial(self.body, len(self.entries))
        search: Search | None = self.call.app.search.ready()
        if search is None:
            return None
        if len(self.entries) + len(self.plan.parents) > MANY:
            self.call.take_time()
        return search.suggest(f"{self.document.arn}/{self.document.created}", self.plan, rules.trials(self.entries))

    @cached_property
    def plan(self) -> Plan:
        """What the search is asked, the same for all trials of a look."""
        return rules.plan(self.body, self.document.arn, self.parents())

    def parents(self) -> list[Trial]:
        """The trials of the searches that this one goes on from, as far as their definitions are in this one."""
        found: list[Trial] = []
        names = [definition.get("DefinitionName", "") for definition in rules.definitions(self.body)]
        for parent in self.body.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", []):
            document = JOB.find(self.call, parent["HyperParameterTuningJobName"])
            if document is None:
                continue
            theirs = [definition.get("DefinitionName", "") for definition in rules.definitions(document.body)]
            for trial in rules.trials(document.body["_trials"]):
                name = theirs[trial.algorithm]
                if trial.value is not None and name in names:
                    found.append(Trial(names.index(name), trial.values, trial.state, trial.value))
        return found

    def make(self, trial: Trial) -> bool:
        """Makes a trial's training job and notes the trial; whether it could."""
        name = rules.name_trial(self.document.name, len(self.entries), self.document.arn)
        try:
            with self.call.attempt():
                self.call.other("sagemaker", "CreateTrainingJob", **self.members(trial, name))
        except ServiceError as fault:
            self.close("Failed", f"ClientError: {fault.message}")
            self.again = 0.0
            return False
        made = next(put for put in reversed(self.call.change.puts) if put.kind == TRAINING.kind and put.name == name)
        made.parent = self.document.name
        made.body |= {
            "TuningJobArn": self.document.arn,
            "_tuning": [self.document.account, self.document.region, self.document.name],
        }
        self.entries.append({"job": name, "d": trial.algorithm, "v": dict(trial.values), "s": made.status, "o": None})
        self.changed = True
        return True

    def members(self, trial: Trial, name: str) -> dict[str, Any]:
        """What the training job is made of."""
        definition = rules.definitions(self.body)[trial.algorithm]
        given = {member: definition[member] for member in SHARED if member in definition}
        given |= {"TrainingJobName": name, "ResourceConfig": rules.resources(definition)}
        goal = rules.objective(self.body, definition)["MetricName"]
        given["HyperParameters"] = {METRIC: goal, **definition.get("StaticHyperParameters", {}), **trial.values}
        if checkpoints := definition.get("CheckpointConfig"):
            given["CheckpointConfig"] = {**checkpoints, "S3Uri": f"{checkpoints['S3Uri'].rstrip('/')}/{name}"}
        return given

    # --- how it stands
    def conclude(self) -> float | None:
        """Ends the tuning job when nothing runs and nothing more is to be made; gives when to look again."""
        over = len(self.entries) >= rules.most_trials(self.body) or self.closes()
        if self.changed:
            self._show()
        if self.running or not over:
            if self.changed:
                JOB.save(self.call, self.document)
            return self.again
        closing = self.body.pop("_closing", "Completed")
        status = "Stopped" if self.document.status == "Stopping" else closing
        self.body["HyperParameterTuningEndTime"] = self.call.now
        self.body["ConsumedResources"] = {"RuntimeInSeconds": int(self.call.now - self.document.created)}
        JOB.move(self.call, self.document, status)
        tell(self.call, self.document)
        return None

    def _show(self) -> None:
        """The members of Describe that follow from the trials."""
        maximize = rules.maximizes(self.body)
        self.body |= rules.counters(self.entries)
        self.body["TuningJobCompletionDetails"] = {
            "NumberOfTrainingJobsObjectiveNotImproving": rules.not_improving(self.entries, maximize)
        }
        number = rules.best(self.entries, maximize)
        if number is not None and (job := self.job(self.entries[number])):
            self.body["BestTrainingJob"] = summaries.of_trial(self.document, self.entries[number], job)
