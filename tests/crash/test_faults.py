"""Faults of the machine around a running family: a database that others lock or damage, a stop in the middle of an upload."""

from __future__ import annotations

import http.client
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from os import kill
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from penstock.runs import sandbox
from tests.crash import workload
from tests.crash.families import Clan, raise_clan, until

BUCKET = "faults"
pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]


@pytest.fixture(scope="module")
def clan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clan]:
    with raise_clan(tmp_path_factory.mktemp("faults")) as raised:
        raised.client("s3").create_bucket(Bucket=BUCKET)
        yield raised


@contextmanager
def locked(clan: Clan) -> Iterator[None]:
    """Somebody else's transaction."""
    with closing(sqlite3.connect(clan.data / "penstock.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_a_database_that_somebody_locks_refuses_writes_answers_reads_and_goes_on(clan: Clan) -> None:
    s3 = clan.client("s3", 1)
    s3.put_object(Bucket=BUCKET, Key="before", Body=b"before")
    with locked(clan):
        with pytest.raises(ClientError, match="database is locked") as refused:
            s3.put_object(Bucket=BUCKET, Key="meanwhile", Body=b"")
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert s3.get_object(Bucket=BUCKET, Key="before")["Body"].read() == b"before"
    s3.put_object(Bucket=BUCKET, Key="after", Body=b"after")
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert keys == ["after", "before"]


def test_a_stop_lets_an_upload_end_and_its_bytes_are_there_afterwards(clan: Clan) -> None:
    """SIGTERM: no new connection is taken, and what has begun is answered."""
    body = bytes(range(256)) * 32768
    url = clan.client("s3").generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "slow"})
    parts = urlsplit(url)
    assert parts.hostname
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=60)
    connection.putrequest("PUT", f"{parts.path}?{parts.query}")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[: len(body) // 2])
    until(lambda: list((clan.data / "blobs" / "tmp").iterdir()), "it has begun")
    kill(clan.keeper, signal.SIGTERM)
    until(lambda: "server.json" not in [path.name for path in clan.data.iterdir()], "the server stops", 60)
    connection.send(body[len(body) // 2 :])
    assert connection.getresponse().status == 200
    connection.close()
    clan.up_again()
    assert clan.client("s3").get_object(Bucket=BUCKET, Key="slow")["Body"].read() == body


def test_a_damaged_database_is_one_sentence_at_the_start(clan: Clan) -> None:
    clan.client("s3").put_object(Bucket=BUCKET, Key="kept", Body=b"kept")
    clan.down()
    database = clan.data / "penstock.db"
    kept = {path: path.read_bytes() for path in clan.data.glob("penstock.db*")}  # with what is in its log
    database.write_bytes(b"x" * 100_000)
    said = clan.penstock("up", "--port", "0", "--doorway-port", "0")
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)
    assert "not a database" in said.stderr
    assert "penstock doctor" in said.stderr
    for path in clan.data.glob("penstock.db*"):
        path.unlink()
    for path, data in kept.items():
        path.write_bytes(data)
    clan.up()
    assert clan.client("s3").get_object(Bucket=BUCKET, Key="kept")["Body"].read() == b"kept"


def test_two_servers_that_start_on_one_folder_are_one(clan: Clan) -> None:
    clan.down()
    api, doorway = map(str, clan.ports)
    said: list[int] = []

    def start() -> None:
        said.append(clan.penstock("up", "--detach", "--port", api, "--doorway-port", doorway).returncode)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 in said
    clan.about = clan.running()
    clan.client("s3").put_object(Bucket=BUCKET, Key="one", Body=b"")
    assert [
        line for line in workload.failures(clan.log()) if "locked" not in line and "not a database" not in line
    ] == []
