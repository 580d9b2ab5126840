"""Checks against the model, in AWS's own sentences."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from penstock.wire.models import service
from penstock.wire.patterns import _SAFE, compiled
from penstock.wire.validate import Invalid, check


def refusal(name: str, operation: str, **params: Any) -> tuple[str, str]:
    with pytest.raises(Invalid) as caught:
        check(service(name).operations[operation], params)
    return caught.value.code, caught.value.message


def sentence(name: str, operation: str, **params: Any) -> str:
    return refusal(name, operation, **params)[1].partition(" detected: ")[2]


ROLE = "arn:aws:iam::123456789012:role/r"


def test_a_right_call_is_not_refused() -> None:
    check(service("sagemaker").operations["CreateModel"], {"ModelName": "m", "Tags": [{"Key": "ä b", "Value": ""}]})


def test_a_missing_member_is_null() -> None:
    assert refusal("sagemaker", "DescribeModel") == (
        "ValidationException",
        "1 validation error detected: Value null at 'modelName' failed to satisfy constraint: Member must not be null",
    )


def test_length_and_pattern_are_two_errors() -> None:
    name = "a_" * 40
    assert refusal("sagemaker", "DescribeModel", ModelName=name)[1].startswith(
        f"2 validation errors detected: Value '{name}' at 'modelName' failed to satisfy constraint: Member must have "
        f"length less than or equal to 63; Value '{name}' at 'modelName' failed to satisfy constraint: Member must "
        "satisfy regular expression pattern: [a-zA-Z0-9]"
    )


def test_a_pattern_holds_for_the_whole_value() -> None:
    assert "regular expression" in sentence("sagemaker", "DescribeModel", ModelName="model\n")
    assert "regular expression" in sentence("sagemaker", "DescribeModel", ModelName=" model")


def test_a_number_has_a_value_and_not_a_length() -> None:
    variant = {"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 0, "InstanceType": "ml.m5.large"}
    assert sentence("sagemaker", "CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant]) == (
        "Value '0' at 'productionVariants.1.member.initialInstanceCount' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1"
    )


def test_a_text_out_of_an_enumeration_is_told_the_set() -> None:
    assert sentence("sagemaker", "ListModels", SortOrder="Sideways") == (
        "Value 'Sideways' at 'sortOrder' failed to satisfy constraint: Member must satisfy enum value set: "
        "[Ascending, Descending]"
    )


def test_members_of_lists_of_structures_are_numbered_from_one() -> None:
    assert sentence("sagemaker", "CreateModel", ModelName="m", Tags=[{"Key": "a", "Value": ""}, {"Value": "b"}]) == (
        "Value null at 'tags.2.member.key' failed to satisfy constraint: Member must not be null"
    )


def test_a_list_of_scalars_is_shown_as_a_whole() -> None:
    assert refusal("cloudformation", "CreateStack", StackName="s", Capabilities=["CAPABILITY_IAM", "NOPE"]) == (
        "ValidationError",
        "1 validation error detected: Value '[CAPABILITY_IAM, NOPE]' at 'capabilities' failed to satisfy constraint: "
        "Member must satisfy constraint: [Member must satisfy enum value set: "
        "[CAPABILITY_IAM, CAPABILITY_NAMED_IAM, CAPABILITY_AUTO_EXPAND]]",
    )


def test_a_map_of_scalars_is_shown_as_a_whole() -> None:
    long = "x" * 2501
    params = {
        "TrainingJobName": "j",
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://b/k"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "HyperParameters": {"a": "1", "b": long},
    }
    assert sentence("sagemaker", "CreateTrainingJob", **params) == (
        f"Value '{{a=1, b={long}}}' at 'hyperParameters' failed to satisfy constraint: Map value must satisfy "
        "constraint: [Member must have length less than or equal to 2500, Member must have length greater than or "
        "equal to 0, Member must satisfy regular expression pattern: .*]"
    )


def test_too_long_a_list_is_refused() -> None:
    tags = [{"Key": str(n), "Value": ""} for n in range(51)]
    assert sentence("sagemaker", "CreateModel", ModelName="m", Tags=tags).endswith(
        "at 'tags' failed to satisfy constraint: Member must have length less than or equal to 50"
    )


def test_a_sensitive_value_is_not_shown() -> None:
    message = sentence("codebuild", "ImportSourceCredentials", token="", serverType="GITHUB", authType="OAUTH")
    assert message == (
        "Value at 'token' failed to satisfy constraint: Member must have length greater than or equal to 1"
    )


def test_a_list_may_have_a_constraint_that_the_model_does_not_tell() -> None:
    assert sentence("lambda", "PublishLayerVersion", LayerName="l", Content={}, CompatibleArchitectures=["X86_64"]) == (
        "Value '[X86_64]' at 'compatibleArchitectures' failed to satisfy constraint: Member must satisfy constraint: "
        "[Member must satisfy enum value set: [x86_64, arm64], Member must not be null]"
    )


def test_the_name_of_a_log_group_is_not_shown_as_it_is_not_at_aws() -> None:
    message = sentence("logs", "DescribeLogStreams", logGroupIdentifier="a*")
    assert message.startswith("Value at 'logGroupIdentifier' failed to satisfy constraint: Member must satisfy regular expression")


@pytest.mark.parametrize(
    ("name", "operation", "code"),
    [
        ("iam", "GetRole", "ValidationError"),
        ("sts", "AssumeRole", "ValidationError"),
        ("logs", "CreateLogGroup", "InvalidParameterException"),
        ("sagemaker-runtime", "InvokeEndpoint", "ValidationError"),
        ("lambda", "GetFunction", "ValidationException"),
        ("codebuild", "StartBuild", "InvalidInputException"),
    ],
)
def test_services_have_codes_of_their_own(name: str, operation: str, code: str) -> None:
    assert refusal(name, operation)[0] == code


def test_ecr_has_a_sentence_of_its_own() -> None:
    code, message = refusal("ecr", "DescribeImages", repositoryName="UPPER")
    assert code == "InvalidParameterException"
    assert message.startswith("Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy")


def test_s3_says_what_is_missing_in_its_own_words() -> None:
    assert refusal("s3", "PutObjectTagging", Bucket="b", Key="k")[0] == "MalformedXML"
    assert refusal("s3", "CopyObject", Bucket="b", Key="k") == (
        "InvalidRequest",
        "Missing required header for this request: x-amz-copy-source",
    )


def test_values_of_a_wrong_type_are_left_to_the_operation() -> None:
    check(service("sagemaker").operations["ListModels"], {"MaxResults": "ten", "NameContains": 7, "SortBy": 1})


def test_java_classes_mean_what_they_mean_in_java() -> None:
    tag = compiled("([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)")
    assert tag is not None
    assert tag.fullmatch("Größe 数 \u0661")
    assert not tag.fullmatch("a!b")
    assert compiled("\\p{ASCII}*").fullmatch("abc")  # type: ignore[union-attr]
    assert not compiled("\\p{ASCII}*").fullmatch("ä")  # type: ignore[union-attr]
    assert not compiled("\\d+").fullmatch("\u0661")  # type: ignore[union-attr]
    surrogates = compiled("[\\u0020-\\uD7FF\\uE000-\\uFFFD\\uD800\\uDC00-\\uDBFF\\uDFFF\\t]*")
    assert surrogates is not None
    assert surrogates.fullmatch("a🙂\t")
    assert not surrogates.fullmatch("a\n")


SERVICES = ("sagemaker", "sagemaker-runtime", "s3", "sts", "iam", "ecr", "lambda", "events", "logs", "ssm", "glue")


@pytest.mark.parametrize("name", SERVICES)
def test_every_pattern_of_a_model_compiles(name: str) -> None:
    model = service(name).model
    patterns = {model.shape_for(each).metadata.get("pattern") for each in model.shape_names} - {None}
    assert [pattern for pattern in patterns if compiled(pattern) is None] == []


@pytest.mark.parametrize("pattern", sorted(_SAFE))
def test_patterns_that_could_run_for_years_do_not(pattern: str) -> None:
    # In a process of its own: a pattern that hangs cannot be interrupted from within.
    code = (
        "import sys; from penstock.wire.patterns import compiled\n"
        "for atom in ('a', ' ', '-', 'a-', 'https://a'): compiled(sys.argv[1]).fullmatch(atom * 500 + chr(1))"
    )
    subprocess.run([sys.executable, "-c", code, pattern], check=True, timeout=10)


@pytest.mark.parametrize(
    ("text", "held"),
    [("https://abc", True), ("https://a/b/c/", True), ("https://ab", False), ("https://a//bc", False)],
)
def test_the_safe_patterns_mean_the_same(text: str, held: bool) -> None:
    expression = compiled(r"https://([.\-_a-zA-Z0-9]+/?){3,1016}")
    assert expression is not None
    assert bool(expression.fullmatch(text)) is held
