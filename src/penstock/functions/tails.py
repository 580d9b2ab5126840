"""A worker's log: the end of an invocation's lines, and the lines that its program could not write itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from penstock.functions.base import Outcome
from penstock.functions.workers import Flight

TAIL_BYTES, READ_BYTES = 4096, 64 << 10
"""What a caller gets, and what is read for it: the lines with their moments."""
INIT_END = b"INIT_REPORT Init Duration: "
"""Begins the last line of a program that has no handler."""
TAIL_S, FIRST_LOOK_S, LAST_LOOK_S = 1.0, 0.001, 0.05


async def add_tail(flight: Flight, outcome: Outcome) -> None:
    """Waits for the last line of an invocation's log, and puts the end of the log into the outcome."""
    request_id = flight.order.request_id
    outcome.log = await read_until(flight.log, flight.log_place, request_id, f"REPORT RequestId: {request_id}".encode())


async def read_until(path: str, place: int, request_id: str, last: bytes) -> bytes:
    """The end of a log (as `end_of`), as soon as its last line is there, or after a while without it."""
    until, pause_s = time.monotonic() + TAIL_S, FIRST_LOOK_S
    while True:
        found = end_of(path, place, request_id)
        if last in found or time.monotonic() > until:
            return found
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LAST_LOOK_S)


def add_lines(path: str, lines: list[str]) -> None:
    stamp = f"{int(time.time() * 1000)} "
    with contextlib.suppress(OSError), open(path, "ab") as file:
        file.write("".join(f"{stamp}{part}\n" for line in lines for part in line.split("\n")).encode())


def end_of(path: str, place: int, request_id: str) -> bytes:
    """The last 4 KB of an invocation's lines, without their moments. However long the log is, only its end is read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(place, os.fstat(file.fileno()).st_size - READ_BYTES))
            lines = [line.partition(b" ")[2] for line in file.read(READ_BYTES).split(b"\n")]
    except OSError:
        return b""
    text = b"\n".join(lines)
    start = text.rfind(b"START RequestId: " + request_id.encode()) if request_id else 0
    return text[max(0, start) :][-TAIL_BYTES:]
