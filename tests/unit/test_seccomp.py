"""The filter of system calls: as the kernel would read it, for both processors, and in a sandbox."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from runs import ENV, PYTHON, Watcher, local_executor

from penstock.runs import sandbox, seccomp
from penstock.runs.base import ENDED, RunSpec

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
OK = 0
NEWUSER, NEWNS, SIGCHLD, THREAD = 0x10000000, 0x20000, 17, 0x3D0F00
ALLOWED = {
    "x86_64": [0, 1, 9, 39, 57, 59, 101, 202, 257, 310, 318, 334],
    "aarch64": [56, 63, 64, 98, 117, 172, 221, 222, 270, 278],
}
"""read, write, mmap, getpid, fork, execve, ptrace, futex, openat, process_vm_readv, getrandom, rseq."""


def decide(machine: str, number: int, *arguments: int, architecture: int = 0) -> int:
    """The error number that a call gets, 0 for none: runs the filter as the kernel does."""
    program = seccomp.filter_program(machine)
    data = struct.pack(
        "=IIQ6Q", number & 0xFFFFFFFF, architecture or MACHINES[machine][1], 0, *(*arguments, *[0] * 6)[:6]
    )
    held = at = 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            held = struct.unpack_from("=I", data, value)[0]
        elif code == 0x06:
            return 0 if value == 0x7FFF0000 else value & 0xFFFF
        else:
            true = {0x15: held == value, 0x25: held > value, 0x45: bool(held & value)}[code]
            at += yes if true else no


@pytest.fixture(params=list(MACHINES))
def machine(request: pytest.FixtureRequest) -> str:
    if not seccomp.filter_program(request.param):
        pytest.skip("no seccomp filters in this kernel")
    return str(request.param)


def number(machine: str, name: str) -> int:
    return seccomp.LOOKED_AT[name][MACHINES[machine][0]]


def test_what_is_on_the_list_is_refused(machine: str) -> None:
    for name, numbers in seccomp.REFUSED.items():
        if numbers[MACHINES[machine][0]] >= 0:
            assert decide(machine, numbers[MACHINES[machine][0]]) == errno.EPERM, name


def test_what_programs_live_on_is_allowed(machine: str) -> None:
    assert [decide(machine, each) for each in ALLOWED[machine]] == [OK] * len(ALLOWED[machine])


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("clone", (SIGCHLD,), OK),
        ("clone", (THREAD,), OK),
        ("clone", (NEWUSER | SIGCHLD,), errno.EPERM),
        ("clone", (NEWNS,), errno.EPERM),
        ("clone3", (), errno.ENOSYS),
        ("unshare", (0x400,), OK),  # its table of descriptors
        ("unshare", (NEWUSER,), errno.EPERM),
        ("unshare", (0x80,), errno.EPERM),
        ("unshare", (0x2000000,), errno.EPERM),
        ("socket", (1, 1, 0), OK),
        ("socket", (2, 1, 6), OK),
        ("socket", (10, 2, 17), OK),
        ("socket", (16, 3, 0), OK),
        ("socket", (16, 3, 9), errno.EPROTONOSUPPORT),
        ("socket", (17, 3, 0), errno.EAFNOSUPPORT),
        ("socket", (38, 5, 0), errno.EAFNOSUPPORT),
        ("socket", (40, 1, 0), errno.EAFNOSUPPORT),
        ("socket", (1 << 32 | 40, 1, 0), errno.EAFNOSUPPORT),
        ("socketpair", (1, 1, 0), OK),
        ("socketpair", (30, 1, 0), errno.EAFNOSUPPORT),
        ("ioctl", (0, 0x5401), OK),
        ("ioctl", (0, 0x5412), errno.EPERM),
        ("ioctl", (0, 1 << 32 | 0x5412), errno.EPERM),
        ("personality", (0xFFFFFFFF,), OK),
        ("personality", (0x0400000,), errno.EPERM),
    ],
)
def test_arguments_decide(machine: str, name: str, arguments: tuple[int, ...], answer: int) -> None:
    assert decide(machine, number(machine, name), *arguments) == answer


def test_newer_calls_and_other_architectures_are_not_there(machine: str) -> None:
    assert decide(machine, seccomp.LAST + 1) == errno.ENOSYS
    assert decide(machine, 0x40000000 + 1) == errno.ENOSYS  # x32
    assert decide(machine, 1, architecture=0x40000003) == errno.ENOSYS  # i386


def test_a_processor_that_is_not_known_has_no_filter() -> None:
    assert seccomp.filter_program("s390x") == b""


# --- in a sandbox

INSIDE = """
import concurrent.futures, ctypes, json, multiprocessing, os, socket, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
told = {"mode": open("/proc/self/status").read().split("Seccomp:")[1].split()[0]}
for name, number in json.loads(os.environ["CALLS"]).items():
    ctypes.set_errno(0)
    told[name] = [libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno()]
def family(number, kind=socket.SOCK_RAW):
    try:
        socket.socket(number, kind).close()
    except OSError as error:
        return error.errno
told["families"] = {n: family(n) for n in (17, 38, 40, 30, 44)}
told["threads"] = list(concurrent.futures.ThreadPoolExecutor(4).map(abs, [-1, -2]))
told["processes"] = multiprocessing.get_context("fork").Pool(2).map(abs, [-1, -2])
told["shell"] = subprocess.run("echo $((1+1))", shell=True, capture_output=True, text=True).stdout
told["interfaces"] = [name for _, name in socket.if_nameindex()]
told["pair"] = len(socket.socketpair())
print(json.dumps(told))
"""


@pytest.mark.sandbox
@pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}")
@pytest.mark.skipif(not seccomp.filter_program(), reason="no seccomp filters here")
def test_a_program_lives_under_the_filter_and_meets_it(tmp_path: Path) -> None:
    column = next(
        at for machine, (at, _) in MACHINES.items() if seccomp.filter_program() == seccomp.filter_program(machine)
    )
    calls = {name: numbers[column] for name, numbers in seccomp.REFUSED.items() if numbers[column] >= 0}
    spec = RunSpec("filtered", [PYTHON, "-c", INSIDE], ENV | {"CALLS": json.dumps(calls)})
    with local_executor(tmp_path) as (executor, _):
        watch = Watcher(executor)
        executor.start(spec)
        state = watch.wait("filtered", ENDED, timeout_s=60)
        log = (tmp_path / "runs" / "filtered" / "algo-1.log").read_text()
    assert state.exit_code == 0, log
    told: dict[str, Any] = json.loads(log.splitlines()[-1].split(" ", 1)[1])
    assert told["mode"] == "2"
    assert {name: told[name] for name in calls} == {name: [-1, errno.EPERM] for name in calls}
    assert set(told["families"].values()) == {errno.EAFNOSUPPORT}
    assert (told["threads"], told["processes"], told["shell"]) == ([1, 2], [1, 2], "2\n")
    assert (told["interfaces"][0], told["pair"]) == ("lo", 2)
