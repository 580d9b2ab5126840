"""What the model server does from its start to its end.

    penstock_serving --bind ADDRESS[,ADDRESS...] --framework NAME [--model-dir FOLDER] [--archive FILE] [--source FOLDER]
                     [--failure FILE]

Each address (`unix:/path`, `host:port`) gets a worker, a process with the model in it. The model's archive is unpacked
into the model folder; the code comes from SAGEMAKER_SUBMIT_DIRECTORY (an archive of it in S3 lies in --source) or from
the model's own folder `code`; its requirements.txt is installed; SAGEMAKER_PROGRAM is the script. What goes wrong is told
in --failure.
"""

import argparse
import os
import signal
import socket
import sys
import traceback
from importlib import util as importing
from typing import Any, List, NamedTuple, Optional

from . import boosters, scripts, web
from .application import Application, Model, default_parameters

CONTAINERS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL_DIR = "/opt/ml/model"
PAYLOAD_BYTES = 6 << 20


class Options(NamedTuple):
    """What the command line says."""

    bind: List[str]
    framework: str
    model_dir: str
    archive: str
    source: str
    failure: str


class Script(NamedTuple):
    """The user's script, and the folder it lies in."""

    program: str
    folder: str


def main(arguments: List[str]) -> int:
    """Lays model and code, then serves until it is told to stop."""
    options = parse(arguments)
    try:
        script = lay(options)
        os.environ.setdefault("SM_MODEL_DIR", options.model_dir)
        sockets = [web.listen(address) for address in options.bind]
        if len(sockets) == 1:
            return work(options, script, sockets[0], 1)
        return keep(options, script, sockets)
    except Exception as error:
        return fail(options, error)


def parse(arguments: List[str]) -> Options:
    parser = argparse.ArgumentParser(prog="penstock_serving")
    parser.add_argument("--bind", default="0.0.0.0:" + os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
    parser.add_argument("--framework", default="python")
    parser.add_argument("--model-dir", default=MODEL_DIR)
    parser.add_argument("--archive", default="")
    parser.add_argument("--source", default="")
    parser.add_argument("--failure", default="")
    given = parser.parse_args(arguments)
    return Options(given.bind.split(","), given.framework, given.model_dir, given.archive, given.source, given.failure)


# --- model and code


def lay(options: Options) -> Optional[Script]:
    """Unpacks the model, finds the script, installs what it requires; None where there is no script."""
    entry = _entry()
    os.makedirs(options.model_dir, exist_ok=True)
    if options.archive:
        entry.unpack(options.archive, options.model_dir)
    within = os.path.join(options.model_dir, "code")
    program = os.environ.get("SAGEMAKER_PROGRAM", "")
    source = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "")
    if not program and os.path.exists(os.path.join(within, "inference.py")):
        program = "inference.py"
    if not program:
        return None
    if options.source and "://" in source:
        folder = os.path.join(options.source, "code")
        entry.CODE, entry.SOURCE = folder, options.source
        entry.lay_code(source)
    else:
        folder = _moved(source, options.model_dir) if source.startswith("/") else within
        folder = folder if os.path.isdir(folder) else within
        entry.CODE = folder
    if not os.path.exists(os.path.join(folder, program)):
        raise scripts.Faulty(f"ImportError: there is no {program} in the model's code ({source or within})")
    entry.install(os.path.exists(os.path.join(folder, "setup.py")))
    return Script(program, folder)


def _moved(path: str, model_dir: str) -> str:
    """A path of the model folder where this container's really is: the second of a pipeline has its own."""
    return model_dir + path[len(MODEL_DIR) :] if path.startswith(MODEL_DIR) else path


def _entry() -> Any:
    """The part of the training container that lays code; under a name that no user's module has."""
    path = os.path.join(CONTAINERS, "training", "entry.py")
    spec = importing.spec_from_file_location("penstock_training_entry", path)
    assert spec is not None
    assert spec.loader is not None
    entry = importing.module_from_spec(spec)
    spec.loader.exec_module(entry)
    return entry


# --- workers


def keep(options: Options, script: Optional[Script], sockets: List[socket.socket]) -> int:
    """A worker for each socket; the end of one is the end of all."""
    workers = []
    for listening in sockets:
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            code = 1
            try:
                code = work(options, script, listening, len(sockets))
            except Exception as error:
                code = fail(options, error)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        workers.append(pid)
    for listening in sockets:
        listening.close()

    def end(number: int, frame: Any) -> None:
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    ended, status = os.wait()
    for worker in workers:
        if worker != ended:
            os.kill(worker, signal.SIGTERM)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def work(options: Options, script: Optional[Script], listening: socket.socket, workers: int) -> int:
    """Loads the model and serves it."""
    application = Application()
    application.models[""] = load(options, script, workers)
    web.serve(listening, application)
    return 0


def load(options: Options, script: Optional[Script], workers: int) -> Model:
    """The model as its script loads it; without a script, XGBoost's built-in algorithm.

    Raises: Faulty where there is neither.
    """
    if script is not None:
        module = scripts.import_script(script.program, script.folder)
        own = getattr(module, "execution_parameters_fn", None)
        return Model(scripts.load_script(module, options.framework, options.model_dir), own)
    if options.framework == "xgboost":
        threads = (
            max(1, (os.cpu_count() or 1) // workers) if workers > 1 else int(os.environ.get("OMP_NUM_THREADS") or 1)
        )
        loaded = boosters.load(options.model_dir, threads)
        payload_bytes = int(os.environ.get("MAX_CONTENT_LENGTH") or PAYLOAD_BYTES)
        return Model(boosters.invoking(loaded), lambda: default_parameters(workers, payload_bytes))
    raise scripts.Faulty(
        "The model has no script: SAGEMAKER_PROGRAM is not set, and there is no code/inference.py in its archive."
    )


def fail(options: Options, error: Exception) -> int:
    """Tells why there is no server."""
    said = type(error).__name__ in ("Failed", "Faulty")
    if not said:
        traceback.print_exc()
    sentence = str(error) if said else f"{type(error).__name__}: {error}"
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
    if options.failure:
        with open(options.failure, "w") as file:
            file.write(sentence)
    return 1
