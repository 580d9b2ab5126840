"""The model server, as a program: users' scripts, the framework's defaults, XGBoost's algorithm and every artifact of it."""

from __future__ import annotations

import http.client
import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from penstock.containers.penstock_serving import boosters, scripts, tables, web
from penstock.containers.penstock_serving.application import Application, Model

SERVER = Path(__file__).parents[2] / "src" / "penstock" / "containers" / "penstock_serving"
SHIMS = SERVER.parent / "shims"
CSV, JSON = "text/csv", "application/json"


def script(**functions: Any) -> Any:
    return type("script", (), {name: staticmethod(function) for name, function in functions.items()})


def invoke(made: Any, body: bytes, content_type: str = CSV, accept: str = "", framework: str = "sklearn") -> web.Reply:
    return scripts.load_script(made, framework, "/model")(body, content_type, accept)


class Sum:
    def predict(self, rows: Any) -> Any:
        return np.asarray(rows).sum(axis=1)


# --- scripts


def test_what_a_script_lacks_the_framework_does() -> None:
    made = script(model_fn=lambda folder: Sum())
    assert json.loads(invoke(made, b"1,2\n3,4\n").body) == [3.0, 7.0]
    reply = invoke(made, b"[[1, 2]]", JSON, CSV)
    assert (reply.body, reply.content_type) == (b"3.0\n", CSV)


def test_text_bodies_come_as_text_and_others_as_bytes() -> None:
    made = script(
        model_fn=lambda folder: folder, input_fn=lambda body, kind: body,
        predict_fn=lambda data, model: [type(data).__name__, model], output_fn=lambda found, accept: ",".join(found),
    )  # fmt: skip
    assert [invoke(made, b"x", kind).body for kind in (CSV, JSON, "image/png")] == [
        b"str,/model", b"str,/model", b"bytes,/model",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("result", "body", "kind"),
    [
        ("text", b"text", CSV),
        ((b"pair", "a/b"), b"pair", "a/b"),
        (np.array([1, 2]), b"1\n2\n", CSV),
        (None, b"", CSV),
    ],
)
def test_output_fn_may_give_a_body_a_pair_or_an_array(result: Any, body: bytes, kind: str) -> None:
    made = script(
        model_fn=lambda folder: None, input_fn=lambda body, kind: body, predict_fn=lambda data, model: data,
        output_fn=lambda found, accept: result,
    )  # fmt: skip
    assert invoke(made, b"x", accept=CSV) == web.Reply(200, body, kind)


def test_output_fn_may_give_the_response_of_awss_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SHIMS))
    from sagemaker_containers.beta.framework import worker  # type: ignore[import-not-found]

    assert scripts.as_reply(worker.Response(b"x", mimetype="a/b", status=201), CSV) == web.Reply(201, b"x", "a/b")


def test_transform_fn_does_all_and_stands_alone() -> None:
    made = script(model_fn=lambda folder: 2, transform_fn=lambda model, body, kind, accept: (body * model, accept))
    assert invoke(made, b"ab", accept=CSV) == web.Reply(200, b"abab", CSV)
    with pytest.raises(scripts.Faulty, match="Cannot use transform_fn"):
        invoke(script(model_fn=lambda folder: 2, transform_fn=print, predict_fn=print), b"")


def test_handlers_may_take_a_context() -> None:
    made = script(model_fn=lambda folder, context: Sum(), predict_fn=lambda data, model, context: model.predict(data))
    assert invoke(made, b"1,2\n", accept=CSV).body == b"3.0\n"


def test_what_goes_wrong_has_a_status_and_its_words() -> None:
    made = script(model_fn=lambda folder: Sum())
    assert invoke(made, b"x", "image/png").status == 415
    assert invoke(made, b"1,2\n", accept="image/png").status == 415
    broken = invoke(script(model_fn=lambda folder: None, predict_fn=lambda data, model: 1 / 0), b"1\n")
    assert (broken.status, broken.body) == (500, b"ZeroDivisionError: division by zero")


def test_the_default_accept_is_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", CSV)
    assert invoke(script(model_fn=lambda folder: Sum()), b"1,2\n", accept="*/*").body == b"3.0\n"


# --- tables


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b"1,2\n3,4", [[1, 2], [3, 4]]),
        (b"1.5,\n,2\n", [[1.5, None], [None, 2]]),
        (b"7\n8\n", [[7], [8]]),
        (b"1;2\n3;4\n", [[1, 2], [3, 4]]),
        (b"1\t2\n", [[1, 2]]),
        (b"1 2\n3 4\n", [[1, 2], [3, 4]]),
        (b" 1, 2\n", [[1, 2]]),
        (b"1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),
        (b"1e3,-2.5e-1\n", [[1000, -0.25]]),
        (b"1,nan\n", [[1, None]]),
    ],
)
def test_csv_becomes_numbers_missing_where_a_field_is_empty(body: bytes, rows: list[list[float | None]]) -> None:
    wanted = np.array([[np.nan if value is None else value for value in row] for row in rows])
    found = tables.read_csv(body)
    np.testing.assert_allclose(found, wanted)
    np.testing.assert_allclose(tables._by_pandas(body, tables.delimiter_of(body), "float64"), wanted)
    if b"," in body:
        np.testing.assert_allclose(tables._by_numpy(body, ",", "float64"), wanted)


def test_csv_is_read_by_another_library_where_pyarrow_asks_for_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def options(block_size: int) -> None:  # as in pyarrow 0.14, which the images of XGBoost 1.0 hold
        raise AssertionError("it has no column_names")

    monkeypatch.setattr("pyarrow.csv.ReadOptions", options)
    assert tables.read_csv(b"1,2\n3,4\n", "float32").tolist() == [[1, 2], [3, 4]]


def test_numbers_are_written_as_python_writes_them() -> None:
    assert tables.write_csv(np.array([1.0, 0.1, 1e20])) == b"1.0\n0.1\n1e+20\n"
    assert tables.write_csv(np.array([[1, 2], [3, 4]])) == b"1,2\n3,4\n"
    assert tables.write_csv(np.array([0.1], dtype=np.float32)) == b"0.1\n"
    assert tables.write_csv(["a,b", "c"]) == b'"a,b"\nc\n'
    assert tables.write_csv([]) == b""


# --- XGBoost


@pytest.fixture(scope="module")
def booster() -> Any:
    rows = np.array([[n % 2, n % 5] for n in range(100)], dtype=np.float32)
    return xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(rows, label=rows[:, 0]), 5)


ROWS = np.array([[0, 1], [1, 2]], dtype=np.float32)


def saved(booster: Any, how: str, folder: Path) -> None:
    if how == "pickle":
        (folder / "xgboost-model").write_bytes(pickle.dumps(booster))
    elif how == "classifier":
        classifier = xgboost.XGBClassifier(n_estimators=2).fit(ROWS, [0, 1])
        (folder / "xgboost-model").write_bytes(pickle.dumps(classifier))
    else:
        suffix, _, kind = how.partition(" ")
        raw = booster.save_raw(raw_format=kind)
        (folder / f"xgboost-model{suffix if suffix != '-' else ''}").write_bytes(bytes(raw))


@pytest.mark.parametrize("how", ["pickle", "classifier", "- json", "- ubj", ".json json", ".ubj ubj"])
def test_every_artifact_of_xgboost_is_told_by_its_bytes(booster: Any, how: str, tmp_path: Path) -> None:
    saved(booster, how, tmp_path)
    loaded = boosters.load(str(tmp_path), 1)
    assert loaded.objective == "binary:logistic"
    found = boosters.predict(loaded, xgboost.DMatrix(ROWS))
    if how != "classifier":
        np.testing.assert_allclose(found, booster.predict(xgboost.DMatrix(ROWS)), rtol=1e-5)


def test_a_file_that_is_no_model_is_told_in_both_readers_words(tmp_path: Path) -> None:
    (tmp_path / "xgboost-model").write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match=r"Pickle load error=(.|\n)*XGB load model error="):
        boosters.load(str(tmp_path), 1)
    (tmp_path / "xgboost-model").unlink()
    with pytest.raises(RuntimeError, match="no model file"):
        boosters.load(str(tmp_path), 1)


def test_bodies_of_every_content_type_predict_the_same(booster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SHIMS))
    pandas = pytest.importorskip("pandas")
    parquet = io.BytesIO()
    pandas.DataFrame(ROWS, columns=["a", "b"]).to_parquet(parquet)
    labelled = boosters.records([{"x": 1.0}])  # only to see that it is RecordIO
    assert labelled[:4] == b"\x0a\x23\xd7\xce"
    invoking = boosters.invoking(boosters.Boosters([booster], "binary:logistic", 0))
    bodies = {
        "text/csv": b"0,1\n1,2\n", "text/libsvm": b"0 0:0 1:1\n0 0:1 1:2\n", "text/x-libsvm": b"0:0 1:1\n0:1 1:2",
        "application/x-parquet": parquet.getvalue(),
    }  # fmt: skip
    answers = {kind: invoking(body, kind, CSV) for kind, body in bodies.items()}
    assert {reply.status for reply in answers.values()} == {200}, answers
    values = [[float(line) for line in reply.body.split()] for reply in answers.values()]
    wanted = booster.predict(xgboost.DMatrix(ROWS))
    for each in values:
        np.testing.assert_allclose(each, wanted, rtol=1e-5)


def test_answers_have_the_form_asked_for(booster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    invoking = boosters.invoking(boosters.Boosters([booster], "binary:logistic", 0))
    wanted = booster.predict(xgboost.DMatrix(ROWS)).tolist()
    assert json.loads(invoking(b"0,1\n1,2\n", CSV, JSON).body) == {"predictions": [{"score": v} for v in wanted]}
    assert invoking(b"0,1\n1,2\n", CSV, "image/png").status == 406
    assert invoking(b"", CSV, CSV).status == 204
    assert invoking(b"a,b\n", CSV, CSV).status == 415
    assert invoking(b"1,2,3,4,5,6\n", CSV, CSV).status == 400
    monkeypatch.setenv("SAGEMAKER_BATCH", "true")
    assert invoking(b"0,1\n1,2\n", CSV, JSON).body == "".join(f"{v}\n" for v in wanted).encode()


def test_selected_contents_are_what_the_objective_has(booster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_INFERENCE_OUTPUT", "predicted_label, probabilities")
    invoking = boosters.invoking(boosters.Boosters([booster], "binary:logistic", 0))
    rows = json.loads(invoking(b"0,1\n1,2\n", CSV, JSON).body)["predictions"]
    assert [row["predicted_label"] for row in rows] == [0, 1]
    assert all(abs(sum(row["probabilities"]) - 1) < 1e-6 for row in rows)
    lines = invoking(b"0,1\n", CSV, CSV).body.decode()
    assert lines.startswith('0,"[')


# --- HTTP


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Any]:
    application = Application()
    listening = web.listen(f"unix:{tmp_path}/sock")
    thread = threading.Thread(target=web.serve, args=(listening, application), daemon=True)
    thread.start()

    def ask(data: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(f"{tmp_path}/sock")
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))

    yield application, ask
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(30)


def test_ping_is_200_once_a_model_is_there(served: Any) -> None:
    application, ask = served
    assert ask(b"GET /ping HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 503")
    application.models[""] = Model(lambda body, kind, accept: web.Reply(200, bytes(body)[::-1], kind))
    assert ask(b"GET /ping HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert ask(b"GET /execution-parameters HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 404")
    assert ask(b"GET /models HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 404")


def test_bodies_come_by_length_or_in_chunks_and_connections_are_kept(served: Any) -> None:
    application, ask = served
    application.models[""] = Model(lambda body, kind, accept: web.Reply(200, bytes(body)[::-1], kind))
    one = b"POST /invocations HTTP/1.1\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nabc"
    two = b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
    answer = ask(one + two)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"cba" in answer
    assert answer.endswith(b"fed")
    large = os.urandom(3 << 20)
    answer = ask(b"POST /invocations HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(large) + large)
    assert answer.endswith(large[::-1])
    assert ask(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")


# --- the program


class Program:
    """The server started as jobs start it, on this Python."""

    def __init__(self, folder: Path):
        self.folder, self.model = folder, folder / "model"
        self.process: subprocess.Popen[bytes] | None = None

    def archive(self, **files: str) -> str:
        """A model's archive, for a model folder that is empty."""
        path = self.folder / "model.tar.gz"
        shutil.rmtree(self.model, ignore_errors=True)
        with tarfile.open(path, "w:gz") as tar:
            for name, text in files.items():
                data = textwrap.dedent(text).encode()
                info = tarfile.TarInfo(name.replace("___", "/").replace("__", "."))
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return str(path)

    def start(self, *options: str, **env: str) -> None:
        command = [
            sys.executable, str(SERVER), "--bind", f"unix:{self.folder}/sock", "--model-dir", str(self.model),
            "--failure", str(self.folder / "failure"), *options,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, env={"PATH": os.environ["PATH"], **env}, stderr=subprocess.DEVNULL)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        try:
            connection.sock.connect(f"{self.folder}/sock")
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ready(self) -> None:
        assert self.process is not None
        while self.process.poll() is None:
            try:
                if self.ask("GET", "/ping")[0] == 200:
                    return
            except OSError:
                threading.Event().wait(0.02)
        raise AssertionError((self.folder / "failure").read_text())

    def ended(self) -> str:
        assert self.process is not None
        assert self.process.wait(60) == 1
        return (self.folder / "failure").read_text()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait()


SCRIPT = """
    import helper
    def model_fn(model_dir):
        return open(model_dir + "/weights").read()
    def transform_fn(model, body, content_type, accept):
        return helper.join(model, body), "text/plain"
    """


def test_the_script_in_a_models_archive_is_served_with_what_lies_beside_it(program: Program) -> None:
    archive = program.archive(
        weights="w", code___inference__py=SCRIPT, code___helper__py="def join(*parts):\n    return '-'.join(parts)\n"
    )
    program.start("--archive", archive)
    program.ready()
    assert program.ask("POST", "/invocations", b"body", Content_Type=CSV) == (200, b"w-body")


def test_code_in_s3_is_unpacked_beside_the_model(program: Program) -> None:
    archive = program.archive(
        main__py="def model_fn(d):\n    return 1\ndef transform_fn(m, b, c, a):\n    return 'x'\n"
    )
    (program.folder / "source").mkdir()
    os.rename(archive, program.folder / "source" / "sourcedir.tar.gz")
    program.start(
        "--source", str(program.folder / "source"),
        SAGEMAKER_PROGRAM="main.py", SAGEMAKER_SUBMIT_DIRECTORY="s3://b/code/sourcedir.tar.gz",
    )  # fmt: skip
    program.ready()
    assert program.ask("POST", "/invocations", b"")[1] == b"x"


def test_why_there_is_no_server_is_left_in_the_failure_file(program: Program) -> None:
    program.start("--archive", program.archive(weights="w"))
    assert program.ended().startswith("The model has no script: SAGEMAKER_PROGRAM is not set")
    program.start(
        "--archive", program.archive(code___inference__py="def model_fn(d):\n    raise ValueError('bad weights')\n")
    )
    assert program.ended() == "ValueError: bad weights"
    program.start("--archive", program.archive(code___other__py=""), SAGEMAKER_PROGRAM="inference.py")
    assert program.ended().startswith("ImportError: there is no inference.py in the model's code")
    (program.folder / "broken.tar.gz").write_bytes(b"no archive")
    program.start("--archive", str(program.folder / "broken.tar.gz"))
    assert program.ended().startswith("broken.tar.gz cannot be unpacked")
