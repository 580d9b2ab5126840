"""The expressions and conditions of pipeline definitions."""
# ruff: noqa: E501  (tables of cases)

from __future__ import annotations

from typing import Any

import pytest

from penstock.services.sagemaker.pipelines import conditions
from penstock.services.sagemaker.pipelines.expressions import (
    Unresolved,
    join_path,
    parse_reference,
    references,
    resolve,
    split_path,
    to_text,
    walk,
)


class World:
    """A scope with one of everything."""

    def parameter(self, name: str) -> Any:
        return {"Type": "ml.m5.large", "Count": 2, "Rate": 0.25, "Verbose": True}[name]

    def variable(self, name: str) -> Any:
        return {"PipelineName": "Flowers", "PipelineExecutionId": "abc123def456"}[name]

    def outputs(self, step: str) -> dict[str, Any]:
        return {
            "ModelArtifacts": {"S3ModelArtifacts": "s3://b/model.tar.gz"},
            "ProcessingOutputConfig": {"Outputs": [
                {"OutputName": "train", "S3Output": {"S3Uri": "s3://b/train"}},
                {"OutputName": "test", "S3Output": {"S3Uri": "s3://b/test"}},
            ]},
            "HyperParameters": {"num round": "20"},
        }  # fmt: skip

    def file_uri(self, step: str, file: str) -> str:
        return f"s3://b/{step}/{file}.json"

    def content(self, uri: str) -> Any:
        if uri == "s3://b/Evaluate/Report.json":
            return {"metrics": {"accuracy": {"value": 0.9}, "by-class": [{"f1": 0.5}, {"f1": 0.75}], "a b": 1}}
        raise Unresolved(f"{uri} is not there")


def get(path: str) -> dict[str, str]:
    return {"Get": path}


def report(path: str) -> dict[str, Any]:
    return {"Std:JsonGet": {"PropertyFile": get("Steps.Evaluate.PropertyFiles.Report"), "Path": path}}


@pytest.mark.parametrize(("text", "path"), [
    ("a", ("a",)),
    ("a.b.c", ("a", "b", "c")),
    ("a[0].b", ("a", 0, "b")),
    ("a['x y'][\"z\"].w", ("a", "x y", "z", "w")),
    ("a['it.has.dots']", ("a", "it.has.dots")),
    ("$.a.b", ("a", "b")),
    ("$['a'][3]", ("a", 3)),
    ("", ()),
    ("f1-score.2", ("f1-score", "2")),
])  # fmt: skip
def test_a_path_is_split_into_names_and_indexes(text: str, path: tuple[str | int, ...]) -> None:
    assert split_path(text) == path


@pytest.mark.parametrize("text", ["a[", "a]", "a['x]", "a[-1]", "a[x]", ".a", "a..b"])
def test_a_path_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid path"):
        split_path(text)


@pytest.mark.parametrize("text", ["a.b", "a[0].b", "a['x y'].c"])
def test_the_text_of_a_path_is_what_it_was_split_from(text: str) -> None:
    assert join_path(split_path(text)) == text


def test_what_is_missing_is_told_with_what_there_is() -> None:
    with pytest.raises(Unresolved, match=r"'a\.c' is not there: a has b, d"):
        walk({"a": {"b": 1, "d": 2}}, ("a", "c"))
    with pytest.raises(Unresolved, match="a is a list of 2"):
        walk({"a": [1, 2]}, ("a", 2))
    with pytest.raises(Unresolved, match="the document is 3"):
        walk(3, ("a",))


@pytest.mark.parametrize(("text", "kind", "name", "path"), [
    ("Parameters.Count", "parameter", "Count", ()),
    ("Execution.PipelineName", "variable", "PipelineName", ()),
    ("Steps.Train.ModelArtifacts.S3ModelArtifacts", "member", "Train", ("ModelArtifacts", "S3ModelArtifacts")),
    ("Steps.My_step-1.ProcessingOutputConfig.Outputs['train'].S3Output.S3Uri", "member", "My_step-1",
     ("ProcessingOutputConfig", "Outputs", "train", "S3Output", "S3Uri")),
    ("Steps.Call.OutputParameters['status']", "member", "Call", ("OutputParameters", "status")),
    ("Steps.Evaluate.PropertyFiles.Report", "file", "Evaluate", ("Report",)),
    ("Steps.Gate.Outcome", "member", "Gate", ("Outcome",)),
])  # fmt: skip
def test_a_reference_names_what_it_means(text: str, kind: str, name: str, path: tuple[str, ...]) -> None:
    reference = parse_reference(text)
    assert (reference.kind, reference.name, reference.path) == (kind, name, path)


@pytest.mark.parametrize(
    "text", ["", "Count", "Parameter.Count", "Parameters.A.B", "Steps.", "Steps.X.PropertyFiles", "steps.X.Y"]
)
def test_a_reference_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid"):
        parse_reference(text)


def test_references_are_found_at_any_depth() -> None:
    value = {
        "a": [
            {
                "Std:Join": {
                    "On": "",
                    "Values": ["x", get("Parameters.Count"), {"Std:Join": {"On": "", "Values": [get("Steps.T.X")]}}],
                }
            }
        ]
    }
    assert [(r.kind, r.name) for r in references(value)] == [("parameter", "Count"), ("member", "T")]


@pytest.mark.parametrize("value", [
    {"Std:Join": {"On": "/"}},
    {"Std:Join": ["a"]},
    {"Std:Join": {"On": 1, "Values": []}},
    {"Std:JsonGet": {"Path": "a"}},
    {"Std:JsonGet": {"Path": "a", "S3Uri": "s3://b/k", "PropertyFile": {"Get": "Steps.A.PropertyFiles.B"}}},
    {"Std:JsonGet": {"Path": "a", "PropertyFile": {"Get": "Parameters.X"}}},
    {"Std:JsonGet": {"Path": "a[", "S3Uri": "s3://b/k"}},
    {"Get": 5},
])  # fmt: skip
def test_a_function_without_its_members_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"Std:|Invalid"):
        list(references(value))


@pytest.mark.parametrize(("value", "result"), [
    ("plain", "plain"),
    (get("Parameters.Count"), 2),
    (get("Parameters.Verbose"), True),
    ({"InstanceCount": get("Parameters.Count"), "InstanceType": get("Parameters.Type")}, {"InstanceCount": 2, "InstanceType": "ml.m5.large"}),
    (get("Steps.Train.ModelArtifacts.S3ModelArtifacts"), "s3://b/model.tar.gz"),
    (get("Steps.Prepare.ProcessingOutputConfig.Outputs['test'].S3Output.S3Uri"), "s3://b/test"),
    (get("Steps.Prepare.ProcessingOutputConfig.Outputs[0].S3Output.S3Uri"), "s3://b/train"),
    (get("Steps.Train.HyperParameters['num round']"), "20"),
    ({"Std:Join": {"On": "/", "Values": ["s3:/", "b", get("Execution.PipelineExecutionId")]}}, "s3://b/abc123def456"),
    ({"Std:Join": {"On": ",", "Values": [1, get("Parameters.Rate"), get("Parameters.Verbose"), None]}}, "1,0.25,true,null"),
    ({"Std:Join": {"Values": ["a", "b"]}}, "ab"),
    (report("metrics.accuracy.value"), 0.9),
    (report("$.metrics['by-class'][1].f1"), 0.75),
    (report("metrics['a b']"), 1),
    ({"Std:JsonGet": {"S3Uri": {"Std:Join": {"On": "/", "Values": ["s3://b", "Evaluate", "Report.json"]}}, "Path": "metrics['a b']"}}, 1),
])  # fmt: skip
def test_an_expression_has_its_value(value: Any, result: Any) -> None:
    assert resolve(value, World()) == result


def test_a_missing_path_of_a_file_is_told_with_the_file_and_what_is_there() -> None:
    with pytest.raises(Unresolved, match=r"s3://b/Evaluate/Report\.json.*metrics has accuracy, by-class"):
        resolve(report("metrics.auc.value"), World())


def test_a_missing_member_of_a_step_is_told_with_the_reference() -> None:
    with pytest.raises(Unresolved, match=r"Outputs\['valid'\].*list of 2 \(train, test\)"):
        resolve(get("Steps.P.ProcessingOutputConfig.Outputs['valid'].S3Output.S3Uri"), World())


def test_text_forms_are_those_of_json() -> None:
    assert [to_text(v) for v in ("x", True, False, 3, 0.5, [1, "a"])] == ["x", "true", "false", "3", "0.5", '[1,"a"]']


# --- conditions
def compare(kind: str, left: Any, right: Any) -> bool:
    return conditions.holds(
        {"Type": kind, "LeftValue": left, "RightValue": right}, lambda value: resolve(value, World())
    )


@pytest.mark.parametrize(("kind", "left", "right", "result"), [
    ("Equals", 1, 1, True),
    ("Equals", 1, 1.0, True),
    ("Equals", 1, "1", True),
    ("Equals", "1", "1.0", False),
    ("Equals", "a", "b", False),
    ("Equals", True, "True", True),
    ("Equals", "false", False, True),
    ("Equals", True, 1, False),
    ("Equals", None, None, True),
    ("Equals", None, 0, False),
    ("GreaterThan", 2, 1, True),
    ("GreaterThan", 1, 1, False),
    ("GreaterThanOrEqualTo", 1, 1, True),
    ("GreaterThanOrEqualTo", 0.9, 0.75, True),
    ("LessThan", "2", "10", True),
    ("LessThan", "apple", "pear", True),
    ("LessThanOrEqualTo", float("nan"), 1, False),
    ("GreaterThan", get("Parameters.Count"), 1, True),
    ("LessThanOrEqualTo", report("metrics.accuracy.value"), get("Parameters.Rate"), False),
])  # fmt: skip
def test_a_comparison_holds_or_not(kind: str, left: Any, right: Any, result: bool) -> None:
    assert compare(kind, left, right) is result


@pytest.mark.parametrize(("left", "right"), [(None, 1), ("abc", 1), ({"a": 1}, 2), ([1], [2]), (True, 0)])
def test_what_has_no_order_is_told_so(left: Any, right: Any) -> None:
    with pytest.raises(Unresolved, match="GreaterThan cannot compare"):
        compare("GreaterThan", left, right)


def test_what_has_no_order_says_where_it_was_read() -> None:
    with pytest.raises(Unresolved) as told:
        compare("GreaterThan", report("metrics.accuracy"), get("Parameters.Count"))
    assert "(read at 'metrics.accuracy' in s3://" in str(told.value)
    assert str(told.value).endswith("(of Parameters.Count)")


def test_in_not_and_or() -> None:
    within = {"Type": "In", "QueryValue": get("Parameters.Type"), "Values": ["ml.c5.large", get("Parameters.Type")]}
    outside = {"Type": "In", "QueryValue": "x", "Values": []}
    value = lambda expression: resolve(expression, World())  # noqa: E731
    assert conditions.holds(within, value)
    assert not conditions.holds({"Type": "Not", "Condition": within}, value)
    assert not conditions.holds({"Type": "Not", "Expression": within}, value)
    assert conditions.holds({"Type": "Or", "Conditions": [outside, within]}, value)
    assert not conditions.holds({"Type": "Or", "Conditions": []}, value)


@pytest.mark.parametrize(("condition", "told"), [
    ({"Type": "Equal"}, "Unknown condition type 'Equal'"),
    ("yes", "Unknown condition type 'yes'"),
    ({"Type": "Equals", "LeftValue": 1}, "needs 'RightValue'"),
    ({"Type": "In", "QueryValue": 1, "Values": 2}, "needs a list 'Values'"),
    ({"Type": "Or"}, "needs a list 'Conditions'"),
    ({"Type": "Not"}, "Unknown condition type"),
    ({"Type": "Not", "Condition": {"Type": "Equals", "LeftValue": 1, "RightValue": {"Get": "X"}}}, "Invalid property reference 'X'"),
])  # fmt: skip
def test_a_condition_without_its_members_is_refused(condition: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        list(conditions.check(condition))
