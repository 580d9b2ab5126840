"""Tuning jobs, look by look: on a real store, with training jobs that end when the test says so."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from penstock.kernel.call import Long
from penstock.kernel.errors import ServiceError
from penstock.search.base import Plan, Trial
from penstock.search.bayesian import open_search
from penstock.store.records import Change, Document, Ref
from tests.conftest import World

ROLE = "arn:aws:iam::123456789012:role/SageMakerExecutionRole"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1"
DEFINITION: dict[str, Any] = {
    "AlgorithmSpecification": {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "score", "Regex": "score: ([0-9.]+)"}],
    },
    "RoleArn": ROLE,
    "OutputDataConfig": {"S3OutputPath": "s3://data/out"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
    "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    "StaticHyperParameters": {"epochs": "3"},
}
RANGES: dict[str, Any] = {
    "ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0.001", "MaxValue": "1"}],
    "CategoricalParameterRanges": [{"Name": "kernel", "Values": ["rbf", "linear"]}],
}
GRID: dict[str, Any] = {
    "CategoricalParameterRanges": [{"Name": "a", "Values": ["1", "2", "3"]}, {"Name": "b", "Values": ["x", "y"]}]
}


ONE: dict[str, Any] = {"CategoricalParameterRanges": [{"Name": "a", "Values": ["1"]}]}
GONE = {"HyperParameterTuningJobName": "gone"}


class Ready:
    """A search that needs no import, and says what the test wants of running trials."""

    def __init__(self) -> None:
        self.search, self.dooms, self.asked = open_search(), False, 0

    def ready(self) -> Ready:
        return self

    def suggest(self, name: str, plan: Plan, trials: Sequence[Trial]) -> Trial:
        return self.search.suggest(name, plan, trials)

    def hopeless(self, plan: Plan, curves: Sequence[Sequence[float]], running: Sequence[Sequence[float]]) -> list[bool]:
        self.asked += 1
        return [self.dooms] * len(running)


class Tuning:
    """A tuning job whose training jobs do what the test says."""

    def __init__(self, world: World):
        self.world, self.store = world, world.app.store
        world.app.search = self.search = Ready()

    def __call__(self, operation: str, **params: Any) -> dict[str, Any]:
        return dict(self.world("sagemaker", operation, **params) or {})

    def create(self, name: str = "tune", most: int | None = 6, parallel: int = 2, **more: Any) -> None:
        limits: dict[str, Any] = {"MaxParallelTrainingJobs": parallel}
        config = {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "score"},
            "ResourceLimits": limits if most is None else {**limits, "MaxNumberOfTrainingJobs": most},
            "ParameterRanges": RANGES,
            **more.pop("config", {}),
        }
        given = {"TrainingJobDefinition": DEFINITION, **more}
        self(
            "CreateHyperParameterTuningJob",
            HyperParameterTuningJobName=name,
            HyperParameterTuningJobConfig={member: value for member, value in config.items() if value is not None},
            **{member: value for member, value in given.items() if value is not None},
        )

    @property
    def document(self) -> Document:
        found = self.store.get(Ref("sagemaker.tuning-job", self.world.account, self.world.region, "tune"))
        assert found is not None
        return found

    def describe(self, name: str = "tune") -> dict[str, Any]:
        return self("DescribeHyperParameterTuningJob", HyperParameterTuningJobName=name)

    def listed(self, **params: Any) -> list[dict[str, Any]]:
        answer = self(
            "ListTrainingJobsForHyperParameterTuningJob", HyperParameterTuningJobName="tune", MaxResults=100, **params
        )
        return list(answer["TrainingJobSummaries"])

    def look(self) -> float | None:
        while (again := self.world.step(self.document)) == 0.0:
            pass
        return again

    def running(self) -> list[str]:
        return [one["TrainingJobName"] for one in self.listed() if one["TrainingJobStatus"] in ("InProgress", "Stopping")]

    def end(self, name: str, score: float | None, status: str = "Completed") -> None:
        job = self.store.get(Ref("sagemaker.training-job", self.world.account, self.world.region, name))
        assert job is not None
        job.status = job.body["TrainingJobStatus"] = status
        if score is not None:
            job.body["FinalMetricDataList"] = [{"MetricName": "score", "Value": score, "Timestamp": 1.0}]
        self.store.commit(Change(puts=[job]))

    def run(self, score: Any = lambda number: float(number)) -> dict[str, Any]:
        """Lets all trials end, each with the score of its number, until the tuning job does."""
        for number in itertools.count():
            if self.look() is None:
                return self.describe()
            self.end(self.running()[0], score(number))
        raise AssertionError


@pytest.fixture
def tuning(world: World) -> Tuning:
    return Tuning(world)


def refusal(call: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        call()
    return f"{caught.value.code}: {caught.value.message}"


def test_as_many_trials_run_as_may(tuning: Tuning) -> None:
    tuning.create(parallel=2)
    tuning.look()
    tuning.look()
    assert len(tuning.running()) == 2
    tuning.end(tuning.running()[0], 0.5)
    tuning.look()
    assert len(tuning.running()) == 2
    assert len(tuning.listed()) == 3


def test_the_best_trial_is_named_and_all_are_counted(tuning: Tuning) -> None:
    tuning.create(most=6)
    told = tuning.run(lambda number: [0.1, 0.9, 0.4, None, 0.2, 0.3][number])
    assert told["HyperParameterTuningJobStatus"] == "Completed"
    assert told["TrainingJobStatusCounters"] == {
        "Completed": 6, "InProgress": 0, "RetryableError": 0, "NonRetryableError": 0, "Stopped": 0
    }  # fmt: skip
    assert told["ObjectiveStatusCounters"] == {"Succeeded": 5, "Pending": 0, "Failed": 1}
    best = told["BestTrainingJob"]
    assert best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == 0.9
    by_score = tuning.listed(SortBy="FinalObjectiveMetricValue", SortOrder="Descending")
    assert by_score[0]["TrainingJobName"] == best["TrainingJobName"]
    assert len(by_score) == 5


def test_a_training_job_has_static_and_tuned_hyperparameters_and_its_tuning_job(tuning: Tuning) -> None:
    tuning.create(most=1, parallel=1)
    tuning.look()
    (name,) = tuning.running()
    assert name.startswith("tune-001-")
    job = tuning("DescribeTrainingJob", TrainingJobName=name)
    assert set(job["HyperParameters"]) == {"epochs", "rate", "kernel", "_tuning_objective_metric"}
    assert job["TuningJobArn"] == tuning.describe()["HyperParameterTuningJobArn"]
    (summary,) = tuning.listed()
    assert summary["TunedHyperParameters"] == {name: job["HyperParameters"][name] for name in ("rate", "kernel")}
    assert summary["ObjectiveStatus"] == "Pending"


def test_grid_runs_each_combination_once(tuning: Tuning) -> None:
    tuning.create(most=None, parallel=3, config={"Strategy": "Grid", "ParameterRanges": GRID})
    assert tuning.run()["HyperParameterTuningJobStatus"] == "Completed"
    tried = sorted(tuple(one["TunedHyperParameters"].values()) for one in tuning.listed())
    assert tried == sorted(itertools.product("123", "xy"))


def test_algorithms_compete_in_one_tuning_job(tuning: Tuning) -> None:
    goal = {"Type": "Minimize", "MetricName": "score"}
    several = [
        {**DEFINITION, "DefinitionName": name, "TuningObjective": goal, "HyperParameterRanges": RANGES}
        for name in ("forest", "linear")
    ]
    config = {"HyperParameterTuningJobObjective": None, "ParameterRanges": None}
    tuning.create(config=config, TrainingJobDefinition=None, TrainingJobDefinitions=several)
    told = tuning.run()
    assert {one["TrainingJobDefinitionName"] for one in tuning.listed()} == {"forest", "linear"}
    assert told["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == 0.0


def test_a_stop_stops_the_trials_and_then_the_search(tuning: Tuning) -> None:
    tuning.create(parallel=2)
    tuning.look()
    tuning("StopHyperParameterTuningJob", HyperParameterTuningJobName="tune")
    tuning.look()
    jobs = [tuning("DescribeTrainingJob", TrainingJobName=name)["TrainingJobStatus"] for name in tuning.running()]
    assert jobs == ["Stopping", "Stopping"]
    for name in tuning.running():
        tuning.end(name, None, "Stopped")
    assert tuning.look() is None
    assert tuning.describe()["HyperParameterTuningJobStatus"] == "Stopped"
    told = refusal(lambda: tuning("StopHyperParameterTuningJob", HyperParameterTuningJobName="tune"))
    assert told == "ValidationException: The request was rejected because the hyperparameter tuning job is in status Stopped."


@pytest.mark.parametrize(("criteria", "made"), [
    ({"TargetObjectiveMetricValue": 2.0}, 3),
    ({"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}}, 8),
])  # fmt: skip
def test_a_search_ends_when_its_criterion_holds(tuning: Tuning, criteria: dict[str, Any], made: int) -> None:
    tuning.create(most=50, parallel=1, config={"TuningJobCompletionCriteria": criteria})
    told = tuning.run(lambda number: min(number, 4))
    assert told["HyperParameterTuningJobStatus"] == "Completed"
    assert len(tuning.listed()) == made


def test_a_search_ends_when_its_time_is_over(tuning: Tuning) -> None:
    tuning.create(config={"ResourceLimits": {"MaxNumberOfTrainingJobs": 9, "MaxParallelTrainingJobs": 1, "MaxRuntimeInSeconds": 120}})
    tuning.look()
    document = tuning.document
    document.created -= 121
    tuning.store.commit(Change(puts=[document]))
    tuning.look()
    (name,) = tuning.running()
    tuning.end(name, 1.0, "Stopped")
    assert tuning.look() is None
    assert tuning.describe()["HyperParameterTuningJobStatus"] == "Completed"


def test_an_objective_that_never_appears_fails_the_search_with_its_expression(tuning: Tuning) -> None:
    tuning.create(most=9, parallel=1)
    told = tuning.run(lambda number: None)
    assert told["HyperParameterTuningJobStatus"] == "Failed"
    assert told["FailureReason"].startswith("No objective metrics found after running 5 training jobs.")
    assert "score" in told["FailureReason"]
    assert told["FailureReason"].endswith("(score: ([0-9.]+)).")


@pytest.mark.parametrize(
    ("expression", "why"), [("score: [0-9]+", "it has no group"), ("score: (", "it is no regular expression: missing )")]
)
def test_an_expression_that_can_find_no_number_is_told_so(tuning: Tuning, expression: str, why: str) -> None:
    definition = copy.deepcopy(DEFINITION)
    definition["AlgorithmSpecification"]["MetricDefinitions"][0]["Regex"] = expression
    tuning.create(most=1, parallel=1, TrainingJobDefinition=definition)
    assert why in tuning.run(lambda number: None)["FailureReason"]


def test_a_search_whose_trials_all_fail_fails(tuning: Tuning) -> None:
    tuning.create(most=2, parallel=2)
    tuning.look()
    for name in tuning.running():
        tuning.end(name, None, "Failed")
    assert tuning.look() is None
    told = tuning.describe()
    assert told["HyperParameterTuningJobStatus"] == "Failed"
    assert told["FailureReason"].startswith("All training jobs failed.")
    assert told["TrainingJobStatusCounters"]["NonRetryableError"] == 2


def test_a_training_job_that_cannot_be_made_fails_the_search_with_its_reason(tuning: Tuning) -> None:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data/nothing"}}
    definition = {**DEFINITION, "InputDataConfig": [{"ChannelName": "train", "DataSource": source}]}
    tuning.create(TrainingJobDefinition=definition)
    tuning.look()
    told = tuning.describe()
    assert told["HyperParameterTuningJobStatus"] == "Failed"
    assert 'No S3 objects found under S3 URL "s3://data/nothing"' in told["FailureReason"]
    assert tuning("ListTrainingJobs")["TrainingJobSummaries"] == []


def test_early_stopping_stops_what_is_hopeless(tuning: Tuning) -> None:
    tuning.create(parallel=1, config={"TrainingJobEarlyStoppingType": "Auto"})
    tuning.look()
    (name,) = tuning.running()
    job = tuning.store.get(Ref("sagemaker.training-job", tuning.world.account, tuning.world.region, name))
    assert job is not None
    job.body["TrainingStartTime"] = 1.0
    tuning.store.commit(Change(puts=[job]))
    tuning.look()
    assert tuning("DescribeTrainingJob", TrainingJobName=name)["TrainingJobStatus"] == "InProgress"
    tuning.search.dooms = True
    tuning.look()
    assert tuning("DescribeTrainingJob", TrainingJobName=name)["TrainingJobStatus"] == "Stopping"


def test_a_search_of_many_trials_is_asked_beside_the_engines_steps(tuning: Tuning) -> None:
    tuning.create(most=100, parallel=2)
    document = tuning.document
    document.body["_trials"] = [
        {"job": f"old-{number}", "d": 0, "v": {"rate": "0.1", "kernel": "rbf"}, "s": "Completed", "o": 0.5}
        for number in range(60)
    ]
    tuning.store.commit(Change(puts=[document]))
    step = tuning.world.app.steps()["sagemaker.tuning-job"]
    call = tuning.world.app.step_call(tuning.document, 1.0)
    with pytest.raises(Long):
        step(call, tuning.document)
    tuning.look()
    assert len(tuning.document.body["_trials"]) == 62


def test_running_trials_are_judged_together(tuning: Tuning) -> None:
    tuning.create(parallel=3, config={"TrainingJobEarlyStoppingType": "Auto"})
    tuning.look()
    for name in tuning.running():
        job = tuning.store.get(Ref("sagemaker.training-job", tuning.world.account, tuning.world.region, name))
        assert job is not None
        job.body["TrainingStartTime"] = 1.0
        tuning.store.commit(Change(puts=[job]))
    tuning.world.step(tuning.document)
    assert tuning.search.asked == 1


def test_a_warm_start_hands_over_the_trials_of_its_parents(tuning: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.create(most=3, parallel=1)
    tuning.run()
    plans: list[Plan] = []
    search = tuning.search.search
    monkeypatch.setattr(
        tuning.search, "suggest", lambda name, plan, trials: plans.append(plan) or search.suggest(name, plan, trials)
    )
    parents = [{"HyperParameterTuningJobName": "tune"}]
    warm = {"WarmStartType": "IdenticalDataAndAlgorithm", "ParentHyperParameterTuningJobs": parents}
    tuning.create("child", WarmStartConfig=warm)
    child = tuning.store.get(Ref("sagemaker.tuning-job", tuning.world.account, tuning.world.region, "child"))
    assert child is not None
    tuning.world.step(child)
    assert [trial.value for trial in plans[0].parents] == [0.0, 1.0, 2.0]


def test_a_look_that_is_repeated_makes_the_same_trials(tuning: Tuning) -> None:
    """As after a kill before the change was durable."""
    tuning.create()
    document, again = tuning.document, copy.deepcopy(tuning.document)
    first = tuning.world.app.step_call(document, 1.0)
    step = tuning.world.app.steps()["sagemaker.tuning-job"]
    step(first, document)
    second = tuning.world.app.step_call(again, 2.0)
    step(second, again)
    first_jobs, second_jobs = (
        [put.name for put in call.change.puts if put.kind == "sagemaker.training-job"] for call in (first, second)
    )
    assert first_jobs == second_jobs
    assert document.body["_trials"] == again.body["_trials"]


def test_the_preferred_instances_of_several_are_taken(tuning: Tuning) -> None:
    flexible = {
        "AllocationStrategy": "Prioritized",
        "InstanceConfigs": [
            {"InstanceType": kind, "InstanceCount": 1, "VolumeSizeInGB": 5} for kind in ("ml.c5.xlarge", "ml.m5.large")
        ],
    }
    definition = {name: value for name, value in DEFINITION.items() if name != "ResourceConfig"}
    tuning.create(TrainingJobDefinition={**definition, "HyperParameterTuningResourceConfig": flexible})
    tuning.look()
    job = tuning("DescribeTrainingJob", TrainingJobName=tuning.running()[0])
    assert job["ResourceConfig"] == flexible["InstanceConfigs"][0]


def test_a_search_whose_looks_raise_for_ever_is_given_up(tuning: Tuning) -> None:
    tuning.create(parallel=2)
    tuning.look()
    call = tuning.world.app.step_call(tuning.document, 9.0)
    document = tuning.document
    tuning.world.app.give_up()["sagemaker.tuning-job"](call, document)
    tuning.store.commit(call.change)
    assert tuning.describe()["HyperParameterTuningJobStatus"] == "Failed"
    assert tuning.describe()["FailureReason"].startswith("InternalServerError")
    assert {one["TrainingJobStatus"] for one in tuning.listed()} == {"Stopping"}


def continuous(**members: str) -> dict[str, Any]:
    return {"ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0", "MaxValue": "1", **members}]}


@pytest.mark.parametrize(("config", "members", "told"), [
    ({"Strategy": "Grid"}, {}, "Grid takes categorical ranges only, and these are others: rate (continuous)."),
    ({"Strategy": "Grid", "ParameterRanges": ONE}, {}, "MaxNumberOfTrainingJobs is 6, and there are 1"),
    ({"Strategy": "Hyperband", "TrainingJobEarlyStoppingType": "Auto"}, {}, "TrainingJobEarlyStoppingType must be Off"),
    ({"HyperParameterTuningJobObjective": None}, {}, "A tuning job needs an objective"),
    ({"HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "auc"}}, {}, "auc is not one of the MetricDefinitions: score"),
    ({"ParameterRanges": {}}, {}, "searches 1 to 30 hyperparameters; 0 are given"),
    ({"ParameterRanges": continuous(MinValue="2")}, {}, "MinValue 2 is greater than MaxValue 1"),
    ({"ParameterRanges": continuous(MinValue="low")}, {}, "'low' is no number"),
    ({"ParameterRanges": continuous(ScalingType="Logarithmic")}, {}, "ScalingType Logarithmic takes values greater than 0"),
    ({"ParameterRanges": continuous(ScalingType="ReverseLogarithmic")}, {}, "from 0 up to, not including, 1"),
    ({"ParameterRanges": {"IntegerParameterRanges": [{"Name": "n", "MinValue": "1.5", "MaxValue": "3"}]}}, {}, "'1.5' is no whole number"),
    ({"ParameterRanges": {"AutoParameters": [{"Name": "n", "ValueHint": "1"}]}}, {}, "AutoParameters are not served"),
    ({}, {"TrainingJobDefinition": {**DEFINITION, "StaticHyperParameters": {"rate": "1"}}},
     "given more than once, as a range or as static: rate"),
    ({}, {"TrainingJobDefinition": None}, "exactly one of TrainingJobDefinition and TrainingJobDefinitions"),
    ({}, {"TrainingJobDefinition": None, "TrainingJobDefinitions": [DEFINITION]}, "needs a DefinitionName of its own"),
    ({}, {"Autotune": {"Mode": "Enabled"}}, "Autotune is not served"),
    ({}, {"WarmStartConfig": {"WarmStartType": "TransferLearning", "ParentHyperParameterTuningJobs": [GONE]}},
     "The parent tuning job gone is not there, or has not ended."),
    ({}, {"TrainingJobDefinition": {**DEFINITION, "RoleArn": ROLE + "x"}}, "Could not assume role"),
])  # fmt: skip
def test_what_cannot_be_searched_is_refused(tuning: Tuning, config: dict[str, Any], members: dict[str, Any], told: str) -> None:
    assert told in refusal(lambda: tuning.create(config=config, **members))


def test_names_are_taken_once_and_what_is_missing_is_said(tuning: Tuning) -> None:
    tuning.create()
    assert refusal(tuning.create).startswith("ResourceInUse: ")
    assert refusal(lambda: tuning.describe("other")).startswith("ResourceNotFound: ")
    told = refusal(lambda: tuning("DeleteHyperParameterTuningJob", HyperParameterTuningJobName="tune"))
    assert told.startswith("ResourceInUse: ")


def test_lists_show_strategy_and_limits(tuning: Tuning) -> None:
    tuning.create()
    (one,) = tuning("ListHyperParameterTuningJobs")["HyperParameterTuningJobSummaries"]
    assert (one["Strategy"], one["ResourceLimits"]["MaxNumberOfTrainingJobs"]) == ("Bayesian", 6)
