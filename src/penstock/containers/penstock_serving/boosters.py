"""XGBoost's built-in algorithm as a server: its artifacts, its content types, its forms of answers.

Source: github.com/aws/sagemaker-xgboost-container (algorithm_mode/serve.py, serve_utils.py, encoder.py);
docs.aws.amazon.com/sagemaker/latest/dg/xgboost.html, cdf-inference.html.
"""

import io
import json
import os
import pickle
import struct
import traceback
from typing import Any, Dict, List, NamedTuple, Tuple

from . import tables
from .application import Invoke
from .web import Reply

JSON, LINES, CSV, RECORDIO = "application/json", "application/jsonlines", "text/csv", "application/x-recordio-protobuf"
ACCEPTS = (JSON, LINES, RECORDIO, CSV)
KINDS = {
    "text/csv": "csv", "csv": "csv", "text/libsvm": "libsvm", "text/x-libsvm": "libsvm", "libsvm": "libsvm", "": "libsvm",
    "application/x-parquet": "parquet", "parquet": "parquet",
    RECORDIO: "recordio", "recordio-protobuf": "recordio",
}  # fmt: skip
REGRESSION = ("reg:squarederror", "reg:logistic", "reg:gamma", "reg:absoluteerror", "reg:tweedie")
CLASSES = ("predicted_label", "labels", "probability", "probabilities", "raw_score", "raw_scores")
SCORES = ("predicted_label", "labels", "raw_score", "raw_scores")
VALID: Dict[str, Tuple[str, ...]] = {
    **dict.fromkeys(REGRESSION, ("predicted_score",)),
    "binary:logistic": CLASSES, "binary:logitraw": SCORES, "binary:hinge": SCORES,
    "multi:softmax": SCORES, "multi:softprob": CLASSES,
}  # fmt: skip
MAGIC = 0xCED7230A


class Unreadable(Exception):
    """A body that is not what its content type says."""


class Boosters(NamedTuple):
    """What a model folder holds: one booster, or several that vote."""

    models: List[Any]
    objective: str
    classes: int


def load(model_dir: str, threads: int) -> Boosters:
    """The boosters of a folder: pickled, binary, JSON or UBJ, told apart by their bytes.

    Raises: RuntimeError with both readers' words for a file that is no model.
    """
    names = sorted(name for name in os.listdir(model_dir) if not name.startswith("."))
    paths = [os.path.join(model_dir, name) for name in names]
    files = [path for path in paths if os.path.isfile(path)]
    if not files:
        raise RuntimeError("There is no model file in the model's archive.")
    if os.environ.get("SAGEMAKER_INFERENCE_ENSEMBLE", "true") != "true":
        files = files[:1]
    models = [load_one(path, threads) for path in files]
    objective, classes = _objective(models[0])
    return Boosters(models, objective, classes)


def load_one(path: str, threads: int) -> Any:
    """One booster."""
    import xgboost

    try:
        with open(path, "rb") as file:
            found = pickle.load(file)  # noqa: S301 - the model's owner wrote it, and this is their sandbox
        booster = found.get_booster() if hasattr(found, "get_booster") else found
    except Exception as unpickled:
        booster = xgboost.Booster()
        try:
            _load_native(booster, path)
        except Exception as native:
            words = f"Pickle load error={unpickled}\nXGB load model error={native}"
            raise RuntimeError(f"Model {path} cannot be loaded:\n{words}") from None
    booster.set_param({"nthread": threads})
    return booster


def _load_native(booster: Any, path: str) -> None:
    """By the file's bytes: XGBoost goes by the name's end, and the algorithm's file has none."""
    with open(path, "rb") as file:
        head = file.read(2)
        file.seek(0)
        whole = file.read()
    link = ""
    if head[:1] == b"{" and not path.endswith((".json", ".ubj")):
        ending = "json" if head[1:2] in (b'"', b" ", b"\n", b"\r", b"\t", b"}") else "ubj"
        link = f"/tmp/penstock-model-{os.getpid()}.{ending}"
        with open(link, "wb") as copy:
            copy.write(whole)
    try:
        booster.load_model(link or path)
    finally:
        if link:
            os.remove(link)


def _objective(booster: Any) -> Tuple[str, int]:
    try:
        learner = json.loads(booster.save_config())["learner"]
    except Exception:  # before XGBoost 1.0 there is no configuration
        return "", 0
    return learner["objective"]["name"], int(learner["learner_model_param"].get("num_class") or 0)


# --- bodies


def read(body: bytes, content_type: str) -> Any:
    """A request's body as a DMatrix.

    Raises: Unreadable.
    """
    import xgboost

    plain = content_type.split(";")[0].strip().lower()
    kind = KINDS.get(plain)
    if kind is None:
        raise Unreadable(f"Content-type {content_type} is not supported.")
    try:
        if kind == "csv":
            return xgboost.DMatrix(tables.read_csv(body, "float32"))
        if kind == "libsvm":
            return xgboost.DMatrix(read_libsvm(bytes(body).decode("utf-8")))
        if kind == "parquet":
            import pyarrow.parquet

            return xgboost.DMatrix(pyarrow.parquet.read_table(io.BytesIO(body)).to_pandas().values)
        from sagemaker_xgboost_container.recordio_protobuf import read_dataset

        return xgboost.DMatrix(read_dataset([bytes(body)])[0])
    except Exception as error:
        raise Unreadable(
            f"Loading {kind} data failed with Exception, please ensure data is in {kind} format: {error}"
        ) from error


def read_libsvm(text: str) -> Any:
    """The rows of libsvm lines, with or without labels, as a sparse matrix; indices from 1 are taken as from 0."""
    import numpy as np
    from scipy.sparse import csr_matrix

    values: List[float] = []
    columns: List[int] = []
    ends = [0]
    for line in text.strip().split("\n"):
        for word in line.split():
            name, colon, value = word.partition(":")
            if colon and name != "qid":
                columns.append(int(name))
                values.append(float(value))
        ends.append(len(values))
    found = np.array(columns, dtype=np.int64)
    if len(found) and found.min() >= 1:
        found = found - 1
    return csr_matrix(
        (np.array(values, dtype=np.float32), found, ends), shape=(len(ends) - 1, int(found.max(initial=-1)) + 1)
    )


# --- predictions


def predict(boosters: Boosters, data: Any) -> Any:
    """The prediction of one booster, or what several agree on."""
    import numpy as np

    found = [_predict_one(booster, data) for booster in boosters.models]
    if len(found) == 1:
        return found[0]
    if boosters.objective in ("multi:softmax", "binary:hinge"):
        return np.apply_along_axis(lambda votes: max(sorted(set(votes)), key=list(votes).count), 0, np.array(found))
    return np.mean(found, axis=0)


def _predict_one(booster: Any, data: Any) -> Any:
    _fit_width(booster, data)
    best = int(getattr(booster, "best_ntree_limit", 0) or 0)
    if not best:
        return booster.predict(data, validate_features=False)
    try:
        return booster.predict(data, ntree_limit=best, validate_features=False)
    except TypeError:  # XGBoost 2 and later
        return booster.predict(data, iteration_range=(0, best), validate_features=False)


def _fit_width(booster: Any, data: Any) -> None:
    """Refuses rows that are wider than what the model was trained on: XGBoost would ignore the rest, or crash."""
    try:
        wanted = booster.num_features()
    except Exception:  # before XGBoost 1.4
        return
    if wanted and data.num_col() > wanted + 1:
        raise ValueError(
            f"Feature size of inference data {data.num_col()} is not consistent with feature size of trained model {wanted}."
        )


# --- answers


def invoking(boosters: Boosters) -> Invoke:
    """What answers requests to the built-in algorithm."""

    def invoke(body: bytes, content_type: str, accept: str) -> Reply:
        if not body:
            return Reply(204)
        try:
            data = read(body, content_type)
        except Unreadable as error:
            traceback.print_exc()
            return Reply(415, str(error).encode())
        try:
            predictions = predict(boosters, data)
        except Exception as error:
            traceback.print_exc()
            return Reply(400, f"Unable to evaluate payload provided: {error}".encode())
        wanted = accept.split(";")[0].strip().lower()
        if wanted in ("", "*/*"):
            wanted = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or CSV
        if wanted not in ACCEPTS:
            return Reply(
                406,
                f"Accept type {accept} is not supported. Please use supported accept types: {list(ACCEPTS)}.".encode(),
            )
        return Reply(200, write(predictions, wanted, boosters), wanted)

    return invoke


def write(predictions: Any, accept: str, boosters: Boosters) -> bytes:
    """Predictions in the form asked for; those of a transform job a line each."""
    batch = os.environ.get("SAGEMAKER_BATCH")
    selected = os.environ.get("SAGEMAKER_INFERENCE_OUTPUT")
    if selected is not None:
        keys = selected.replace(" ", "").lower().split(",")
        return _write_selected(select(predictions, keys, boosters), keys, accept, bool(batch))
    rows = predictions.tolist()
    if batch:
        return ("\n".join(map(str, rows)) + "\n").encode()
    if accept == JSON:
        return json.dumps({"predictions": [{"score": row} for row in rows]}).encode()
    if accept == LINES:
        return "".join(json.dumps({"score": row}) + "\n" for row in rows).encode()
    if accept == RECORDIO:
        return records([{"score": row} for row in rows])
    return tables.write_csv(rows)


def select(predictions: Any, keys: List[str], boosters: Boosters) -> List[Dict[str, Any]]:
    """What SAGEMAKER_INFERENCE_OUTPUT asks for of each prediction; NaN for what the objective does not have.

    Raises: ValueError for an objective that has none of it.
    """
    valid = VALID.get(boosters.objective)
    if valid is None:
        raise ValueError(f"Objective `{boosters.objective}` unsupported for selectable inference predictions.")
    return [
        {key: _selected(key, row, boosters) if key in valid else float("nan") for key in keys} for row in predictions
    ]


def _selected(key: str, row: Any, boosters: Boosters) -> Any:
    objective = boosters.objective
    if key == "labels":
        return list(range(boosters.classes)) if objective.startswith("multi:") else [0, 1]
    if objective == "multi:softprob":
        scores = row.tolist()
        found = {"predicted_label": scores.index(max(scores)), "probability": max(scores), "probabilities": scores}
        return {**found, "raw_score": max(scores), "raw_scores": scores}[key]
    value = row.item()
    if key == "predicted_label":
        return {"binary:logistic": int(value > 0.5), "binary:logitraw": int(value > 0)}.get(objective, value)
    if key == "probabilities" or (key == "raw_scores" and objective == "binary:logistic"):
        return [1.0 - value, value]
    if key == "raw_scores":
        return (
            [1 - value, value]
            if objective == "binary:hinge"
            else [-value, value]
            if objective != "multi:softmax"
            else [value]
        )
    return value


def _write_selected(rows: List[Dict[str, Any]], keys: List[str], accept: str, batch: bool) -> bytes:
    if accept == JSON:
        return json.dumps({"predictions": rows}).encode()
    if accept == LINES:
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if accept == RECORDIO:
        return records(rows)
    lines = [",".join(f'"{row[key]}"' if isinstance(row[key], list) else str(row[key]) for key in keys) for row in rows]
    return ("\n".join(lines) + ("\n" if batch else "")).encode()


def records(rows: List[Dict[str, Any]]) -> bytes:
    """RecordIO of protobuf records, the values as labels of 32-bit floats."""
    whole = b""
    for row in rows:
        payload = b""
        for key, value in row.items():
            values = value if isinstance(value, list) else [value]
            tensor = _field(1, struct.pack(f"<{len(values)}f", *values))
            payload += _field(2, _field(1, key.encode()) + _field(2, _field(2, tensor)))
        whole += struct.pack("<II", MAGIC, len(payload)) + payload + b"\0" * (-len(payload) % 4)
    return whole


def _field(number: int, data: bytes) -> bytes:
    """A protobuf field of bytes."""
    size, length = len(data), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data
