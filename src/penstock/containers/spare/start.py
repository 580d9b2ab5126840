"""A Python that waits, inside its sandbox, with the packages of its image imported; then it becomes one job's program.

    python PLACE LINE ORDER MODULE ...

It runs while the interpreter is being started (as the spare's sitecustomize), says so at LINE (a socket), imports the modules that are
there, says whether that went unheard, and waits until a byte comes. ORDER (a file in memory) then says which program it is: command,
environment, working folder. PLACE, a long path that does not exist, is what the interpreter was told to run; its copies in memory are
overwritten with the script's path, and the interpreter goes on, as if it had been told so: no frame of this file is below the script,
and it ends as it would.

What would not be the same is run anew by `exec`: a script that names none of the modules, one with a file beside it that covers a
module imported here, an interpreter of another place. Runs on Python 3.7 and later (before, all is run anew), with the standard library.
"""

import sys

KNOWN = set(sys.modules)
"""What every Python has loaded by now."""

import ctypes  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import select  # noqa: E402
import struct  # noqa: E402
import tempfile  # noqa: E402
from typing import Any, Dict, List, Set  # noqa: E402

WAITING = "/opt/penstock/spare/"

MENTIONS_BYTES = PIECE_BYTES = 1 << 20
PAGES = ("[heap]", "")


def main(words: List[str]) -> None:
    """Waits, and becomes the program of the order."""

    place, line, order, modules = words[1], int(words[2]), int(words[3]), words[4:]
    os.write(line, b"!")
    first = first_names()
    copies = find_copies(place) if sys.version_info >= (3, 7) else []
    faithful = len(copies) > 1 and preload(modules, line)
    os.write(line, b"+" if faithful else b"-")
    if not os.read(line, 1):
        os._exit(0)
    given = read_order(order)
    os.close(line)
    command, env = given["command"], given["env"]
    for name in first.difference(env):
        os.environ.pop(name, None)
    os.environ.update(env)
    os.chdir(given["cwd"])
    python = find_python(command[0])
    if not (faithful and python and is_like(command[1], len(place), modules)):
        os.execvpe(command[0], command, env)  # noqa: S606
    rename(command, env)
    sys.executable = python
    become(command)
    overwrite(copies, place, os.path.abspath(command[1]) if sys.version_info >= (3, 9) else command[1])


def become(command: List[str]) -> None:
    """Sets what the interpreter made of its own words, and of PYTHONPATH."""
    sys.argv[:] = command[1:]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = command
    sys.path[:0] = search_path()
    for finder in sys.path_importer_cache.values():
        if finder is not None and hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()


def first_names() -> Set[str]:
    """The variables it was started with: what the interpreter itself added stays."""
    with open("/proc/self/environ", "rb") as file:
        pairs = file.read().decode("utf-8", "surrogateescape").split("\0")
    return {pair.partition("=")[0] for pair in pairs if pair}


def read_order(fd: int) -> Dict[str, Any]:

    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        given: Dict[str, Any] = json.loads(file.read().decode())
        return given


def preload(modules: List[str], line: int) -> bool:
    """Imports what is there (one at least) until the order is; False if an import failed, or said what each log would miss."""
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as said:
        try:
            for fd in (1, 2):
                os.dup2(said.fileno(), fd)
            for number, module in enumerate(modules):
                if os.fstat(said.fileno()).st_size or (number and select.select([line], [], [], 0)[0]):
                    break
                # as a script would: some warnings are shown to `__main__` alone
                exec(f"try:\n import {module}\nexcept ImportError: pass", {"__name__": "__main__"})  # noqa: S102
                sys.stdout.flush()
                sys.stderr.flush()
        except Exception:
            return False
        finally:
            for fd, kept in zip((1, 2), saved):
                os.dup2(kept, fd)
                os.close(kept)
        return not os.fstat(said.fileno()).st_size


def find_python(word: str) -> str:
    """The path of an interpreter that is this one, by the name that a command gives it; else nothing."""

    bin_folder = os.path.dirname(sys.executable)
    if "/" in word:
        return word if os.path.dirname(word) == bin_folder and is_this(word) else ""
    for folder in os.environ.get("PATH", "").split(":"):
        path = os.path.join(folder, word)
        if os.access(path, os.X_OK):
            return path if folder == bin_folder and is_this(path) else ""
    return ""


def is_this(path: str) -> bool:

    return os.path.realpath(path) == os.path.realpath(sys.executable)


def is_like(script: str, room: int, modules: List[str]) -> bool:
    """Whether the script, started in this process, finds what it would have found in one of its own."""
    fresh = {name.partition(".")[0] for name in set(sys.modules) - KNOWN}

    path = os.path.abspath(script)
    main_file = os.path.join(path, "__main__.py") if os.path.isdir(path) else path
    if len(path) >= room or script.startswith("-") or not os.path.isfile(main_file):
        return False
    with open(main_file, "rb") as file:
        text = file.read(MENTIONS_BYTES)
    if not any(module.partition(".")[0].encode() in text for module in modules):
        return False
    folders = [path if os.path.isdir(path) else os.path.dirname(os.path.realpath(path)), *search_path()]
    for folder in folders:
        if os.path.isfile(folder):
            return False
        if os.path.isdir(folder) and not fresh.isdisjoint(name.partition(".")[0] for name in os.listdir(folder)):
            return False
    return all(os.environ.get("PYTHONPATH", "x").split(":"))


def search_path() -> List[str]:
    """What PYTHONPATH adds to sys.path, without doubles."""

    given = os.environ.get("PYTHONPATH", "")
    found = []
    for entry in given.split(":") if given else []:
        path = os.path.abspath(entry)
        if path not in found and path not in sys.path:
            found.append(path)
    return found


# --- memory


def find_copies(place: str) -> List[int]:
    """Where the interpreter's own copies of a word of its command line lie: strings of Python have one byte a character."""
    wanted = (ctypes.c_uint32 * len(place))(*map(ord, place))  # the only copy that is made here, beside those that are read
    read = bytearray(PIECE_BYTES)
    views = wanted, (ctypes.c_char * PIECE_BYTES).from_buffer(read)
    own = [range(ctypes.addressof(view), ctypes.addressof(view) + ctypes.sizeof(view)) for view in views]
    found: List[int] = []
    with open("/proc/self/maps") as maps:
        lines = maps.read().splitlines()
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    for line in lines:
        words = line.split(None, 5)
        if words[1] == "rw-p" and (words[5] if len(words) > 5 else "") in PAGES:
            start, end = (int(number, 16) for number in words[0].split("-"))
            for at in range(start, end, PIECE_BYTES - len(wanted) * 4):
                found += [hit for hit in find_in(memory, at, end, read, wanted) if not any(hit in each for each in own)]
    os.close(memory)
    return sorted(set(found))


def find_in(memory: int, at: int, end: int, read: bytearray, wanted: Any) -> List[int]:
    """Where a word lies in a piece of memory; nowhere in one that is not there any more."""
    try:
        size = os.preadv(memory, [memoryview(read)[: min(end - at, PIECE_BYTES)]], at)
    except OSError:
        return []
    found: List[int] = []
    place = 0
    while True:
        place = read.find(wanted, place, size)
        if place < 0:
            return found
        found.append(at + place)
        place += 4


def overwrite(copies: List[int], place: str, path: str) -> None:
    """Has the interpreter read another path; what is no whole copy any more was a left-over, and is somebody else's now."""
    whole = b"".join(bytes((ord(letter), 0, 0, 0)) for letter in place)
    text = path.encode("utf-32-le", "surrogateescape") + b"\0\0\0\0"
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    for address in copies:
        try:
            same = os.pread(memory, len(whole), address) == whole
        except OSError:
            same = False
        if same:
            ctypes.memmove(address, text, len(text))
    os.close(memory)


def libc() -> Any:

    return ctypes.CDLL(None, use_errno=True)


def rename(command: List[str], env: Dict[str, str]) -> None:
    """Has `ps` and /proc show the program's words and variables; where the kernel cannot, they show the spare's."""

    calls = libc()
    calls.malloc.restype = calls.sbrk.restype = ctypes.c_void_p
    calls.malloc.argtypes, calls.sbrk.argtypes = [ctypes.c_size_t], [ctypes.c_ssize_t]
    calls.prctl(15, ctypes.c_char_p(os.fsencode(os.path.basename(command[0]))[:15]), 0, 0, 0)
    shown = b"".join(os.fsencode(word) + b"\0" for word in command)
    variables = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in env.items())
    at = calls.malloc(len(shown) + len(variables))  # for the life of the process
    ctypes.memmove(at, shown + variables, len(shown) + len(variables))
    with open("/proc/self/stat", "rb") as file:
        fields = [b"", b"", *file.read().rpartition(b") ")[2].split()]
    numbers = {number: int(fields[number - 1]) for number in (26, 27, 28, 45, 46, 47)}
    end = at + len(shown)
    wanted = struct.pack(
        "=12QII", numbers[26], numbers[27], numbers[45], numbers[46], numbers[47], calls.sbrk(0), numbers[28],
        at, end, end, end + len(variables), 0, 0, 0xFFFFFFFF,
    )  # fmt: skip
    buffer = ctypes.create_string_buffer(wanted, len(wanted))
    calls.prctl(35, 14, ctypes.byref(buffer), ctypes.c_ulong(len(wanted)), 0)


def waiting_words() -> List[str]:
    """This process's words, if it was started to wait; none for one that an import started."""
    with open("/proc/self/cmdline", "rb") as file:
        words = file.read().decode("utf-8", "surrogateescape").split("\0")[:-1]
    return words if len(words) > 4 and words[1].startswith(WAITING) else []


def leave_path() -> None:
    """Takes this file's folder out of the search for modules."""
    folder = __file__.rpartition("/")[0]
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    sys.path_importer_cache.pop(folder, None)


leave_path()
if waiting_words():
    main(waiting_words())
del sys.modules["sitecustomize"]
__import__("sitecustomize")  # the environment's own; where there is none, `site` expects this very ImportError
