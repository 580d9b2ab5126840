"""A transform job's driver: splitting, filters, joining, and the way of files through a server."""

from __future__ import annotations

import io
import json
import struct
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from penstock.containers.penstock_transform import driver, filters, records, servers, work

MB = 1 << 20


def split(data: bytes, how: str, single: bool = False, limit_bytes: int = MB) -> list[bytes]:
    return list(records.bodies(io.BytesIO(data), how, single, limit_bytes))


def recordio(*payloads: bytes) -> list[bytes]:
    return [struct.pack("<II", 0xCED7230A, len(p)) + p + b"\0" * (-len(p) % 4) for p in payloads]


def tfrecords(*payloads: bytes) -> list[bytes]:
    return [struct.pack("<Q", len(p)) + b"crc1" + p + b"crc2" for p in payloads]


# --- splitting


@pytest.mark.parametrize("size", [4, 5, 6, 7, 8, 11, 12, 13, 100])
def test_blocks_of_lines_hold_whole_lines_and_give_the_file_again(size: int) -> None:
    data = b"1\n22\n333\n\n44\n5"
    found = split(data, "Line", limit_bytes=size)
    assert b"".join(found) == data
    assert all(len(body) <= size for body in found)
    assert all(body.endswith(b"\n") for body in found[:-1])


def test_single_records_are_lines_without_their_ends_and_no_empty_ones() -> None:
    assert split(b"1,2\r\n\n3\n4", "Line", single=True) == [b"1,2", b"3", b"4"]


def test_without_a_split_the_object_is_one_body_and_an_empty_one_none() -> None:
    assert split(b"all\nof it", "None") == [b"all\nof it"]
    assert split(b"", "None") == split(b"", "Line") == split(b"", "RecordIO") == []


@pytest.mark.parametrize(("how", "make"), [("RecordIO", recordio), ("TFRecord", tfrecords)])
def test_binary_records_stay_whole_alone_and_in_batches(how: str, make: Any) -> None:
    whole = make(b"a", b"bcd", b"", b"efghij")
    assert split(b"".join(whole), how, single=True) == whole
    batched = split(b"".join(whole), how, limit_bytes=len(whole[0] + whole[1]))
    assert b"".join(batched) == b"".join(whole)
    assert len(batched) == 2 if how == "RecordIO" else 3


@pytest.mark.parametrize(
    ("data", "how", "said"),
    [
        (b"x" * 20, "None", "larger than MaxPayloadInMB"),
        (b"short\n" + b"x" * 20, "Line", "a record is larger than MaxPayloadInMB"),
        (b"1,2\n3,4\n", "RecordIO", "no RecordIO record at byte 0"),
        (recordio(b"ab")[0] + b"zz", "RecordIO", "no RecordIO record at byte 12"),
        (recordio(b"abcdefgh")[0][:-2], "RecordIO", "the record at byte 0 is cut off"),
        (b"1,2\n3,4\n5", "TFRecord", "no TFRecord at byte 0"),
    ],
)
def test_what_cannot_be_split_is_told_with_its_place(data: bytes, how: str, said: str) -> None:
    for single in (True, False):
        with pytest.raises(records.Unsplittable, match=said):
            split(data, how, single, limit_bytes=12)


def test_answers_get_a_lines_end_only_where_it_is_asked_for_and_missing() -> None:
    assert [records.joined(b"1", "Line"), records.joined(b"1\n", "Line"), records.joined(b"1", "None")] == [
        b"1\n", b"1\n", b"1",
    ]  # fmt: skip


# --- filters


@pytest.mark.parametrize(
    ("path", "record", "found"),
    [
        ("$", [1, 2], [1, 2]),
        ("$[1:]", [1, 2, 3], [2, 3]),
        ("$[1:2]", [1, 2, 3, 4], [2, 3]),
        ("$[:1]", [1, 2, 3], [1, 2]),
        ("$[0,-1]", [1, 2, 3], [1, 3]),
        ("$[0,5:]", list(range(8)), [0, 5, 6, 7]),
        ("$[-1]", [1, 2, 3], 3),
        ("$.features", {"features": [1], "id": 2}, [1]),
        ("$['id','SageMakerOutput']", {"id": 1, "x": 2, "SageMakerOutput": 3}, {"id": 1, "SageMakerOutput": 3}),
        ("$.field1.['a','b']", {"field1": {"a": 1, "b": 2, "c": 3}}, {"a": 1, "b": 2}),
        ("$.SageMakerOutput[0].score", {"SageMakerOutput": [{"score": 0.5}]}, 0.5),
        ("$.rows[*].x", {"rows": [{"x": 1}, {"x": 2}]}, [1, 2]),
        ("$.*", {"a": 1, "b": 2}, [1, 2]),
    ],
)
def test_paths_select(path: str, record: Any, found: Any) -> None:
    assert filters.select(record, filters.parse(path), path) == found


@pytest.mark.parametrize("path", ["features", "$features", "$[", "$[a]", "$.['a'", "$..x", "$[?(@.x)]", ""])
def test_what_is_no_path_is_told(path: str) -> None:
    with pytest.raises(filters.Unfit, match="is no JSONPath"):
        filters.parse(path)


@pytest.mark.parametrize(
    ("path", "record"), [("$.x", {"y": 1}), ("$[3]", [1, 2]), ("$[5:]", [1]), ("$.x", [1]), ("$['a','b']", {"a": 1})]
)
def test_a_path_that_matches_nothing_says_which_and_in_what(path: str, record: Any) -> None:
    with pytest.raises(filters.Unfit) as wrong:
        filters.select(record, filters.parse(path), path)
    assert f"{path} matches nothing in {json.dumps(record)}" in str(wrong.value)


def process(kind: str, body: bytes, answer: bytes, split: str = "Line", **config: str) -> tuple[bytes, bytes]:
    found = filters.processing(config, kind, "", split)
    assert found is not None
    return found.send(body), found.keep(body, answer)


def test_rows_are_joined_field_by_field_and_quoted_where_they_must() -> None:
    sent, kept = process(
        "text/csv", b'id-1,"a,b",3\nid-2,c,4\n', b"0.1\n0.2\n", InputFilter="$[2:]", JoinSource="Input"
    )
    assert (sent, kept) == (b"3\n4\n", b'id-1,"a,b",3,0.1\nid-2,c,4,0.2\n')


def test_json_gets_its_prediction_beside_its_own_members() -> None:
    sent, kept = process(
        "application/json", b'{"id": 7, "features": [1, 2]}', b"[0.5]", "None",
        InputFilter="$.features", JoinSource="Input", OutputFilter="$['id','SageMakerOutput']",
    )  # fmt: skip
    assert (json.loads(sent), json.loads(kept)) == ([1, 2], {"id": 7, "SageMakerOutput": [0.5]})
    _, listed = process("application/json", b"[1, 2]", b"3", "None", JoinSource="Input")
    assert json.loads(listed) == {"SageMakerInput": [1, 2], "SageMakerOutput": 3}


def test_json_lines_are_joined_with_lines_or_with_the_one_list_of_an_answer() -> None:
    body = b'{"a": 1}\n{"a": 2}\n'
    wanted = [{"a": 1, "SageMakerOutput": 5}, {"a": 2, "SageMakerOutput": 6}]
    for answer in (b"5\n6\n", b"[5, 6]", b'{"predictions": [5, 6]}'):
        _, kept = process("application/jsonlines", body, answer, JoinSource="Input")
        assert [json.loads(line) for line in kept.splitlines()] == wanted


def test_answers_that_are_fewer_than_their_records_cannot_be_joined() -> None:
    with pytest.raises(filters.Unfit, match="answered 1 records for 2"):
        process("text/csv", b"1\n2\n", b"3\n", JoinSource="Input")


def test_filters_of_what_has_no_records_are_refused_and_none_change_nothing() -> None:
    with pytest.raises(filters.Unfit, match="text/csv"):
        filters.processing({"InputFilter": "$[1:]"}, "image/png", "", "None")
    assert (
        filters.processing({"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"}, "image/png", "", "") is None
    )


# --- the way of files

ECHO = """
    import http.server, os, sys, time

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        failed = []

        def log_message(self, *arguments):
            pass

        def do_GET(self):
            parameters = b'{"MaxConcurrentTransforms": 3, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 1}'
            self.answer(200, parameters if self.path == "/execution-parameters" else b"")

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if b"leave" in body:
                os._exit(3)
            if b"once" in body and body not in self.failed:
                self.failed.append(body)
                return self.answer(500, b"not now")
            if b"wrong" in body:
                return self.answer(400, b"what a record")
            time.sleep(0.02 if b"slow" in body else 0)
            self.answer(200, body.upper())

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
    """


class Desk:
    """A driver's configuration, with a program of the image's own for a model."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, free_port: int):
        self.folder = folder
        monkeypatch.setattr(servers, "TEMPORARY", str(folder))
        monkeypatch.setattr(servers, "PORT", free_port)
        self.config: dict[str, Any] = {
            "content_type": "text/csv", "accept": "", "split": "Line", "compression": "None", "assemble": "Line",
            "strategy": "", "payload_mb": None, "concurrent": 0, "processing": {}, "timeout_s": 20, "retries": 1,
            "cpus": 2, "folder": str(folder / "written"), "failure": str(folder / "failure"), "unset": [], "scripted": False,
            "containers": [self.container(textwrap.dedent(ECHO))], "objects": [],
        }  # fmt: skip

    def container(self, program: str) -> dict[str, Any]:
        return {
            "name": "The container",
            "framework": "python",
            "entrypoint": [sys.executable, "-c", program],
            "env": {},
        }

    def put(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)
        target = str(self.folder / "answers" / f"{name}.out")
        self.config["objects"].append({"path": str(self.folder / name), "target": target, "uri": f"s3://b/{name}"})

    def run(self, **config: Any) -> int:
        (self.folder / "config.json").write_text(json.dumps({**self.config, **config}))
        return driver.main(str(self.folder / "config.json"))

    def answer(self, name: str) -> bytes | None:
        path = self.folder / "answers" / f"{name}.out"
        return path.read_bytes() if path.exists() else None

    @property
    def failure(self) -> str:
        return (self.folder / "failure").read_text()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int) -> Any:
    monkeypatch.setattr(driver.signal, "signal", lambda number, act: None)
    return Desk(tmp_path, monkeypatch, free_port)


def test_answers_keep_the_order_of_their_records_however_long_each_takes(desk: Desk) -> None:
    lines = [f"{'slow' if n % 3 == 0 else 'fast'}-{n}" for n in range(30)]
    desk.put("a.csv", "\n".join(lines).encode())
    desk.put("b.csv", b"x\n")
    desk.put("none.csv", b"")
    assert desk.run() == 0
    assert desk.answer("a.csv") == ("\n".join(lines).upper() + "\n").encode()
    assert (desk.answer("b.csv"), desk.answer("none.csv")) == (b"X\n", b"")


def test_what_the_job_does_not_say_is_asked_of_the_container(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    desk.put("a.csv", b"x\ny\n")
    assert desk.run() == 0
    assert "MaxConcurrentTransforms=3, MaxPayloadInMB=1, BatchStrategy=SINGLE_RECORD" in capfd.readouterr().out
    assert desk.run(concurrent=1, payload_mb=2, strategy="MultiRecord") == 0
    assert "MaxConcurrentTransforms=1, MaxPayloadInMB=2, BatchStrategy=MULTI_RECORD" in capfd.readouterr().out


def test_a_file_with_a_refused_record_has_no_answer_and_the_rest_goes_on(desk: Desk) -> None:
    for name, data in (("a.csv", b"1\n"), ("b.csv", b"1\nwrong\n2\n"), ("c.csv", b"3\n"), ("d.csv", b"wrong\n")):
        desk.put(name, data)
    assert desk.run() == 1
    assert [desk.answer(name) for name in ("a.csv", "b.csv", "c.csv", "d.csv")] == [b"1\n", None, b"3\n", None]
    assert desk.failure == (
        "ClientError: s3://b/b.csv failed: Bad HTTP status received from algorithm: 400. Message: what a record "
        "So did 1 more of this instance's files."
    )


def test_a_server_that_fails_is_asked_again_as_often_as_the_job_says(desk: Desk) -> None:
    desk.put("a.csv", b"once\n")
    assert desk.run(retries=0) == 1
    assert desk.failure.startswith("AlgorithmError: s3://b/a.csv failed: Bad HTTP status received from algorithm: 500")
    assert desk.run(retries=1) == 0


def test_a_server_that_leaves_ends_the_job_with_its_exit_code(desk: Desk) -> None:
    desk.put("a.csv", b"1\nleave\n")
    assert desk.run() == 1
    assert desk.failure == "AlgorithmError: The container: the model server ended with exit code 3; its log says why"


def test_a_server_that_never_was_is_told_at_once(desk: Desk) -> None:
    desk.put("a.csv", b"1\n")
    assert desk.run(containers=[desk.container("raise SystemExit(7)")]) == 1
    assert "ended with exit code 7" in desk.failure


def test_a_whole_object_larger_than_the_payload_is_the_datas_fault(desk: Desk) -> None:
    desk.put("a.csv", b"x" * (MB + 1))
    assert desk.run(split="None", payload_mb=1) == 1
    assert desk.failure.startswith("ClientError: s3://b/a.csv failed: the object is larger than MaxPayloadInMB (1 MB)")
    assert desk.run(split="None", payload_mb=2) == 0


def test_a_compressed_file_that_is_none_fails_alone(desk: Desk) -> None:
    desk.put("a.csv", b"plain\n")
    assert desk.run(compression="Gzip") == 1
    assert desk.failure.startswith("ClientError: s3://b/a.csv failed: ")


def test_a_filter_that_matches_nothing_names_path_and_record(desk: Desk) -> None:
    desk.put("a.csv", b"1,2\n")
    assert desk.run(processing={"InputFilter": "$[4]"}) == 1
    assert desk.failure == 'ClientError: s3://b/a.csv failed: $[4] matches nothing in ["1", "2"]'


def test_nothing_of_a_file_is_in_its_place_before_its_last_answer(desk: Desk, tmp_path: Path) -> None:
    seen: list[bool] = []

    class Lane:
        def invoke(self, body: bytes) -> bytes:
            seen.append((tmp_path / "answers").exists())
            return body

        def close(self) -> None:
            pass

    desk.put("a.csv", b"1\n2\n3\n")
    plan = work.Plan("Line", True, MB, 1, "Line", "None")
    (tmp_path / "written").mkdir()
    job = work.Job(desk.config["objects"], plan, None, [Lane()], str(tmp_path / "written"), print)  # type: ignore[list-item]
    assert job.run() == []
    assert seen == [False, False, False]
    assert desk.answer("a.csv") == b"1\n2\n3\n"
