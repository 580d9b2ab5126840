"""Retry policies of steps, by a clock that the test moves; faults on demand; quotas."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.sagemaker import contract, faults, quotas
from penstock.services.sagemaker.pipelines import retries
from penstock.services.sagemaker.pipelines.definition import Step
from penstock.services.sagemaker.pipelines.explain import explain
from penstock.services.sagemaker.pipelines.look import LOOK_AGAIN_S
from penstock.store.records import Change
from tests.unit.test_pipeline_cache import Later, cached, later, training
from tests.unit.test_pipeline_engine import TOKEN, Works, pipeline, processing, works

__all__ = ["later", "works"]
CAPACITY = faults.FAILURES["capacity"]


def policy(*kinds: str, **members: Any) -> dict[str, Any]:
    return {"ExceptionType": list(kinds), **members}


def tried(step: dict[str, Any], *policies: dict[str, Any]) -> dict[str, Any]:
    return step | {"RetryPolicies": list(policies)}


def begin(works: Works, *steps: Any, **members: Any) -> str:
    works.create(pipeline(*steps), **members)
    arn = works.start()
    works.look(arn)
    return arn


def strike(works: Works, kind: str, target: str, times: int = 1) -> None:
    made = faults.make("123456789012", f"f{kind}{target}", kind, target, times, 1.0)
    works.app.store.commit(Change(puts=[made]))


# --- a job that fails
def test_a_step_tries_again_by_its_policy_after_pauses_that_grow(works: Works, later: Later) -> None:
    step = tried(processing("A"), policy("SageMaker.CAPACITY_ERROR", IntervalSeconds=10, BackoffRate=3, MaxAttempts=2))
    arn = begin(works, step)
    names = [works.job(arn, "A").name]
    for attempt, pause_s in ((1, 10.0), (2, 30.0)):
        works.end(arn, "A", "Failed", FailureReason=CAPACITY)
        shown = works.steps(arn)["A"]
        assert (shown["StepStatus"], shown["AttemptCount"]) == ("Starting", attempt)
        assert "FailureReason" not in shown
        again = works.look(arn)
        assert again == pytest.approx(pause_s, abs=5)
        later.ahead_s += pause_s - 6
        works.look(arn)
        assert works.statuses(arn) == {"A": "Starting"}, "the pause is not over"
        later.ahead_s += 6
        works.look(arn)
        shown = works.steps(arn)["A"]
        assert (shown["StepStatus"], shown["AttemptCount"]) == ("Executing", attempt + 1)
        names.append(works.job(arn, "A").name)
    assert len(set(names)) == 3
    works.end(arn, "A", "Failed", FailureReason=CAPACITY)
    assert works.steps(arn)["A"]["FailureReason"] == f"ClientError: {CAPACITY}"
    assert works.describe(arn)["PipelineExecutionStatus"] == "Failed"
    told = [e.detail["currentStepStatus"] for e in works.events() if e.detail.get("stepName") == "A"]
    assert told == ["Executing", "Starting", "Executing", "Starting", "Executing", "Failed"]
    attempts = explain(works.app.store, works.document(arn))[0]["attempts"]
    assert [each["exception"] for each in attempts] == ["SageMaker.CAPACITY_ERROR"] * 2


def test_a_step_that_succeeds_at_last_has_the_properties_of_its_last_job(works: Works, later: Later) -> None:
    retried = tried(training("T"), policy("SageMaker.JOB_INTERNAL_ERROR", MaxAttempts=1))
    after = processing("After", Environment={"MODEL": {"Get": "Steps.T.ModelArtifacts.S3ModelArtifacts"}})
    arn = begin(works, retried, after)
    works.end(arn, "T", "Failed", FailureReason=contract.INTERNAL_REASON)
    later.ahead_s += 1
    works.look(arn)
    works.end(arn, "T", ModelArtifacts={"S3ModelArtifacts": "s3://b/second"})
    assert works.job(arn, "After").body["Environment"] == {"MODEL": "s3://b/second"}
    works.end(arn, "After")
    assert works.describe(arn)["PipelineExecutionStatus"] == "Succeeded"


@pytest.mark.parametrize(("reason", "again"), [
    (CAPACITY, True), ("AlgorithmError: exit code 1", False), (contract.INTERNAL_REASON, False), ("", False),
])  # fmt: skip
def test_only_the_kinds_of_failure_that_a_policy_names_are_tried_again(works: Works, reason: str, again: bool) -> None:
    arn = begin(works, tried(processing("A"), policy("SageMaker.CAPACITY_ERROR")))
    works.end(arn, "A", "Failed", FailureReason=reason)
    assert works.statuses(arn)["A"] == ("Starting" if again else "Failed")


def test_without_a_policy_a_failed_job_is_not_tried_again(works: Works) -> None:
    arn = begin(works, processing("A"))
    works.end(arn, "A", "Failed", FailureReason=CAPACITY)
    assert works.statuses(arn) == {"A": "Failed"}


def test_a_policy_that_expires_counts_from_the_steps_begin(works: Works, later: Later) -> None:
    arn = begin(works, tried(processing("A"), policy("SageMaker.CAPACITY_ERROR", ExpireAfterMin=10, BackoffRate=1)))
    for _ in range(8):  # more often than MaxAttempts' default
        works.end(arn, "A", "Failed", FailureReason=CAPACITY)
        later.ahead_s += 1
        works.look(arn)
    assert works.steps(arn)["A"]["AttemptCount"] == 9
    later.ahead_s += 600
    works.end(arn, "A", "Failed", FailureReason=CAPACITY)
    assert works.statuses(arn) == {"A": "Failed"}


def test_a_step_that_waits_does_not_keep_others_and_counts_as_running(works: Works, later: Later) -> None:
    steps = [tried(processing("A"), policy("SageMaker.CAPACITY_ERROR")), processing("B"), processing("C")]
    arn = begin(works, *steps, ParallelismConfiguration={"MaxParallelExecutionSteps": 2})
    works.end(arn, "A", "Failed", FailureReason=CAPACITY)
    assert works.statuses(arn) == {"A": "Starting", "B": "Executing"}
    works.end(arn, "B")
    assert works.statuses(arn) == {"A": "Starting", "B": "Succeeded", "C": "Executing"}


def test_a_stop_ends_a_step_that_waits_for_its_next_attempt(works: Works) -> None:
    arn = begin(works, tried(processing("A"), policy("SageMaker.CAPACITY_ERROR")))
    works.end(arn, "A", "Failed", FailureReason=CAPACITY)
    works("StopPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken=TOKEN)
    works.look(arn)
    assert works.statuses(arn) == {"A": "Stopped"}
    assert works.describe(arn)["PipelineExecutionStatus"] == "Stopped"


def test_a_job_that_fails_while_its_execution_stops_is_not_tried_again(works: Works) -> None:
    arn = begin(works, tried(processing("A"), policy("SageMaker.CAPACITY_ERROR")))
    works("StopPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken=TOKEN)
    works.look(arn)
    works.end(arn, "A", "Failed", FailureReason=CAPACITY)
    assert works.statuses(arn) == {"A": "Failed"}


def test_beside_a_failed_step_one_that_waits_still_makes_its_attempts(works: Works, later: Later) -> None:
    arn = begin(works, tried(processing("A"), policy("SageMaker.CAPACITY_ERROR")), processing("B"))
    works.end(arn, "A", "Failed", FailureReason=CAPACITY)
    works.end(arn, "B", "Failed", FailureReason="AlgorithmError: x")
    later.ahead_s += 1
    works.look(arn)
    assert works.statuses(arn) == {"A": "Executing", "B": "Failed"}


def test_a_retried_execution_begins_its_policies_anew(works: Works, later: Later) -> None:
    arn = begin(works, tried(processing("A"), policy("SageMaker.CAPACITY_ERROR", MaxAttempts=1)))
    works.end(arn, "A", "Failed", FailureReason=CAPACITY)
    later.ahead_s += 1
    works.look(arn)
    works.end(arn, "A", "Failed", FailureReason=CAPACITY)
    works("RetryPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken=TOKEN)
    works.look(arn)
    works.end(arn, "A", "Failed", FailureReason=CAPACITY)
    assert works.statuses(arn) == {"A": "Starting"}


def test_the_result_of_a_later_attempt_is_cached(works: Works, later: Later) -> None:
    step = tried(cached("A"), policy("SageMaker.CAPACITY_ERROR"))
    first = begin(works, step)
    works.end(first, "A", "Failed", FailureReason=CAPACITY)
    later.ahead_s += 1
    works.look(first)
    works.end(first, "A")
    second = works.start()
    works.look(second)
    assert works.steps(second)["A"]["CacheHitResult"] == {"SourcePipelineExecutionArn": first}
    assert works.steps(second)["A"]["Metadata"] == works.steps(first)["A"]["Metadata"]


# --- calls that fail
@pytest.mark.parametrize("fault", ["throttling", "service-fault"])
def test_throttling_and_service_faults_are_tried_again_without_a_policy(works: Works, later: Later, fault: str) -> None:
    strike(works, fault, "A", 2)
    arn = begin(works, processing("A"))
    for pause_s in (1.0, 2.0):
        assert works.statuses(arn) == {"A": "Starting"}
        later.ahead_s += pause_s
        works.look(arn)
    assert works.steps(arn)["A"]["AttemptCount"] == 3
    works.end(arn, "A")
    assert works.describe(arn)["PipelineExecutionStatus"] == "Succeeded"


def test_they_are_given_up_after_five_more_attempts(works: Works, later: Later) -> None:
    strike(works, "throttling", "*", 9)
    arn = begin(works, processing("A"))
    for _ in range(6):
        later.ahead_s += 16
        works.look(arn)
    shown = works.steps(arn)["A"]
    assert (shown["StepStatus"], shown["AttemptCount"]) == ("Failed", 6)
    assert shown["FailureReason"].endswith("Error Details: Rate exceeded")
    assert works.app.store.page(faults.of_account("123456789012"))[0].body["Left"] == 3


def test_a_policy_may_forbid_what_is_tried_again_otherwise(works: Works) -> None:
    strike(works, "throttling", "A")
    arn = begin(works, tried(processing("A"), policy("Step.THROTTLING", MaxAttempts=0)))
    assert works.statuses(arn) == {"A": "Failed"}


def test_a_limit_is_tried_again_only_by_a_policy(works: Works, later: Later) -> None:
    strike(works, "resource-limit", "?", 2)
    steps = [
        tried(processing("A"), {"ExceptionType": "SageMaker.RESOURCE_LIMIT", "IntervalSeconds": 600}),
        processing("B"),
    ]
    arn = begin(works, *steps)
    assert works.statuses(arn) == {"A": "Starting", "B": "Failed"}
    assert works.look(arn) == LOOK_AGAIN_S
    later.ahead_s += 600
    works.look(arn)
    assert works.statuses(arn) == {"A": "Executing", "B": "Failed"}


def test_what_a_client_did_wrong_is_not_tried_again(works: Works) -> None:
    step = processing("A", AppSpecification={"ImageUri": "python:3", "ContainerArguments": [""] * 101})
    arn = begin(
        works, tried(step, policy(*(k for k in vars(retries).values() if str(k).startswith(("Step.", "SageMaker.")))))
    )
    assert works.statuses(arn) == {"A": "Failed"}


def test_a_look_that_was_lost_meets_the_same_fault_again(works: Works) -> None:
    strike(works, "throttling", "A", 1)
    works.create(pipeline(processing("A")))
    arn = works.start()
    execution = works.document(arn)
    lost = works.app.step_call(execution, works.app.clock.now())
    works.app.steps()["sagemaker.pipeline-execution"](lost, execution)
    works.look(arn)
    assert works.statuses(arn) == {"A": "Starting"}
    assert works.app.store.page(faults.of_account("123456789012")) == []


# --- which exception it is
@pytest.mark.parametrize(("fault", "kind"), [
    (ServiceError("ThrottlingException", ""), "Step.THROTTLING"),
    (ServiceError("InternalFailure", "", 500), "Step.SERVICE_FAULT"),
    (ServiceError("ServiceUnavailable", "", 503), "Step.SERVICE_FAULT"),
    (ServiceError("ResourceLimitExceeded", ""), "SageMaker.RESOURCE_LIMIT"),
    (ServiceError("NotImplemented", "", 501), None),
    (ServiceError("ValidationException", ""), None),
])  # fmt: skip
def test_the_errors_of_operations_are_kinds_of_exceptions(fault: ServiceError, kind: str | None) -> None:
    assert retries.kind_of_error(fault) == kind


@pytest.mark.parametrize("kind", ["Tuning", "AutoML"])
def test_jobs_that_try_again_by_themselves_are_not_tried_again_after_an_internal_error(kind: str) -> None:
    step = Step(
        "S", kind, {}, raw={"RetryPolicies": [policy("SageMaker.JOB_INTERNAL_ERROR", "SageMaker.CAPACITY_ERROR")]}
    )
    assert retries.pause(step, {"began": 0.0}, "SageMaker.JOB_INTERNAL_ERROR", 1.0) is None
    assert retries.pause(step, {"began": 0.0}, "SageMaker.CAPACITY_ERROR", 1.0) == (0, 1.0)


def test_both_ends_of_a_policy_are_refused_and_neither_means_five_attempts(works: Works) -> None:
    both = tried(processing("A"), policy("Step.THROTTLING", MaxAttempts=1, ExpireAfterMin=1))
    with pytest.raises(ServiceError, match="step 'A' has both 'MaxAttempts' and 'ExpireAfterMin'; give only one"):
        works.create(pipeline(both))
    step = Step("S", "Processing", {}, raw={"RetryPolicies": [policy("SageMaker.CAPACITY_ERROR")]})
    pauses = [
        retries.pause(step, {"began": 0.0, "retries": {"0": used}}, "SageMaker.CAPACITY_ERROR", 1.0)
        for used in range(6)
    ]
    assert pauses == [(0, 1.0), (0, 2.0), (0, 4.0), (0, 8.0), (0, 16.0), None]


# --- quotas
QUOTAS = "ml.m5.large for processing job usage=2"


def test_beyond_a_quota_a_step_meets_the_limit_and_its_policy_waits_for_room(works: Works, later: Later) -> None:
    works.app.settings = dataclasses.replace(works.app.settings, quotas=QUOTAS)
    again = policy("SageMaker.RESOURCE_LIMIT", IntervalSeconds=5)
    for resource in ("ProcessingJob",):
        made = works.app._functions["sagemaker", f"Create{resource}"]

        def create(call: Call) -> Any:
            answer = made(call)  # noqa: B023
            quotas.check(call, call.change.puts[-1], "processing job")
            return answer

        works.app._functions["sagemaker", f"Create{resource}"] = create
    arn = begin(works, *(tried(processing(name), again) for name in "ABC"))
    assert works.statuses(arn) == {"A": "Executing", "B": "Executing", "C": "Starting"}
    attempt = explain(works.app.store, works.document(arn), "C")[0]["attempts"][0]
    assert (
        "'ml.m5.large for processing job usage' is 2 Instances, with current utilization of 2 Instances"
        in attempt["reason"]
    )
    works.end(arn, "A")
    later.ahead_s += 5
    works.look(arn)
    assert works.statuses(arn)["C"] == "Executing"


def test_a_quota_that_is_none_is_told() -> None:
    assert quotas.parse(f" {QUOTAS} , ml.t3.medium for training job usage = 4,") == {
        "ml.m5.large for processing job usage": 2, "ml.t3.medium for training job usage": 4,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"ml\.m5\.large=2"):
        quotas.parse("ml.m5.large=2")


def test_fifty_that_are_due_at_once_are_begun_in_batches(works: Works, later: Later) -> None:
    strike(works, "throttling", "*", 50)
    arn = begin(works, *(processing(f"S{n}") for n in range(50)))
    assert set(works.statuses(arn).values()) == {"Starting"}
    later.ahead_s += 60
    assert works.world.step(works.document(arn)) == 0.0
    assert list(works.statuses(arn).values()).count("Executing") == 16
    works.look(arn)
    assert set(works.statuses(arn).values()) == {"Executing"}
