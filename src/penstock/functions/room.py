"""Who makes room: idle workers end for those that wait for capacity."""

from __future__ import annotations

from collections.abc import Collection

from penstock.functions.workers import Worker


def lack_bytes(workers: Collection[Worker], wanted: Collection[Worker]) -> int:
    """What those who wait need beside what is ending already."""
    ending = sum(worker.memory_bytes for worker in workers if worker.ending and not worker.waiting)
    return sum(worker.memory_bytes for worker in wanted) - ending


def to_end(workers: Collection[Worker], wanted: Collection[Worker]) -> list[Worker]:
    """The workers to end: those idle for longest, until their memory, and what is ending already, is what `wanted` wait for."""
    lacking = lack_bytes(workers, wanted)
    chosen: list[Worker] = []
    for worker in sorted((worker for worker in workers if worker.idle), key=lambda worker: worker.idle_since):
        if lacking <= 0:
            break
        chosen.append(worker)
        lacking -= worker.memory_bytes
    return chosen
