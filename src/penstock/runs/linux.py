"""The few Linux calls that Python's os module lacks (before 3.12), through libc."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

NEWNS, NEWUSER, NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_BIND, MS_MOVE, MS_REC, MS_SLAVE = 0x1000, 0x2000, 0x4000, 0x80000
MNT_DETACH = 2
IN_CLOSE_WRITE, IN_MOVED_TO, IN_DELETE_SELF, IN_IGNORED, IN_ONLYDIR = 0x8, 0x80, 0x400, 0x8000, 0x01000000

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Moves the caller into new namespaces."""
    _checked(_libc.unshare(flags), "unshare")


def join(namespace: int, kind: int = 0) -> None:
    """Moves the caller into the namespace that an open descriptor stands for."""
    _checked(_libc.setns(namespace, kind), "setns")


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str = "") -> None:
    """Mounts; paths may be relative to the working directory."""
    _checked(
        _libc.mount(os.fsencode(source), os.fsencode(target), kind and kind.encode(), ctypes.c_ulong(flags),
                    os.fsencode(data)),
        f"mount {target}",
    )  # fmt: skip


def detach(target: str) -> None:
    """Takes a mount out of the tree at once; it goes when its last user goes."""
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH, _CLONE, _ATTR_IDMAP, _FROM_EMPTY_PATH = -100, 0x1000, 1, 0x100000, 4
_AT_RECURSIVE, _ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 0x8000, 1, 2, 4


def bind_as(source: str, target: str, user_namespace: int) -> None:
    """Shows `source` at `target` as if its files belonged to the users that the namespace maps theirs to. Raises OSError."""
    flags = _CLONE | os.O_CLOEXEC
    tree = _checked(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags), f"open_tree {source}")
    try:
        wanted = struct.pack("QQQQ", _ATTR_IDMAP, 0, 0, user_namespace)
        _checked(_libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, wanted, len(wanted)), f"idmap {source}")
        moved = _libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _FROM_EMPTY_PATH)
        _checked(moved, f"move_mount {target}")
    finally:
        os.close(tree)


def bind_fixed(source: str, target: str) -> None:
    """Shows `source`, and what is mounted below it, at `target`: read-only, without devices and other users' programs.

    Raises: OSError, also before Linux 5.12.
    """
    mount(source, target, None, MS_BIND | MS_REC)
    wanted = struct.pack("QQQQ", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0, 0, 0)
    fixed = _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, wanted, len(wanted))
    try:
        _checked(fixed, f"mount_setattr {target}")
    except OSError:
        detach(target)
        raise


def clone_mount(source: str) -> int:
    """A copy of the mount at a path, attached nowhere; gives its descriptor. Raises OSError before Linux 5.12.

    Without devices and other users' programs, as bubblewrap binds it.
    """
    flags = _CLONE | os.O_CLOEXEC
    tree = _checked(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags), f"open_tree {source}")
    wanted = struct.pack("QQQQ", _ATTR_NOSUID | _ATTR_NODEV, 0, 0, 0)
    fixed = _libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, wanted, len(wanted))
    try:
        _checked(fixed, f"mount_setattr {source}")
    except OSError:
        os.close(tree)
        raise
    return tree


def place_mount(mount: int, target: str) -> None:
    """Attaches a mount that is attached nowhere, also one of another mount namespace."""
    _checked(_libc.syscall(_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(target), _FROM_EMPTY_PATH), f"mount {target}")


def pivot_here() -> None:
    """Makes the working folder, a mount, the root of the mount namespace and of all in it, and lets the old one go."""
    _checked(_libc.pivot_root(b".", b"."), "pivot_root")
    detach(".")


def sync_filesystem(fd: int) -> None:
    """Makes durable all that was written to the file system of `fd`."""
    _checked(_libc.syncfs(fd), "syncfs")


def keep_capabilities() -> None:
    """Changes of user leave the capabilities of this process as they are (SECBIT_NO_SETUID_FIXUP)."""
    _checked(_libc.prctl(28, ctypes.c_ulong(4), 0, 0, 0), "prctl")


def rename_process(name: str) -> None:
    """Sets the name that `ps` shows (15 characters)."""
    _libc.prctl(15, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


class Noticed(NamedTuple):
    """One inotify event: which watch, what happened, to which name in the folder."""

    watch: int
    mask: int
    name: str


class Watch:
    """Hears of files that appear in folders, without polling (inotify)."""

    def __init__(self) -> None:
        self.fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")

    def add(self, folder: str | os.PathLike[str], mask: int = IN_CLOSE_WRITE | IN_MOVED_TO) -> int:
        """Watches a folder; gives the watch's number."""
        return _checked(_libc.inotify_add_watch(self.fd, os.fsencode(folder), mask | IN_ONLYDIR), "inotify_add_watch")

    def drop(self, watch: int) -> None:
        """Watches a folder no longer; one that is gone is no error."""
        _libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> Iterator[Noticed]:
        """What happened since the last read."""
        try:
            data = os.read(self.fd, 64 * 1024)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, _, length = struct.unpack_from("iIII", data, at)
            name = data[at + 16 : at + 16 + length].rstrip(b"\0")
            yield Noticed(watch, mask, os.fsdecode(name))
            at += 16 + length

    def close(self) -> None:
        os.close(self.fd)


FICLONE = 0x40049409


def share_bytes(source: int, target: int) -> None:
    """Makes `target` hold the bytes of `source` without copying them (btrfs, XFS). Raises OSError elsewhere."""
    fcntl.ioctl(target, FICLONE, source)


_GETFLAGS, _SETFLAGS, _TOPDIR = 0x80086601, 0x40086602, 0x20000


def spread_folders(folder: Path) -> None:
    """Has ext4 put what is made in the folder far apart; other file systems do as they like.

    It puts a folder into its parent's block group, and without a journal looks there, at each new file, at every one that was deleted
    in the last minutes (measured: a third of what a short run costs, once hundreds had run).
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = struct.unpack("l", fcntl.ioctl(fd, _GETFLAGS, bytes(8)))[0]
        fcntl.ioctl(fd, _SETFLAGS, struct.pack("l", flags | _TOPDIR))
    except OSError:
        pass
    finally:
        os.close(fd)


_FLOCK = "hhqqi4x"


def lock_file(path: str | Path) -> int | None:
    """Locks a file, made if missing, for the life of this process; gives its descriptor, None if another process has it.

    POSIX locks, not flock: a child does not inherit them, so a lock says that this very process lives.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def is_locked(path: str | Path) -> bool | None:
    """Whether another process holds the lock; None if there is no such file. The caller must not hold it itself.

    Opened for reading only, or whoever watches the folder would take the closing for the holder's end.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        return bool(struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK)
    finally:
        os.close(fd)


def make_user_namespace(uid_map: str, gid_map: str) -> int:
    """A user namespace with these maps ("inside outside count", a line each); gives its descriptor. Raises OSError."""
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    ready, told = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        _hold_namespace(ours, theirs, told)
    os.close(theirs)
    os.close(told)
    try:
        failure = int(os.read(ready, 16) or b"0")
        if failure:
            raise OSError(failure, f"unshare: {os.strerror(failure)}")
        if os.geteuid():
            Path(f"/proc/{pid}/setgroups").write_text("deny")
        Path(f"/proc/{pid}/uid_map").write_text(uid_map)
        Path(f"/proc/{pid}/gid_map").write_text(gid_map)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ours)
        os.close(ready)
        os.waitpid(pid, 0)


def _hold_namespace(ours: int, theirs: int, told: int) -> Any:
    """The child: makes the namespace, says so, and waits until the parent has opened it."""
    try:
        os.close(ours)
        try:
            unshare(NEWUSER)
            os.write(told, b"0")
        except OSError as error:
            os.write(told, str(error.errno).encode())
        os.read(theirs, 1)
    finally:
        os._exit(0)
