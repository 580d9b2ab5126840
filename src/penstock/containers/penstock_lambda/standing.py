"""Standing still between invocations: no thread of the function's Python runs meanwhile, as AWS freezes what waits for its next one.

Whoever waits in a call that `ctypes.PyDLL` makes keeps the interpreter's lock, so no other thread gets it: at once, without a signal,
and over with the first byte that comes.
"""

import ctypes
import select


class _Awaited(ctypes.Structure):
    """C's pollfd."""

    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


_poll = ctypes.PyDLL(None).poll


def until_readable(fd: int) -> None:
    """Returns when there is something to read, or the other side has closed."""
    awaited = _Awaited(fd, select.POLLIN, 0)
    while _poll(ctypes.byref(awaited), ctypes.c_ulong(1), -1) < 0:
        pass  # a signal: its handler runs here
