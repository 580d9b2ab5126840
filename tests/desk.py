"""A client's Python that waits with the SDK imported: a script costs a fork, not four seconds of imports.

    python desk.py SOCKET MODULE...      inside the client's environment; standard library only

Each connection brings one request (a line of JSON: script, arguments, folder, where its output goes) and gets the exit
code. The script runs in a child of its own, as `python script.py` would; but where the SDK waits, its clock is faster: it looks at
a job that has ended after ten seconds, or thirty.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time
import traceback
import types

FASTER = 20
WAITING = ("sagemaker.session", "sagemaker.core.helper.session_helper")
"""The modules of the SDKs that wait for jobs, and look at the time between."""


def main() -> None:
    address, modules = sys.argv[1], sys.argv[2:]
    for module in modules:
        importlib.import_module(module)
    began, faster = time.time(), types.ModuleType("time")
    vars(faster).update(vars(time))
    faster.sleep = lambda seconds: time.sleep(seconds / FASTER)
    faster.time = lambda: began + FASTER * (time.time() - began)
    for name in WAITING:
        if hasattr(sys.modules.get(name), "time"):
            sys.modules[name].time = faster
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(16)
        print("ready", flush=True)
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                serve(connection)
            connection.close()


def serve(connection: socket.socket) -> None:
    """Runs what the connection asks for, tells the exit code, and ends this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection, connection.makefile("rw") as stream:
        asked = json.loads(stream.readline())
        child = os.fork()
        if child == 0:
            run(asked)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        stream.write(f"{code}\n")
    os._exit(0)


def run(asked: dict) -> None:
    """Becomes the script: its output, folder, arguments and environment."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    os.chdir(asked["folder"])
    os.environ.update(asked["env"])
    sys.argv = [asked["script"], *asked["arguments"]]
    sys.path[0] = os.path.dirname(asked["script"])
    code: object = 0
    try:
        runpy.run_path(asked["script"], run_name="__main__")
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
