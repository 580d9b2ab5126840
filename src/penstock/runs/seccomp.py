"""The system calls that programs in a sandbox may not make: a BPF program for the kernel, which bubblewrap loads (`--seccomp`).

What is refused is the part of the kernel that no job of machine learning needs and that most ways out of containers went
through: mounts, namespaces, keys, tracing of the kernel, loaders of code, io_uring, odd protocol families. Capabilities
refuse much of it already; this holds where they do not (a kernel whose user namespaces cannot be disabled, a fault in it).

Source: docs.docker.com/engine/security/seccomp (what the default profile blocks), linux/seccomp.h, linux/audit.h.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

AVAILABLE = "/proc/sys/kernel/seccomp/actions_avail"
LAST = 466
"""The newest call that was looked at; what came later is unknown to this list and so to programs."""
REFUSED: Mapping[str, tuple[int, int]] = {
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "chroot": (161, 51), "clock_settime": (227, 112),
    "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433), "init_module": (175, 105),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioperm": (173, -1),
    "iopl": (172, -1), "kcmp": (312, 272), "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219),
    "listmount": (458, 458), "lookup_dcookie": (212, 18), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "nfsservctl": (180, 42), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "perf_event_open": (298, 241), "pivot_root": (155, 41), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "reboot": (169, 142), "request_key": (249, 218), "setdomainname": (171, 162), "sethostname": (170, 161),
    "setns": (308, 268), "settimeofday": (164, 170), "statmount": (457, 457), "swapoff": (168, 225), "swapon": (167, 224),
    "syslog": (103, 116), "sysfs": (139, -1), "umount2": (166, 39), "uselib": (134, -1), "userfaultfd": (323, 282),
    "ustat": (136, -1), "vhangup": (153, 58),
}  # fmt: skip
"""Number on x86_64 and on aarch64 (-1: not there). Answered with EPERM."""
LOOKED_AT: Mapping[str, tuple[int, int]] = {
    "clone": (56, 220), "clone3": (435, 435), "ioctl": (16, 29), "personality": (135, 92), "socket": (41, 198),
    "socketpair": (53, 199), "unshare": (272, 97),
}  # fmt: skip
"""Refused or not by their arguments."""
NAMESPACES = 0x7E020000
"""The flags of clone and unshare that make namespaces."""
TIME_NAMESPACE = 0x80
"""Of unshare alone: in clone's flags it is part of the signal."""
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6."""
NETLINK, ROUTE = 16, 0
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
"""Requests to a terminal that put words into its owner's mouth."""
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _EQUAL, _MORE, _ANY, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


@dataclass(slots=True)
class _Line:
    """One instruction; `yes` and `no` are labels to go to, empty for the next line."""

    code: int
    value: int
    yes: str = ""
    no: str = ""
    label: str = ""


def filter_program(machine: str = "") -> bytes:
    """The filter for this machine's kernel; empty where it has none, or the processor is not known here."""
    column, architecture = _MACHINES.get(machine or platform.machine(), (-1, 0))
    if column < 0 or not os.path.exists(AVAILABLE):
        return b""
    return _assemble(list(_lines(column, architecture)))


def _lines(column: int, architecture: int) -> Iterable[_Line]:
    """Goes through the calls by number; whatever is left at the end is allowed."""
    number = {name: numbers[column] for name, numbers in LOOKED_AT.items()}
    yield _Line(_LOAD, _ARCHITECTURE)
    yield _Line(_EQUAL, architecture, no="missing")
    yield _Line(_LOAD, _NUMBER)
    yield _Line(_MORE, LAST, yes="missing")
    # The C library asks for clone3 first, and takes clone when it is told that there is none: only clone shows its flags here.
    yield _Line(_EQUAL, number["clone3"], yes="missing")
    for name in ("clone", "unshare", "socket", "socketpair", "ioctl", "personality"):
        yield _Line(_EQUAL, number[name], yes=name)
    for numbers in REFUSED.values():
        if numbers[column] >= 0:
            yield _Line(_EQUAL, numbers[column], yes="refused")
    yield _Line(_RETURN, _ALLOW)
    yield from _argument("clone", _ANY, (NAMESPACES,), "refused", "allowed")
    yield from _argument("unshare", _ANY, (NAMESPACES | TIME_NAMESPACE,), "refused", "allowed")
    yield from _argument("personality", _EQUAL, PERSONALITIES, "allowed", "refused")
    yield from _argument("ioctl", _EQUAL, (TIOCSTI, TIOCLINUX), "refused", "allowed", which=1)
    yield from _argument("socketpair", _EQUAL, FAMILIES, "allowed", "no family")
    yield from _argument("socket", _EQUAL, FAMILIES, "allowed", "")
    yield _Line(_EQUAL, NETLINK, no="no family")
    yield _Line(_LOAD, _ARGUMENTS + 16)
    yield _Line(_EQUAL, ROUTE, yes="allowed", no="no protocol")
    yield _Line(_RETURN, _ERRNO | errno.EAFNOSUPPORT, label="no family")
    yield _Line(_RETURN, _ERRNO | errno.EPROTONOSUPPORT, label="no protocol")
    yield _Line(_RETURN, _ERRNO | errno.ENOSYS, label="missing")
    yield _Line(_RETURN, _ERRNO | errno.EPERM, label="refused")
    yield _Line(_RETURN, _ALLOW, label="allowed")


def _argument(name: str, test: int, values: Iterable[int], yes: str, no: str, which: int = 0) -> Iterable[_Line]:
    """Goes to `yes` if the lower half of an argument is one of the values, else to `no` (the next line, if empty)."""
    yield _Line(_LOAD, _ARGUMENTS + 8 * which, label=name)
    *most, last = values
    for value in most:
        yield _Line(test, value, yes=yes)
    yield _Line(test, last, yes=yes, no=no)


def _assemble(lines: list[_Line]) -> bytes:
    """The lines as the kernel reads them: jumps as distances, forward only."""
    place = {line.label: at for at, line in enumerate(lines) if line.label}

    def distance(at: int, label: str) -> int:
        return place[label] - at - 1 if label else 0

    packed = [
        struct.pack("=HBBI", x.code, distance(at, x.yes), distance(at, x.no), x.value) for at, x in enumerate(lines)
    ]
    return b"".join(packed)
