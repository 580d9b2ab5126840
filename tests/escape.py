"""Run by test_sandbox_escape as root and as another user: tries to break out of a sandbox, and prints what came of it as JSON.

Standard library only, so that any Python can run it: `python escape.py FOLDER [spare]`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.runs import handout, runner
from penstock.runs.base import ENDED, Input, Instance, Mount, Output, RunSpec
from penstock.runs.capacity import Capacity
from penstock.runs.local import LocalExecutor

INSIDE = r"""
import ctypes, json, os, socket, subprocess, sys, urllib.request
told = {"imported ahead": "decimal" in sys.modules}
def tries(name, act):
    try:
        told[name] = ["done", act()]
    except BaseException as error:
        told[name] = ["refused", f"{type(error).__name__}: {error}"]
def read(path):
    with open(path) as file:
        return file.read()
def write(path, text="1"):
    with open(path, "w") as file:
        file.write(text)
def shell(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip())
given = json.loads(os.environ["GIVEN"])
status = dict(line.split(":\t", 1) for line in read("/proc/self/status").splitlines() if ":\t" in line)
told["capabilities"] = [status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")]
told["no_new_privs"] = status["NoNewPrivs"].strip()
told["user"] = [os.getuid(), os.getgid()]
told["environment"] = sorted(set(os.environ) - {"GIVEN", "PWD", "LC_CTYPE"})
told["descriptors"] = sorted(os.listdir("/proc/self/fd"))[:-1]
told["processes"] = len([name for name in os.listdir("/proc") if name.isdigit()])
told["hostname"] = socket.gethostname()
told["root"] = sorted(os.listdir("/"))
told["beside the interpreter"] = os.listdir(os.path.dirname(given["prefix"]))
for name, path in given["canaries"].items():
    tries("read " + name, lambda: read(path))
tries("read the interpreter", lambda: read(given["prefix"] + "/lib"))
tries("write the interpreter", lambda: write(given["prefix"] + "/lib"))
tries("umount /usr", lambda: shell("umount /usr"))
tries("umount /proc", lambda: shell("umount -l /proc"))
tries("remount /usr", lambda: shell("mount -o remount,rw,bind /usr"))
tries("mount a tmpfs", lambda: shell("mount -t tmpfs none /mnt"))
tries("a new user namespace", lambda: shell("unshare -U true"))
tries("a new user namespace by clone", lambda: ctypes.CDLL(None, use_errno=True).unshare(0x10000000) and (_ for _ in ()).throw(
    OSError(ctypes.get_errno(), "unshare")))
tries("write /usr", lambda: write("/usr/bin/penstock-was-here"))
tries("a kernel setting", lambda: write("/proc/sys/kernel/core_pattern", "|/tmp/x"))
tries("a device", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0)))
tries("chroot", lambda: os.chroot("/tmp"))
tries("become somebody", lambda: os.setuid(1000))
tries("host loopback", lambda: socket.create_connection(("127.0.0.1", given["port"]), 2).close())
tries("internet", lambda: socket.create_connection(("192.0.2.1", 53), 2).close())
def abstract():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(given["abstract"])
tries("abstract socket", abstract)
tries("names", lambda: socket.getaddrinfo("example.com", 443))
tries("the API", lambda: urllib.request.urlopen("http://127.0.0.1:4600/", timeout=20).read().decode())
tries("bind port 80", lambda: socket.create_server(("127.0.0.1", 80)).close())
for path in ("/opt/ml/out/x", "/tmp/x", "/srv/x", "/x", "/var/tmp/x", "/dev/shm/x", "/opt/x", "/etc/x"):
    tries("write " + path, lambda: write(path))
def rewrite():
    with open("/opt/ml/input/data/train/x.csv", "a") as file:
        file.write("more")
    return read("/opt/ml/input/data/train/x.csv")
tries("write an input", rewrite)
tries("write a layer", lambda: write(given["layer"] + "/new"))
tries("take an input away", lambda: os.unlink("/opt/ml/input/data/train/y.csv"))
tries("link to a secret", lambda: os.symlink(given["canaries"]["the data folder"], "/opt/ml/out/link"))
tries("a pipe as output", lambda: os.mkfifo("/opt/ml/out/pipe"))
tries("a socket as output", lambda: socket.socket(socket.AF_UNIX).bind("/opt/ml/out/socket"))
tries("link a folder", lambda: os.symlink("/usr", "/opt/ml/out/folder"))
print(json.dumps(told))
"""


def lay_ground(folder: Path) -> tuple[Path, dict[str, object]]:
    """Canaries, an interpreter's folder in a secret place, blobs; gives the data folder and what the inside is told."""
    data = folder / "home" / "data"
    data.mkdir(parents=True, mode=0o700)
    prefix = folder / "home" / "secret" / "versions" / "3.99"
    prefix.mkdir(parents=True, mode=0o700)
    (prefix / "lib").write_text("an interpreter")
    layer = folder / "home" / "environment"
    layer.mkdir()
    (layer / "old").write_text("old")
    canaries = {
        "the data folder": data / "canary",
        "the home": folder / "home" / "canary",
        "a secret beside the interpreter": prefix.parent / "canary",
        "/var": Path("/var/tmp") / f"penstock-canary-{os.getpid()}",
        "/etc": Path("/etc/shadow"),
    }
    for path in list(canaries.values())[:-1]:
        path.write_text("a secret")
    (data / "blobs").mkdir()
    for name in "xy":
        (data / "blobs" / name).write_text("bytes")
    return data, {
        "canaries": {name: str(path) for name, path in canaries.items()},
        "prefix": str(prefix),
        "layer": str(layer),
        "abstract": f"\0penstock-canary-{os.getpid()}",
    }


def answer_api(path: Path) -> None:
    """A front of four lines: takes the sockets handed out, answers each call."""
    fronts = handout.listen(path)

    def serve() -> None:
        connection, _ = fronts.accept()
        while (message := handout.receive(connection)) is not None:
            with socket.socket(fileno=message[1][0]) as listening:
                caller, _ = listening.accept()
                caller.recv(4096)
                caller.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(message[0]).encode())
                caller.close()

    threading.Thread(target=serve, daemon=True).start()


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return result


def by_spare(spec: RunSpec, executor: LocalExecutor, data: Path) -> RunSpec:
    """The same run as one that a spare can be taken for; one is there, since another run was like it."""
    spec.mounts[1].mode = "ro"
    spec.command[1:], spec.warm = ["/opt/ml/inside.py"], ["/usr/bin/python3", "decimal"]
    script = Input("/opt/ml/inside.py", data=b"'decimal'")
    first = dataclasses.replace(spec, name="first", inputs=[script], instances=[Instance()], network=False)
    executor.start(first)
    wait_for(lambda: runner.ask(data, {"op": "ping"})["spares"])
    spec.inputs.append(Input("/opt/ml/inside.py", data=b"'decimal'\n" + INSIDE.encode()))
    return spec


def main(folder: Path, spare: bool) -> None:
    data, given = lay_ground(folder)
    answer_api(data / "sockets" / "front.sock")
    host = socket.create_server(("127.0.0.1", 0))
    hidden = socket.socket(socket.AF_UNIX)
    hidden.bind(str(given["abstract"]))
    hidden.listen()
    given["port"] = host.getsockname()[1]
    os.environ["LEAKED"] = "from the server"
    process = runner.launch(data)
    runner.wait_ready(data, 60.0)
    executor = LocalExecutor(data, Capacity(2, 4 << 30))
    inputs = [Input(f"/opt/ml/input/data/train/{name}.csv", blob=str(data / "blobs" / name)) for name in "xy"]
    prefix, layer = str(given["prefix"]), str(given["layer"])
    spec = RunSpec(
        "escape", ["/usr/bin/python3", "-c", INSIDE], {"PATH": "/usr/bin:/bin", "HOME": "/root", "GIVEN": json.dumps(given)},
        mounts=[Mount(prefix, prefix), Mount(layer, layer, "overlay")], inputs=inputs, folders=["/opt/ml/out"],
        outputs=[Output("out", "/opt/ml/out"), Output("tar", "/opt/ml/out", "tar.gz")], blobs=str(data / "blobs"),
        instances=[Instance(log=str(data / "log"))], memory_bytes=1 << 30,
    )  # fmt: skip
    executor.start(by_spare(spec, executor, data) if spare else spec)
    state = wait_for(lambda: (s := executor.look("escape")) and s.phase == ENDED and s)
    executor.close()
    process.kill()
    process.wait()
    log = (data / "log").read_text()
    told = (
        json.loads(log.splitlines()[-1].split(" ", 1)[1])
        if state.exit_code == 0
        else {"log": log, "state": repr(state)}
    )
    told["results"] = {f"{r.output}/{r.key}": (r.inline or b"").hex() for r in state.results}
    told["blobs after"] = sorted((data / "blobs" / name).read_text() for name in "xy")
    told["layer after"] = sorted(os.listdir(layer))
    told["program's owner"] = os.geteuid()
    Path(str(given["canaries"]["/var"])).unlink()  # type: ignore[index]
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), "spare" in sys.argv)
