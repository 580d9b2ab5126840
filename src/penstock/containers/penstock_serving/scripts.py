"""A user's script as a model: its functions, and the framework's own for those it lacks.

Source: the handlers of github.com/aws/sagemaker-scikit-learn-container (serving.py), github.com/aws/sagemaker-xgboost-container
(handler_service.py) and the toolkits below them.
"""

import importlib
import io
import json
import os
import sys
import traceback
from typing import Any, Callable, List, Optional

from . import tables
from .application import Invoke
from .web import Reply

JSON, CSV, NPY, NPZ = "application/json", "text/csv", "application/x-npy", "application/x-npz"
LINES = "application/jsonlines"
TEXTS = (JSON, CSV)
"""Content types whose bodies a script's input_fn gets as text."""


class Unsupported(Exception):
    """A content type that the framework cannot read, or not write."""


class Faulty(Exception):
    """A script that cannot be a model: the sentence says why."""


def import_script(program: str, folder: str) -> Any:
    """The script as a module, its folder first on the path."""
    sys.path.insert(0, folder)
    name = program[:-3] if program.endswith(".py") else program
    return importlib.import_module(name.replace("/", "."))


def load_script(script: Any, framework: str, model_dir: str) -> Invoke:
    """Loads the model by the script's model_fn; gives what answers requests.

    Raises: Faulty, and whatever model_fn raises.
    """
    functions = {name: getattr(script, name, None) for name in ("input_fn", "predict_fn", "output_fn")}
    transform = getattr(script, "transform_fn", None)
    if transform and any(functions.values()):
        raise Faulty("Cannot use transform_fn implementation with input_fn, predict_fn, and/or output_fn")
    load = getattr(script, "model_fn", None)
    if load is None:
        raise Faulty(
            "Please provide a model_fn implementation: there is no default way to load a model of this framework."
        )
    model = _called(load, model_dir)
    if transform:
        return _answering(lambda body, kind, accept: transform(model, _as_text(body, kind), kind, accept))
    reading: Callable[..., Any] = functions["input_fn"] or (xgboost_input if framework == "xgboost" else default_input)
    predicting: Callable[..., Any] = functions["predict_fn"] or (
        xgboost_predict if framework == "xgboost" else default_predict
    )
    writing: Callable[..., Any] = functions["output_fn"] or default_output
    own_input = functions["input_fn"] is not None

    def answer(body: bytes, kind: str, accept: str) -> Any:
        data = _called(reading, _as_text(body, kind) if own_input else body, kind)
        return _called(writing, _called(predicting, data, model), accept)

    return _answering(answer)


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a handler; one that also takes a context gets None for it."""
    code = getattr(function, "__code__", None)
    wanted = code.co_argcount - len(function.__defaults__ or ()) if code and hasattr(function, "__defaults__") else 0
    if code and not hasattr(function, "__self__") and wanted == len(arguments) + 1:
        return function(*arguments, None)
    return function(*arguments)


def _as_text(body: bytes, content_type: str) -> Any:
    return bytes(body).decode("utf-8") if plain(content_type) in TEXTS else bytes(body)


def plain(content_type: str) -> str:
    """A content type without its parameters."""
    return content_type.split(";")[0].strip().lower()


def default_accept() -> str:
    return os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or JSON


def _answering(answer: Callable[[bytes, str, str], Any]) -> Invoke:
    """What makes replies of a script's answers, and of its errors."""

    def invoke(body: bytes, content_type: str, accept: str) -> Reply:
        kind = content_type or JSON
        wanted = default_accept() if accept in ("", "*/*") else accept
        try:
            return as_reply(answer(body, kind, wanted), wanted)
        except Unsupported as error:
            return Reply(415, str(error).encode())
        except Exception as error:
            traceback.print_exc()
            return Reply(_status(error), f"{type(error).__name__}: {error}".encode())

    return invoke


def _status(error: Exception) -> int:
    """AWS's own exceptions name a status; everything else is the script's failure."""
    if type(error).__name__ == "UnsupportedFormatError":
        return 415
    given = getattr(error, "status_code", None)
    return given if isinstance(given, int) and 400 <= given < 600 else 500


def as_reply(result: Any, accept: str) -> Reply:
    """A reply of what output_fn gave: a body, a pair of body and content type, or a Response."""
    status, kind = 200, accept
    if isinstance(result, tuple) and len(result) == 2:
        result, kind = result
    if hasattr(result, "response") and hasattr(result, "mimetype"):
        status, kind = getattr(result, "status_code", 200), result.mimetype
        result = result.get_data() if hasattr(result, "get_data") else result.response
    if result is None:
        return Reply(status, b"", kind)
    if isinstance(result, str):
        return Reply(status, result.encode("utf-8"), kind)
    if isinstance(result, (bytes, bytearray, memoryview)):
        return Reply(status, bytes(result), kind)
    return Reply(status, write(result, kind), kind)


# --- what stands in for a script's functions


def default_input(body: bytes, content_type: str) -> Any:
    """An array of JSON, CSV, NPY or sparse NPZ. Differs: one CSV row is a table of one row, where AWS's gives a vector."""
    kind = plain(content_type)
    if kind == CSV:
        return tables.read_csv(body, "float32")
    import numpy as np

    if kind == JSON:
        return np.array(json.loads(bytes(body).decode("utf-8"))).astype(np.float32)
    if kind == NPY:
        return np.load(io.BytesIO(body), allow_pickle=False)
    if kind == NPZ:
        import scipy.sparse

        return scipy.sparse.load_npz(io.BytesIO(body))
    raise Unsupported(f"Content type {content_type} is not supported by this framework.")


def default_predict(data: Any, model: Any) -> Any:
    if not hasattr(model, "predict"):
        raise Faulty(f"Please provide a predict_fn implementation: a {type(model).__name__} has no predict method.")
    return model.predict(data)


def xgboost_input(body: bytes, content_type: str) -> Any:
    """A DMatrix of CSV, libsvm or RecordIO."""
    from . import boosters

    return boosters.read(body, content_type)


def xgboost_predict(data: Any, model: Any) -> Any:
    import xgboost

    if isinstance(model, xgboost.Booster):
        return model.predict(data, validate_features=False)
    return model.predict(data)


def default_output(prediction: Any, accept: str) -> Any:
    kinds = [plain(part) for part in accept.split(",")]
    kind = JSON if kinds[0] in ("*/*", "application/*", "") else kinds[0]
    return write(prediction, kind), kind


def write(prediction: Any, content_type: str) -> bytes:
    """A prediction as JSON, JSON lines, CSV or NPY.

    Raises: Unsupported.
    """
    kind = plain(content_type)
    if kind == CSV:
        return tables.write_csv(prediction)
    if kind == JSON:
        return json.dumps(prediction, default=_jsonable).encode("utf-8")
    if kind == LINES:
        rows: List[Any] = _jsonable(prediction) if hasattr(prediction, "tolist") else prediction
        return "".join(json.dumps(row, default=_jsonable) + "\n" for row in rows).encode("utf-8")
    if kind == NPY:
        import numpy as np

        buffer = io.BytesIO()
        np.save(buffer, prediction)
        return bytes(buffer.getvalue())
    raise Unsupported(f"Content type {content_type} is not supported by this framework.")


def _jsonable(value: Any) -> Any:
    for name in ("tolist", "to_list", "to_dict"):
        convert: Optional[Callable[[], Any]] = getattr(value, name, None)
        if convert:
            return convert()
    if hasattr(value, "values"):
        return value.values.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")
