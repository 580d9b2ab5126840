"""Pipeline definitions: what is read, in which order steps wait, and what is refused in which words."""
# ruff: noqa: E501  (tables of cases)

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.services.sagemaker.pipelines.checks import Malformed
from penstock.services.sagemaker.pipelines.definition import Definition, parse

DATA = Path(__file__).parents[1] / "data"
ROLE = "arn:aws:iam::123456789012:role/work"


def processing(name: str, **members: Any) -> dict[str, Any]:
    arguments = {
        "ProcessingResources": {
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
        "AppSpecification": {"ImageUri": "python:3"},
        "RoleArn": ROLE,
        **members.pop("Arguments", {}),
    }
    return {"Name": name, "Type": "Processing", "Arguments": arguments, **members}


def gate(name: str, conditions: Any = (), then: Any = (), otherwise: Any = (), **members: Any) -> dict[str, Any]:
    arguments = {"Conditions": list(conditions), "IfSteps": list(then), "ElseSteps": list(otherwise)}
    return {"Name": name, "Type": "Condition", "Arguments": arguments, **members}


def output(name: str) -> dict[str, Any]:
    return {
        "OutputName": name,
        "S3Output": {"S3Uri": f"s3://b/{name}", "LocalPath": f"/opt/{name}", "S3UploadMode": "EndOfJob"},
    }


def read(*steps: Any, **members: Any) -> Definition:
    return parse(
        json.dumps({"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": list(steps), **members})
    )


def refused(*steps: Any, **members: Any) -> str:
    with pytest.raises(Malformed) as caught:
        read(*steps, **members)
    return str(caught.value)


# --- what the SDK writes
def test_the_sdks_definition_is_read_with_parameters_branches_and_files() -> None:
    flowers = parse((DATA / "pipeline_v2_flowers.json").read_text())
    assert {name: p.type for name, p in flowers.parameters.items()}["Verbose"] == "Boolean"
    assert flowers.parameters["Approval"].choices == ("Approved", "PendingManualApproval")
    steps = flowers.steps
    assert {name: step.type for name, step in steps.items()} == {
        "Prepare": "Processing", "Train": "Training", "Evaluate": "Processing", "Gate": "Condition",
        "Register-RegisterModel": "RegisterModel", "Create-CreateModel": "Model", "TooWeak": "Fail",
    }  # fmt: skip
    assert steps["Train"].needs == ("Prepare",)
    assert set(steps["Evaluate"].needs) == {"Train", "Prepare"}
    assert steps["Gate"].needs == ("Evaluate",)
    assert steps["Register-RegisterModel"].branch == ("Gate", True)
    assert steps["TooWeak"].branch == ("Gate", False)
    assert steps["Evaluate"].files == {"Report": ("evaluation", "evaluation.json")}
    assert steps["Prepare"].display_name == "Prepare the flowers"
    assert flowers.experiment == {
        "ExperimentName": {"Get": "Execution.PipelineName"},
        "TrialName": {"Get": "Execution.PipelineExecutionId"},
    }


def test_the_sdks_repack_step_comes_before_the_registration() -> None:
    repack = parse((DATA / "pipeline_v2_repack.json").read_text())
    trained = [name for name, step in repack.steps.items() if step.type == "Training"]
    register = next(step for step in repack.steps.values() if step.type == "RegisterModel")
    assert len(trained) == 2
    assert register.needs == (trained[1],)
    assert repack.experiment is None


# --- order
def test_a_step_waits_for_what_it_depends_on_and_refers_to() -> None:
    first = processing("First", Arguments={"ProcessingOutputConfig": {"Outputs": [output("o")]}},
                       PropertyFiles=[{"PropertyFileName": "F", "OutputName": "o", "FilePath": "f.json"}])  # fmt: skip
    by_file = {"Type": "Equals", "LeftValue": 1, "RightValue": {
        "Std:JsonGet": {"PropertyFile": {"Get": "Steps.First.PropertyFiles.F"}, "Path": "a"}}}  # fmt: skip
    steps = read(
        first, processing("Second", DependsOn=["First"]),
        processing("Third", Arguments={"Environment": {"A": {"Get": "Steps.Second.ProcessingJobName"}}}), gate("Gate", [by_file]),
    ).steps  # fmt: skip
    assert [steps[name].needs for name in ("Second", "Third", "Gate")] == [("First",), ("Second",), ("First",)]


def test_a_condition_does_not_wait_for_what_its_branches_refer_to() -> None:
    inner = processing("Inner", Arguments={"Environment": {"A": {"Get": "Steps.Other.ProcessingJobName"}}})
    steps = read(processing("Other"), gate("Gate", then=[inner])).steps
    assert steps["Gate"].needs == ()
    assert steps["Inner"].needs == ("Other",)


def test_conditions_nest() -> None:
    steps = read(gate("Outer", then=[gate("Inner", otherwise=[processing("Deep")])])).steps
    assert steps["Inner"].branch == ("Outer", True)
    assert steps["Deep"].branch == ("Inner", False)


def test_steps_that_wait_for_each_other_are_refused_with_the_cycle() -> None:
    told = refused(processing("A", DependsOn=["C"]), processing("B", DependsOn=["A"]), processing("C", DependsOn=["B"]))
    assert "Cycle" in told
    assert "A -> C -> B -> A" in told


def test_a_condition_that_waits_for_its_own_branch_is_a_cycle() -> None:
    inner = processing("Inner")
    assert "Cycle" in refused(
        gate("Gate", [{"Type": "Equals", "LeftValue": {"Get": "Steps.Inner.X"}, "RightValue": 1}], [inner])
    )


def test_a_step_that_waits_for_itself_is_a_cycle() -> None:
    assert "A -> A" in refused(processing("A", DependsOn=["A"]))


# --- faults of the whole
@pytest.mark.parametrize(("text", "told"), [
    ("{", "Malformed JSON"),
    ("[]", "must be a JSON object"),
    ('{"Version": "2021-01-01", "Steps": []}', "Unsupported version '2021-01-01'"),
    ('{"Steps": []}', "Unsupported version 'None'"),
    ('{"Version": "2020-12-01"}', "'Steps' must be a list"),
    ('{"Version": "2020-12-01", "Steps": [1]}', "is no object"),
    ("[" * 100_000, "Malformed JSON"),
    ('{"Version": "2020-12-01", "Steps": [' + "[" * 200 + "]" * 200 + "]}", "nested too deeply"),
])  # fmt: skip
def test_what_is_no_definition_is_refused(text: str, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(text)


# --- faults of a step
def test_a_name_used_twice_is_refused_also_across_a_branch() -> None:
    assert "'A' is used more than once" in refused(processing("A"), processing("A"))
    assert "'A' is used more than once" in refused(processing("A"), gate("Gate", then=[processing("A")]))


@pytest.mark.parametrize("name", ["", "has space", "x" * 65, "dot.ted", None, 5])
def test_a_bad_step_name_is_refused(name: Any) -> None:
    assert "Invalid step name" in refused({**processing("x"), "Name": name})


@pytest.mark.parametrize(("step", "told"), [
    ({"Name": "S", "Type": "Magic", "Arguments": {}}, "Step 'S' has the unknown type 'Magic'"),
    ({"Name": "S", "Type": "Processing"}, "Step 'S' is missing its 'Arguments'"),
    ({"Name": "S", "Type": "Training", "Arguments": []}, "The 'Arguments' of step 'S' must be an object"),
    (processing("S", DependsOn=["Nobody"]), "Step 'S' depends on the step 'Nobody', which is not defined"),
    (processing("S", DependsOn="Nobody"), "DependsOn of step 'S' must be a list"),
    (processing("S", Arguments={"RoleArn": {"Get": "Parameters.Role"}}), "Step 'S' refers to the parameter 'Role', which is not defined"),
    (processing("S", Arguments={"RoleArn": {"Get": "Execution.Role"}}), "Step 'S' refers to the unknown execution variable 'Role'"),
    (processing("S", Arguments={"RoleArn": {"Get": "Steps.Nobody.Role"}}), "Step 'S' depends on the step 'Nobody'"),
    (processing("S", Arguments={"RoleArn": {"Get": "Role"}}), "Step 'S': Invalid property reference 'Role'"),
    (processing("S", Arguments={"RoleArn": {"Std:Join": {}}}), "Step 'S': Std:Join needs"),
    ({"Name": "S", "Type": "Processing", "Arguments": {"RoleArn": ROLE}}, "Step 'S' is missing the required argument 'ProcessingResources.ClusterConfig'"),
    ({"Name": "S", "Type": "Training", "Arguments": {"RoleArn": ROLE}}, "Step 'S' is missing the required argument 'AlgorithmSpecification'"),
    ({"Name": "S", "Type": "Model", "Arguments": {"ExecutionRoleArn": ROLE}}, "Step 'S' is missing the required argument 'PrimaryContainer'"),
    ({"Name": "S", "Type": "RegisterModel", "Arguments": {}}, "Step 'S' is missing the required argument 'ModelPackageGroupName'"),
    (processing("S", Arguments={"ProcessingInputs": [{}] * 11}), "Step 'S' has 11 ProcessingInputs; the maximum is 10"),
    (processing("S", Arguments={"ProcessingOutputConfig": {"Outputs": [{}] * 11}}), "the maximum is 10"),
    (processing("S", Arguments={"NetworkConfig": {"EnableNetworkIsolation": "perhaps"}}), "Model Validation failed in step 'S': Value 'perhaps' for 'NetworkConfig.EnableNetworkIsolation' is no boolean"),
    (processing("S", Arguments={"ProcessingInputs": [{"InputName": "i", "S3Input": {"S3Uri": "s3://b", "S3DataType": "S3Prefix", "S3InputMode": "FastFile"}}]}), "Value 'FastFile' for 'ProcessingInputs[0].S3Input.S3InputMode' failed to satisfy enum value set: [Pipe, File]"),
    (processing("S", Arguments={"ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1}}}), "Missing required member 'VolumeSizeInGB' in 'ProcessingResources.ClusterConfig'"),
    (processing("S", Arguments={"ProcessingInputs": "all"}), "is no list"),
    (processing("S", CacheConfig={"Enabled": "yes"}), "CacheConfig of step 'S' needs 'Enabled'"),
    (processing("S", CacheConfig={"Enabled": True, "ExpireAfter": "soon"}), "no ISO 8601 duration"),
    (processing("S", CacheConfig={"Enabled": True, "ExpireAfter": ""}), "no ISO 8601 duration"),
    (processing("S", RetryPolicies=[{"ExceptionType": ["Step.THROTTLING"], "MaxAttempts": 2, "ExpireAfterMin": 3}]), "both 'MaxAttempts' and 'ExpireAfterMin'"),
    (processing("S", RetryPolicies=[{"ExceptionType": ["Step.THROTTLING"], "MaxAttempts": 21}]), "it must be between 0 and 20"),
    (processing("S", RetryPolicies=[{"ExceptionType": ["Step.BAD_LUCK"]}]), "unknown ExceptionType 'Step.BAD_LUCK'"),
    (processing("S", PropertyFiles=[{"PropertyFileName": "F", "OutputName": "o", "FilePath": "f"}]), "Processing output name 'o' of property file 'F' not found in step 'S'"),
    (processing("S", PropertyFiles=[{"PropertyFileName": "F"}]), "A property file of step 'S' needs"),
    (gate("S", [{"Type": "Sometimes"}]), "Step 'S': Unknown condition type 'Sometimes'"),
    (gate("S", then="x"), "IfSteps of step 'S'"),
    (processing("S", DisplayName="x" * 257), "DisplayName of step 'S'"),
])  # fmt: skip
def test_a_faulty_step_is_refused_by_name(step: dict[str, Any], told: str) -> None:
    assert told in refused(step)


@pytest.mark.parametrize("duration", ["PT1H", "P30D", "30d", "5y", "T16m", "30dT5h", "P1Y2M3DT4H5M6S", "P1W"])
def test_every_way_to_write_a_duration_is_accepted(duration: str) -> None:
    assert read(processing("S", CacheConfig={"Enabled": True, "ExpireAfter": duration})).steps


def test_retry_policies_are_accepted_with_one_type_or_a_list() -> None:
    policies = [
        {"ExceptionType": "Step.SERVICE_FAULT", "MaxAttempts": 0},
        {"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "ExpireAfterMin": 5},
    ]
    assert read(processing("S", RetryPolicies=policies)).steps["S"].raw["RetryPolicies"] == policies


def test_an_undefined_property_file_is_refused() -> None:
    condition = {
        "Type": "Equals",
        "LeftValue": {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.P.PropertyFiles.F"}, "Path": "a"}},
        "RightValue": 1,
    }
    assert "Step 'G' refers to the property file 'F', which is undefined in step 'P'" in refused(
        processing("P"), gate("G", [condition])
    )


def test_nothing_may_wait_for_a_fail_step() -> None:
    fail = {"Name": "FailStep", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}
    assert "CondStep can not depends on FailStep" in refused(fail, gate("CondStep", DependsOn=["FailStep"]))


def test_a_reference_may_stand_for_a_list_or_a_required_structure() -> None:
    assert read(
        processing("S", Arguments={"ProcessingInputs": {"Get": "Parameters.P"}, "AppSpecification": {"Get": "Parameters.P"}}),
        Parameters=[{"Name": "P", "Type": "String"}],
    ).steps  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    ["EMR", "EMRServerless", "AutoML", "Endpoint", "ForEach"],
)
def test_steps_of_types_that_are_not_run_yet_are_accepted(kind: str) -> None:
    arguments = {"Anything": {"A": "b"}}
    assert read({"Name": "S", "Type": kind, "Arguments": arguments}).steps["S"].type == kind


@pytest.mark.parametrize(("kind", "given", "told"), [
    ("QualityCheck", {"CheckType": "DATA_BIAS"}, "must be one of DATA_QUALITY, MODEL_QUALITY"),
    ("ClarifyCheck", {"CheckType": "DATA_BIAS"}, "missing the required argument 'ProcessingResources.ClusterConfig'"),
    ("EndpointConfig", {}, "missing the required argument 'ProductionVariants'"),
])  # fmt: skip
def test_checks_and_configurations_are_checked(kind: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(Malformed, match=re.escape(told)):
        read({"Name": "S", "Type": kind, "Arguments": {"A": "b"}, **given})


# --- parameters
@pytest.mark.parametrize(("parameter", "told"), [
    ({"Name": "P", "Type": "Number"}, "Parameter 'P' has the unknown type 'Number'"),
    ({"Name": "P p", "Type": "String"}, "Invalid parameter name 'P p'"),
    ({"Name": "", "Type": "String"}, "Invalid parameter name"),
    ({"Name": "P", "Type": "Integer", "DefaultValue": "1"}, "The default value of parameter 'P' is no Integer"),
    ({"Name": "P", "Type": "Integer", "DefaultValue": True}, "is no Integer"),
    ({"Name": "P", "Type": "Integer", "DefaultValue": 1.5}, "is no Integer"),
    ({"Name": "P", "Type": "String", "DefaultValue": 1}, "is no String"),
    ({"Name": "P", "Type": "Boolean", "DefaultValue": "true"}, "is no Boolean"),
    ({"Name": "P", "Type": "Float", "DefaultValue": "0.5"}, "is no Float"),
    ({"Name": "P", "Type": "String", "DefaultValue": "c", "EnumValues": ["a", "b"]}, "not one of its EnumValues [a, b]"),
])  # fmt: skip
def test_a_faulty_parameter_is_refused(parameter: dict[str, Any], told: str) -> None:
    assert told in refused(Parameters=[parameter])


def test_a_parameter_defined_twice_is_refused() -> None:
    assert "Duplicate parameter name 'P'" in refused(Parameters=[{"Name": "P", "Type": "String"}] * 2)


PARAMETERS = [
    {"Name": "Text", "Type": "String", "DefaultValue": "a", "EnumValues": ["a", "b"]},
    {"Name": "Count", "Type": "Integer", "DefaultValue": 1},
    {"Name": "Rate", "Type": "Float", "DefaultValue": 0.5},
    {"Name": "Flag", "Type": "Boolean", "DefaultValue": False},
    {"Name": "Must", "Type": "String"},
]


def test_given_texts_become_values_of_the_parameters_types() -> None:
    definition = read(Parameters=PARAMETERS)
    assert definition.values({"Must": "x"}) == {"Text": "a", "Count": 1, "Rate": 0.5, "Flag": False, "Must": "x"}
    given = {"Must": "x", "Text": "b", "Count": "7", "Rate": "1", "Flag": "True"}
    assert definition.values(given) == {"Text": "b", "Count": 7, "Rate": 1.0, "Flag": True, "Must": "x"}


@pytest.mark.parametrize(("given", "told"), [
    ({}, "Parameter 'Must' is undefined."),
    ({"Must": "x", "Other": "y"}, "Unknown parameter 'Other'"),
    ({"Must": "x", "Count": "1.5"}, "Unexpected type for parameter 'Count'. Expected Integer but found '1.5'"),
    ({"Must": "x", "Count": "one"}, "Unexpected type for parameter 'Count'"),
    ({"Must": "x", "Rate": "high"}, "Expected Float"),
    ({"Must": "x", "Flag": "yes"}, "Expected Boolean"),
    ({"Must": "x", "Text": "c"}, "not one of [a, b]"),
    ({"Must": ""}, 'Parameter Must value "" is too short'),
])  # fmt: skip
def test_faulty_parameters_at_the_start_are_refused(given: dict[str, str], told: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(Parameters=PARAMETERS).values(given)
    assert told in str(caught.value)


# --- size
def test_the_work_of_reading_grows_with_the_steps_and_not_with_their_square() -> None:
    def work(count: int) -> float:
        steps = [processing(f"S{n}", DependsOn=[f"S{n - 1}"] if n else []) for n in range(count)]
        began = time.process_time()
        assert len(read(*steps).steps) == count
        return time.process_time() - began

    assert min(work(2000), work(2001)) < 32 * max(work(250), work(251))  # 8 is in proportion, 64 the square


def test_the_same_text_is_parsed_once() -> None:
    text = (DATA / "pipeline_v2_flowers.json").read_text()
    assert parse(text) is parse(str(text))


# --- what the SDKs write
def test_the_step_types_that_the_sdk_v3_brought_are_accepted() -> None:
    """The data is what its classes write: a Callback and a ForEach step, one that depends on any outcome, EMR Serverless."""
    found = parse((DATA / "pipeline_v3_steps.json").read_text())
    assert {step.type for step in found.steps.values()} == {"Callback", "ForEach", "Cleanup", "EMRServerless", "EMR", "Fail"}
    assert found.steps["After"].needs == ("Each",)
    assert found.steps["Clean"].needs == ("Callback",)


def test_a_step_for_the_case_of_a_failure_is_not_begun_after_a_success() -> None:
    found = read(processing("A"), {**processing("B"), "DependsOn": [{"Step": "A", "Trigger": "Failed"}]})
    assert found.steps["B"].unless == {"A"}
    for wrong in ([{"Step": "A"}], [{"Step": "A", "Trigger": "Now"}], [3], "A"):
        with pytest.raises(Malformed, match="The DependsOn of step 'B'"):
            read(processing("A"), {**processing("B"), "DependsOn": wrong})


@pytest.mark.parametrize(("kind", "text"), [
    ("Float", "nan"), ("Float", "inf"), ("Float", "1e400"), ("Float", "1_0"), ("Float", ""), ("Integer", "9999999999999999999"),
    ("Integer", "1.0"), ("Boolean", "1"),
])  # fmt: skip
def test_what_is_no_value_of_a_parameters_type_is_refused(kind: str, text: str) -> None:
    found = read(Parameters=[{"Name": "P", "Type": kind}])
    with pytest.raises(Malformed):
        found.values({"P": text})


def test_numbers_that_json_does_not_have_are_no_definition() -> None:
    for text in ("NaN", "Infinity", "1e999"):
        with pytest.raises(Malformed, match="Malformed JSON"):
            parse(f'{{"Version": "2020-12-01", "Parameters": [{{"Name": "P", "Type": "Float", "DefaultValue": {text}}}], "Steps": []}}')
    with pytest.raises(Malformed, match="is no Integer"):
        read(Parameters=[{"Name": "P", "Type": "Integer", "DefaultValue": 1 << 64}])


def test_a_number_may_have_choices_too() -> None:
    found = read(Parameters=[{"Name": "P", "Type": "Integer", "DefaultValue": 1, "EnumValues": ["1", "2"]}])
    assert found.values({"P": "2"}) == {"P": 2}
    with pytest.raises(Malformed, match="not one of"):
        found.values({"P": "3"})


def test_the_step_types_of_the_sdk_v2_are_accepted() -> None:
    """The data is what its classes write: Callback, Lambda, EMR, QualityCheck, ClarifyCheck and AutoML steps, and conditions."""
    found = parse((DATA / "pipeline_v2_steps.json").read_text())
    kinds = {"Callback", "Lambda", "EMR", "QualityCheck", "ClarifyCheck", "AutoML", "Condition", "Fail"}
    assert {step.type for step in found.steps.values()} == kinds
