"""Loads the handler, then serves one invocation after another; what goes wrong is told in AWS's form.

Source: docs.aws.amazon.com/lambda/latest/dg/python-handler.html, python-exceptions.html, python-logging.html
"""

import contextlib
import decimal
import importlib
import json
import logging
import os
import resource
import sys
import time
import traceback
import zipfile
from typing import Any, Callable, Dict, List, Optional, Sequence

from .api import RuntimeApi
from .context import LambdaContext

OWN = os.path.dirname(os.path.abspath(__file__))


class Fault(Exception):
    """There is no handler: the type and the sentence that AWS tells."""

    def __init__(self, kind: str, message: str, trace: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.kind, self.message, self.trace = kind, message, list(trace)


def main(arguments: List[str]) -> None:
    """Takes: pairs of an archive and the folder it is unpacked into; the last is the function's own."""
    began = time.perf_counter()
    api = RuntimeApi(os.environ["AWS_LAMBDA_RUNTIME_API"])
    say("INIT_START Runtime Version: {}".format(os.environ.get("AWS_EXECUTION_ENV", "").replace("AWS_Lambda_", "")))
    logs = set_up_logging()
    try:
        for archive, folder in zip(arguments[::2], arguments[1::2]):
            unpack(archive, folder)
        set_up_path()
        handler = load(os.environ["_HANDLER"])
    except Fault as fault:
        say(told(fault.kind, fault.message, fault.trace))
        spent_ms = (time.perf_counter() - began) * 1000
        say(f"INIT_REPORT Init Duration: {spent_ms:.2f} ms\tPhase: init\tStatus: error\tError Type: {fault.kind}")
        api.fail_init(described(fault.kind, fault.message, "", fault.trace))
        sys.exit(1)
    init_ms: Optional[float] = (time.perf_counter() - began) * 1000
    while True:
        headers, payload = api.next()
        serve(api, handler, headers, payload, logs, init_ms)
        if init_ms is not None:
            api.stand_still()  # what it imports does not lengthen the first call
        init_ms = None


# --- before the first invocation
def unpack(archive: str, folder: str) -> None:
    """Raises: Fault."""
    os.makedirs(folder, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                path = packed.extract(member, folder)
                mode = member.external_attr >> 16 & 0o777
                if mode and not member.is_dir():
                    os.chmod(path, mode | 0o400)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as why:
        raise Fault("Runtime.InvalidZip", f"The archive cannot be unpacked: {why}") from None


def set_up_path() -> None:
    """The task's folder first, then what layers bring, as at AWS."""
    minor = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    task = os.environ["LAMBDA_TASK_ROOT"]
    os.makedirs(task, exist_ok=True)
    layers = [f"/opt/python/lib/{minor}/site-packages", "/opt/python"]
    sys.path[:0] = [task, *[folder for folder in layers if os.path.isdir(folder)]]
    os.environ["PYTHONPATH"] = os.pathsep.join([task, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.chdir(task)


def load(name: str) -> Callable[[Any, LambdaContext], Any]:
    """The function that a handler's name means.

    Raises: Fault.
    """
    try:
        module_name, function_name = name.rsplit(".", 1)
    except ValueError as why:
        raise Fault("Runtime.MalformedHandlerName", f"Bad handler '{name}': {why}") from None
    module_name = module_name.replace("/", ".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as why:
        raise Fault("Runtime.ImportModuleError", f"Unable to import module '{module_name}': {why}") from None
    except SyntaxError as why:
        trace = ['  File "{}" Line {}\n    {}\n'.format(why.filename, why.lineno, (why.text or "").rstrip("\n"))]
        raise Fault("Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {why}", trace) from None
    except Exception as error:
        raise Fault(type(error).__name__, str(error), own_frames(error)) from None
    function = getattr(module, function_name, None)
    if function is None:
        raise Fault("Runtime.HandlerNotFound", f"Handler '{function_name}' missing on module '{module_name}'")
    return function  # type: ignore[no-any-return]


# --- an invocation
def serve(
    api: RuntimeApi, handler: Callable[[Any, LambdaContext], Any], headers: Dict[str, str], payload: bytes, logs: "Records",
    init_ms: Optional[float],
) -> None:  # fmt: skip
    """Runs the handler once and sends what came of it; its log is written before."""
    context = LambdaContext(headers)
    request_id = logs.request_id = context.aws_request_id
    if headers.get("lambda-runtime-trace-id"):
        os.environ["_X_AMZN_TRACE_ID"] = headers["lambda-runtime-trace-id"]
    say(f"START RequestId: {request_id} Version: {context.function_version}")
    began = time.perf_counter()
    error, body = None, b""
    try:
        event = json.loads(payload.decode("utf-8")) if payload else {}
        body = marshal(handler(event, context))
    except Fault as fault:
        error = described(fault.kind, fault.message, request_id, fault.trace)
    except Exception as raised:
        error = described(type(raised).__name__, str(raised), request_id, own_frames(raised))
    if error is not None:
        say(told(error["errorType"], error["errorMessage"], error["stackTrace"]))
    report(request_id, (time.perf_counter() - began) * 1000, init_ms)
    if error is None:
        api.answer(request_id, body)
    else:
        api.fail(request_id, error)


def marshal(result: Any) -> bytes:
    """Raises: Fault for what JSON cannot hold."""
    try:
        return json.dumps(result, ensure_ascii=False, default=_plain).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as why:
        raise Fault("Runtime.MarshalError", f"Unable to marshal response: {why}") from None


def _plain(value: Any) -> float:
    if isinstance(value, decimal.Decimal):
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def described(kind: str, message: str, request_id: str, trace: Sequence[str]) -> Dict[str, Any]:
    return {"errorMessage": message, "errorType": kind, "requestId": request_id, "stackTrace": list(trace)}


def own_frames(error: BaseException) -> List[str]:
    """The traceback without the host's own frames."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if os.path.dirname(frame.filename) != OWN]
    return traceback.format_list([frame for frame in frames if not frame.filename.startswith("<frozen importlib")])


# --- the log
def report(request_id: str, duration_ms: float, init_ms: Optional[float]) -> None:
    """The lines that end an invocation."""
    memory = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    billed = -int(-(duration_ms + (init_ms or 0.0)) // 1)
    init = f"Init Duration: {init_ms:.2f} ms\t" if init_ms is not None else ""
    say(f"END RequestId: {request_id}")
    say(
        f"REPORT RequestId: {request_id}\tDuration: {duration_ms:.2f} ms\tBilled Duration: {billed} ms\t"
        f"Memory Size: {memory} MB\tMax Memory Used: {min(used, int(memory or used))} MB\t{init}"
    )


def told(kind: str, message: str, trace: Sequence[str]) -> str:
    lines = "\n" + "Traceback (most recent call last):\n" + "".join(trace).rstrip("\n") if trace else ""
    return f"[ERROR] {kind}: {message}{lines}"


def say(text: str) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the function closed it
            stream.flush()
    data = (text + "\n").encode("utf-8", "replace")
    while data:
        data = data[os.write(1, data) :]


class Records(logging.Handler):
    """Puts log records out as AWS's Python runtime does, with the request id."""

    request_id = ""

    def emit(self, record: logging.LogRecord) -> None:
        record.aws_request_id = self.request_id
        try:
            say(self.format(record))
        except Exception:
            self.handleError(record)


def set_up_logging() -> Records:
    logs = Records()
    form = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"
    formatter = logging.Formatter(form, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    logs.setFormatter(formatter)
    logging.getLogger().addHandler(logs)
    return logs
