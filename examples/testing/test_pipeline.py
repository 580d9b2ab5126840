"""The pipeline's tests: `pytest --penstock`."""

import json

import pipeline

WHOLE = "a,b\n1,2\n3,4\n5,6\n"
HOLES = "a,b\n1,\n3,\n5,6\n"


def test_a_whole_table_passes(penstock):
    pipeline.create("clean", penstock.role, penstock.bucket)
    table = penstock.put("tables/1.csv", WHOLE)
    execution = penstock.run("clean", Table=table, Target=f"s3://{penstock.bucket}/out")
    assert execution.succeeded, execution
    assert penstock.read(f"s3://{penstock.bucket}/out/clean/table.csv").decode() == WHOLE
    assert json.loads(penstock.read(f"s3://{penstock.bucket}/out/report/report.json"))["rows"] == 3


def test_a_table_with_holes_is_refused(penstock):
    pipeline.create("clean", penstock.role, penstock.bucket)
    table = penstock.put("tables/1.csv", HOLES)
    execution = penstock.run("clean", Table=table, Target=f"s3://{penstock.bucket}/out")
    assert execution.status == "Failed"
    assert execution.steps["TooManyHoles"]["FailureReason"] == "The table has too many holes."


def test_how_many_holes_are_too_many_is_a_parameter(penstock):
    pipeline.create("clean", penstock.role, penstock.bucket)
    table = penstock.put("tables/1.csv", HOLES)
    execution = penstock.run("clean", Table=table, Target=f"s3://{penstock.bucket}/out", MostHoles=0.9)
    assert execution.succeeded, execution
