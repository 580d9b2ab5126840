"""What AWS's images let scripts import: run with a bare Python, as a script would."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SHIMS = Path(__file__).resolve().parents[2] / "src" / "penstock" / "containers" / "shims"


def run_script(code: str, **env: str) -> Any:
    """What the script prints last, as JSON."""
    words = [sys.executable, "-B", "-c", code]
    done = subprocess.run(words, env={"PYTHONPATH": str(SHIMS), **env}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def base(tmp_path: Path) -> str:
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    given = {
        "depth": "3",
        "name": '"a b"',
        "plain": "reg:linear",
        "sagemaker_program": '"train.py"',
        "sagemaker_region": '"x"',
    }
    (config / "hyperparameters.json").write_text(json.dumps(given))
    (config / "inputdataconfig.json").write_text(json.dumps({"train": {}, "test": {}}))
    (config / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]}))
    return str(tmp_path)


def test_the_training_environment_reads_the_job_s_files(base: str) -> None:
    code = (
        "import json; from sagemaker_training import environment; e = environment.Environment()\n"
        "print(json.dumps([e.hyperparameters, sorted(e.channel_input_dirs.items()), e.current_host, e.is_master,"
        " e.module_name, e.additional_framework_parameters, e.num_cpus, e.model_dir]))"
    )
    found = run_script(code, SAGEMAKER_BASE_DIR=base, SM_NUM_CPUS="4")
    assert found == [
        {"depth": 3, "name": "a b", "plain": "reg:linear"},
        [["test", f"{base}/input/data/test"], ["train", f"{base}/input/data/train"]],
        "algo-2",
        False,
        "train",
        {"sagemaker_region": "x"},
        4,
        f"{base}/model",
    ]


def test_the_environment_becomes_arguments_and_variables(base: str) -> None:
    code = (
        "import json; from sagemaker_containers.beta import framework; e = framework.training_env()\n"
        "v = e.to_env_vars(); print(json.dumps([e.to_cmd_args(), v['SM_HP_DEPTH'], v['SM_HOSTS'],"
        " v['SM_CHANNEL_TRAIN'], dict(e)['hosts']]))"
    )
    found = run_script(code, SAGEMAKER_BASE_DIR=base)
    assert found[0] == ["--depth", "3", "--name", "a b", "--plain", "reg:linear"]
    assert found[1:] == ["3", '["algo-1","algo-2"]', f"{base}/input/data/train", ["algo-1", "algo-2"]]


def test_arrays_survive_every_format() -> None:
    pytest.importorskip("numpy")
    code = (
        "import json; from sagemaker_inference import content_types as t, decoder, encoder\n"
        "print(json.dumps([decoder.decode(encoder.encode([[1.0, 2.0], [3.0, 4.0]], c), c).tolist()"
        " for c in (t.JSON, t.CSV, t.NPY)]))"
    )
    assert run_script(code) == [[[1.0, 2.0], [3.0, 4.0]]] * 3


def test_a_pickle_is_never_loaded() -> None:
    pytest.importorskip("numpy")
    code = (
        "import io, json, numpy; from sagemaker_containers.beta.framework import encoders\n"
        "b = io.BytesIO(); numpy.save(b, numpy.array([{}], dtype=object), allow_pickle=True)\n"
        "try: encoders.decode(b.getvalue(), 'application/x-npy')\n"
        "except ValueError: print(json.dumps('refused'))"
    )
    assert run_script(code) == "refused"


def test_an_unknown_content_type_is_an_unsupported_format() -> None:
    code = (
        "import json; from sagemaker_containers.beta.framework import encoders, errors\n"
        "try: encoders.decode(b'', 'image/png')\n"
        "except errors.UnsupportedFormatError as e: print(json.dumps(str(e)))"
    )
    assert "image/png" in run_script(code)


def test_a_worker_response_holds_body_and_type() -> None:
    code = (
        "import json; from sagemaker_containers.beta.framework import worker\n"
        "r = worker.Response('[1]', mimetype='application/json')\n"
        "s = worker.Response({'a': 1})\n"
        "print(json.dumps([r.get_data(as_text=True), r.mimetype, r.status_code, s.data.decode()]))"
    )
    assert run_script(code) == ["[1]", "application/json", 200, '{"a": 1}']


def test_the_default_handler_serves_json_for_any_accept() -> None:
    pytest.importorskip("numpy")
    code = (
        "import json; from sagemaker_inference.default_inference_handler import DefaultInferenceHandler as H\n"
        "print(json.dumps(H().default_output_fn([1, 2], 'image/png, */*')))"
    )
    assert run_script(code) == ["[1, 2]", "application/json"]


def test_a_csv_request_becomes_a_dmatrix_with_missing_values() -> None:
    pytest.importorskip("xgboost")
    code = (
        "import json; from sagemaker_xgboost_container import encoder\n"
        "m = encoder.csv_to_dmatrix(b'1,2,3\\n4,,6\\n')\n"
        "print(json.dumps([m.num_row(), m.num_col(), m.num_nonmissing()]))"
    )
    assert run_script(code) == [2, 3, 5]


def test_script_mode_checkpointing_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("xgboost")
    code = (
        "import json, numpy, xgboost; from sagemaker_xgboost_container import checkpointing as c\n"
        "d = xgboost.DMatrix(numpy.random.rand(20, 3), label=numpy.arange(20))\n"
        "def t(n): return c.train(dict(params={}, dtrain=d, num_boost_round=n, evals=[(d, 'train')]), FOLDER)\n"
        "t(2); print(json.dumps(t(5).num_boosted_rounds()))"
    )
    assert run_script(f"FOLDER = {str(tmp_path)!r}\n{code}") == 5


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def make_record(features: bytes, label: bytes) -> bytes:
    payload = b"".join(field(n, field(1, b"values") + field(2, field(2, t))) for n, t in ((1, features), (2, label)))
    padding = b"\0" * (-len(payload) % 4)
    return (0xCED7230A).to_bytes(4, "little") + len(payload).to_bytes(4, "little") + payload + padding


def test_recordio_protobuf_is_read_dense_and_sparse() -> None:
    np = pytest.importorskip("numpy")
    pytest.importorskip("scipy")

    def floats(*values: float) -> bytes:
        return bytes(np.array(values, "<f4").tobytes())

    dense = make_record(field(1, floats(1, 2, 3)), field(1, floats(7)))
    sparse = make_record(field(1, floats(5)) + field(2, varint(2)) + field(3, varint(300)), field(1, floats(1)))
    code = (
        "import json; from sagemaker_xgboost_container.recordio_protobuf import read_dataset\n"
        "d, y = read_dataset([DENSE]); s, _ = read_dataset([SPARSE])\n"
        "print(json.dumps([d.tolist(), y.tolist(), s.shape, s[0, 2]], default=float))"
    )
    assert run_script(f"DENSE, SPARSE = {dense!r}, {sparse!r}\n{code}") == [[[1, 2, 3]], [7], [1, 300], 5]


def test_every_module_is_written_for_python_3_7() -> None:
    for path in [*SHIMS.rglob("*.py"), *SHIMS.parent.joinpath("algorithm_xgboost").glob("*.py")]:
        ast.parse(path.read_text(), feature_version=(3, 7))


def test_nothing_of_penstock_is_imported() -> None:
    for path in [*SHIMS.rglob("*.py"), *SHIMS.parent.joinpath("algorithm_xgboost").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.split(".")[0] == "penstock"], path
