"""Instance types as amounts of a machine: cores, memory, accelerators.

Source: aws.amazon.com/ec2/instance-types: a size doubles with its number; the family's letter says the memory per core.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.settings import Settings

GIB = 1 << 30
SIZE = re.compile(r"^(?:ml\.)?([a-z0-9-]+)\.(nano|micro|small|medium|large|(\d*)xlarge|metal.*)$")
SMALL = {"nano": 1, "micro": 1, "small": 1, "medium": 1, "large": 2}
PER_CPU_GIB = {"c": 2, "m": 4, "t": 4, "r": 8, "x": 16, "z": 8, "i": 8, "d": 8, "g": 4, "p": 8, "inf": 2, "trn": 4}
EXACT: dict[str, tuple[int, float, int]] = {
    # type: cores, GiB, accelerators
    "t2.medium": (2, 4, 0),
    "t2.large": (2, 8, 0),
    "t2.xlarge": (4, 16, 0),
    "t2.2xlarge": (8, 32, 0),
    "t3.medium": (2, 4, 0),
    "t3.large": (2, 8, 0),
    "c4.xlarge": (4, 7.5, 0),
    "c4.2xlarge": (8, 15, 0),
    "c4.4xlarge": (16, 30, 0),
    "c4.8xlarge": (36, 60, 0),
    "p2.xlarge": (4, 61, 1),
    "p2.8xlarge": (32, 488, 8),
    "p2.16xlarge": (64, 732, 16),
    "p3.2xlarge": (8, 61, 1),
    "p3.8xlarge": (32, 244, 4),
    "p3.16xlarge": (64, 488, 8),
    "p3dn.24xlarge": (96, 768, 8),
    "p4d.24xlarge": (96, 1152, 8),
    "p4de.24xlarge": (96, 1152, 8),
    "p5.4xlarge": (16, 256, 1),
    "p5.48xlarge": (192, 2048, 8),
    "p5e.48xlarge": (192, 2048, 8),
    "p5en.48xlarge": (192, 2048, 8),
}
GPUS = {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}
"""Of the g families; their other sizes have one."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One instance."""

    cpus: int
    memory_bytes: int
    gpus: int = 0
    burstable: bool = False

    @property
    def share(self) -> float:
        """The cores it is admitted with. Burstable types are promised 20 to 40 % of theirs; they count half."""
        return self.cpus / 2 if self.burstable else float(self.cpus)


def machine_of(instance_type: str) -> Machine:
    """What an instance of this type has at AWS; a type of an unknown family counts as general purpose."""
    plain = instance_type.removeprefix("ml.")
    if plain in EXACT:
        cpus, gib, gpus = EXACT[plain]
        return Machine(cpus, int(gib * GIB), gpus, plain[0] == "t")
    match = SIZE.match(plain)
    if not match:
        return Machine(4, 16 * GIB)
    family, size, times = match.groups()
    cpus = SMALL[size] if size in SMALL else 96 if size.startswith("metal") else 4 * int(times or 1)
    letters = family.rstrip("-0123456789abcdefghijklmnopqrstuvwxyz") or re.split(r"\d", family)[0]
    memory = cpus * PER_CPU_GIB.get(letters, PER_CPU_GIB.get(letters[:1], 4)) * GIB
    return Machine(cpus, memory, GPUS.get(size, 1) if family.startswith("g") and family[1:2].isdigit() else 0, letters == "t")


def clamp(machine: Machine, settings: Settings) -> Machine:
    """What a run gets of it: never more than jobs may use here. There are no accelerators."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpus = settings.cpus or float(os.cpu_count() or 1)
    memory = settings.memory_bytes or max(GIB, total - GIB)
    return replace(machine, cpus=max(1, min(machine.cpus, int(cpus))), memory_bytes=min(machine.memory_bytes, memory), gpus=0)
