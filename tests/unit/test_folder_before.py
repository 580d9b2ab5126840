"""A data folder of an earlier version, kept as SQL text: what comes later must bring it up and find everything.

`tests/data/folder_<schema>.sql` is added with each migration, from the version before it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock import server
from penstock.cli import findings
from penstock.settings import Settings
from penstock.store.sqlite import SqliteStore
from penstock.store.writer import Writer
from tests.conftest import World

FOLDERS = sorted((Path(__file__).parent.parent / "data").glob("folder_*.sql"))


@pytest.fixture(params=FOLDERS, ids=lambda path: path.stem)
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    settings = Settings(data=tmp_path / "data")
    settings.data.mkdir(mode=0o700)
    database = server.database(settings)
    with closing(sqlite3.connect(database)) as made:
        made.executescript(request.param.read_text())
    store = SqliteStore(database, Writer(database))
    yield World(server.app_of(settings, store))
    store.close()
    assert findings.fault_of_database(database, served=False) == ""


def test_what_a_folder_of_an_earlier_version_held_is_there(before: World) -> None:
    found = before("s3", "HeadObject", Bucket="kept", Key="a/b.txt")
    assert (found["ContentLength"], found["Metadata"]) == (10, {"who": "me"})
    group = before("sagemaker", "DescribeModelPackageGroup", ModelPackageGroupName="kept")
    tags = before("sagemaker", "ListTags", ResourceArn=group["ModelPackageGroupArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "one"}]
    listed = before("sagemaker", "ListPipelineExecutions", PipelineName="kept")["PipelineExecutionSummaries"]
    assert len(listed) == 1


def test_work_that_an_earlier_version_left_is_done(before: World) -> None:
    (execution,) = before("sagemaker", "ListPipelineExecutions", PipelineName="kept")["PipelineExecutionSummaries"]
    document = before.app.store.by_arn(execution["PipelineExecutionArn"])
    assert document is not None
    for _ in range(10):
        if before.step(document) is None:
            break
    arn = execution["PipelineExecutionArn"]
    ended = before("sagemaker", "DescribePipelineExecution", PipelineExecutionArn=arn)
    assert ended["PipelineExecutionStatus"] == "Failed"
