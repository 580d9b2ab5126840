"""Managed spot training: engine steps with a stand-in for the executor and a clock that stands still."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.kernel import auth
from penstock.kernel.clock import FakeClock
from penstock.runs.base import RunState
from penstock.services.sagemaker import faults, jobs
from penstock.store.records import Change, Document
from tests.conftest import World
from tests.unit.test_jobs_engine import BUCKET, Jobs, files, refusal, result

SPOT = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 1000},
    "CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/ckpt"},
}


class Spot(Jobs):
    """A world in which time is told what it is."""

    def __init__(self, world: World):
        super().__init__(world)
        self.clock = world.app.clock = FakeClock()

    def begin(self, **more: Any) -> Document:
        """A spot job whose program runs."""
        document = self.train(**{**SPOT, **more})
        self.step(document)
        self.now_is("running", started=self.clock.now())
        self.step(document)
        return document

    def now_is(self, phase: str, **members: Any) -> None:
        self.runs.states[self.body["_run"]] = RunState(phase, **members)

    def interrupt(self, after_s: float = 0.0, gap_s: float = 0.0) -> None:
        fault = faults.make(self.world.account, "f1", "spot-interruption", "job", 1, self.clock.now(), after_s, gap_s)
        self.world.app.store.commit(Change(puts=[fault]))

    @property
    def body(self) -> dict[str, Any]:
        return self.document("training-job").body

    def statuses(self) -> list[str]:
        return [each["Status"] for each in self.body["SecondaryStatusTransitions"]]


@pytest.fixture
def spot(world: World) -> Spot:
    return Spot(world)


def taken_back(spot: Spot, document: Document, ran_s: float, *results: Any, gap_s: float = 0.0) -> str:
    """Interrupts the running program after some seconds; gives the name of the run that ended."""
    run, started = spot.body["_run"], spot.clock.now()
    spot.interrupt(gap_s=gap_s)
    spot.clock.move(ran_s)
    assert spot.step(document) == 0.0
    spot.step(document)
    assert spot.runs.calls[-1] == ("stop", run)
    spot.now_is("ended", exit_code=143, reason="interrupted", started=started, ended=spot.clock.now(), results=list(results))
    assert spot.step(document) == 0.0
    return str(run)


def test_an_interrupted_job_goes_on_from_its_checkpoints_and_is_billed_for_a_part(spot: Spot):
    document = spot.begin()
    past = taken_back(spot, document, 100, result("checkpoints", "epoch-1", b"1"), result("model", "", b"half"))
    assert spot.get("ckpt/epoch-1") == b"1"
    assert spot.world.app.store.object(BUCKET, "out/job/output/model.tar.gz") is None
    spot.step(document)
    assert ("forget", past) in spot.runs.calls
    second = spot.runs.specs[spot.body["_run"]]
    assert files(second.inputs)["/opt/ml/checkpoints/epoch-1"] == b"1"
    assert second.timeout_s == 500
    spot.now_is("ended", exit_code=0, started=spot.clock.now(), ended=spot.clock.now() + 300)
    spot.step(document)
    assert spot.statuses() == [
        "Starting", "Downloading", "Training", "Interrupted", "Starting", "Downloading", "Training", "Uploading", "Completed",
    ]  # fmt: skip
    told = spot.world("sagemaker", "DescribeTrainingJob", TrainingJobName="job")
    assert (told["TrainingJobStatus"], told["TrainingTimeInSeconds"], told["BillableTimeInSeconds"]) == ("Completed", 400, 120)
    assert told["TrainingStartTime"] == document.created
    assert spot.world.app.store.page(faults.of_account(spot.world.account)) == []


def test_the_credentials_of_an_interrupted_run_end_with_it(spot: Spot):
    document = spot.begin()
    before = spot.body["_key"]
    taken_back(spot, document, 10)
    assert spot.body["_key"] != before
    assert spot.world.app.store.get(auth.key_ref(before)) is None
    assert spot.world.app.store.get(auth.key_ref(spot.body["_key"])) is not None


def test_checkpoints_that_were_restored_are_not_published_again(spot: Spot):
    spot.put("ckpt/epoch-1", "1")
    before = spot.world.app.store.object(BUCKET, "ckpt/epoch-1")
    document = spot.begin()
    spot.clock.move(60)
    found = [result("checkpoints", "epoch-1", b"1"), result("checkpoints", "epoch-2", b"2")]
    spot.now_is("running", started=1.0, results=found)
    spot.step(document)
    after = spot.world.app.store.object(BUCKET, "ckpt/epoch-1")
    assert before is not None
    assert after is not None
    assert after.modified == before.modified
    assert spot.get("ckpt/epoch-2") == b"2"


def test_the_checkpoints_of_a_job_with_a_longer_name_are_another_jobs(spot: Spot):
    spot.put("ckpt-of-another/epoch-9", "9")
    spot.begin()
    assert not [target for target in files(spot.runs.spec.inputs) if "epoch-9" in target]


def test_an_interruption_strikes_when_the_program_has_run_long_enough(spot: Spot):
    document = spot.begin()
    spot.interrupt(after_s=3.0)
    assert spot.step(document) == 3.0
    spot.clock.move(3.0)
    spot.step(document)
    spot.step(document)
    assert spot.runs.calls[-1][0] == "stop"


def test_a_program_that_ends_before_the_interruption_reaches_it_has_ended(spot: Spot):
    document = spot.begin()
    spot.interrupt()
    spot.step(document)
    spot.now_is("ended", exit_code=0, reason="exit", started=1.0, ended=2.0)
    spot.step(document)
    assert spot.body["TrainingJobStatus"] == "Completed"


def test_a_job_waits_as_long_as_there_is_no_capacity(spot: Spot):
    document = spot.begin()
    taken_back(spot, document, 10, gap_s=50.0)
    assert spot.step(document) == 50.0
    assert spot.body["SecondaryStatus"] == "Interrupted"
    spot.clock.move(50)
    assert spot.step(document) is not None
    assert spot.runs.calls[-1] == ("start", spot.body["_run"])


def test_a_job_that_waited_too_long_for_capacity_is_stopped_and_says_so(spot: Spot):
    document = spot.begin()
    taken_back(spot, document, 10, gap_s=5000.0)
    assert spot.step(document) == 990.0
    spot.clock.move(990)
    spot.step(document)
    told = spot.world("sagemaker", "DescribeTrainingJob", TrainingJobName="job")
    assert (told["TrainingJobStatus"], told["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    assert told["SecondaryStatusTransitions"][-1]["StatusMessage"] == (
        "Training job wait time exceeded MaxWaitTimeInSeconds provided"
    )
    assert (told["TrainingTimeInSeconds"], told["BillableTimeInSeconds"]) == (10, 3)


def test_a_job_that_never_began_is_stopped_when_its_wait_is_over(spot: Spot):
    spot.runs.first = RunState("waiting")
    document = spot.train(**SPOT)
    assert spot.step(document) == jobs.HEARTBEAT_S
    spot.clock.move(1000)
    assert spot.step(document) == 0.0
    assert spot.runs.calls[-1][0] == "stop"
    spot.now_is("ended", exit_code=143, reason="timeout", ended=spot.clock.now())
    spot.step(document)
    assert (spot.body["TrainingJobStatus"], spot.body["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    assert "BillableTimeInSeconds" not in spot.body


def test_the_time_to_wait_ends_a_program_that_runs_and_the_time_to_run_has_its_own_name(spot: Spot):
    document = spot.begin()
    spot.clock.move(600)
    spot.now_is("ended", exit_code=143, reason="timeout", started=spot.clock.now() - 600, ended=spot.clock.now())
    spot.step(document)
    assert spot.body["SecondaryStatus"] == "MaxRuntimeExceeded"
    late = Spot(spot.world)
    document = late.train("late", **SPOT)
    late.clock.move(900)
    late.step(document)
    (spec,) = late.runs.specs.values()
    assert spec.timeout_s == 100


def test_a_stop_reaches_a_job_that_is_being_interrupted(spot: Spot):
    document = spot.begin()
    spot.interrupt()
    spot.step(document)
    spot.step(document)
    spot.world("sagemaker", "StopTrainingJob", TrainingJobName="job")
    kept = [result("checkpoints", "epoch-1", b"1")]
    spot.now_is("ended", exit_code=143, reason="interrupted", started=1.0, ended=2.0, results=kept)
    spot.step(document)
    assert (spot.body["TrainingJobStatus"], spot.body["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert spot.get("ckpt/epoch-1") == b"1"


def test_a_stop_reaches_a_job_that_waits_for_capacity(spot: Spot):
    document = spot.begin()
    taken_back(spot, document, 10, gap_s=50.0)
    spot.world("sagemaker", "StopTrainingJob", TrainingJobName="job")
    spot.step(document)
    assert (spot.body["TrainingJobStatus"], spot.body["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert spot.body["TrainingTimeInSeconds"] == 10


def test_a_job_on_demand_is_not_interrupted(spot: Spot):
    document = spot.train()
    spot.step(document)
    spot.now_is("running", started=spot.clock.now())
    spot.interrupt()
    spot.step(document)
    spot.step(document)
    assert [call for call in spot.runs.calls if call[0] == "stop"] == []


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90}},
         "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true"),
        ({"EnableManagedSpotTraining": True},
         "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"),
        ({"EnableManagedSpotTraining": True, "StoppingCondition": {"MaxRuntimeInSeconds": 90, "MaxWaitTimeInSeconds": 60}},
         "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"),
    ],
    ids=["without-spot", "absent", "too-short"],
)  # fmt: skip
def test_a_time_to_wait_that_does_not_fit_is_refused(spot: Spot, more: dict[str, Any], sentence: str):
    assert refusal(lambda: spot.train(**more)) == ("ValidationException", sentence)
