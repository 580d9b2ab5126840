"""Another project's tests against a server of ours: `make conformance SOURCE=…`.

    python -m tests.conformance SOURCE [--groups sagemaker iam] [--only WORD] [--python PYTHON] [--out FILE]

SOURCE is a work tree outside of this repository: getmoto/moto, aws/sagemaker-python-sdk (version 2 or 3) or ceph/s3-tests.
A server is started for it in a folder of its own. It ends with 1 where a test fails for which `reasons.toml` has no reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients import IMAGES, environment
from tests.conformance import report, suite
from tests.conformance.suite import Group, Row, Setting
from tests.conftest import ROOT

SERVICES = (
    "sagemaker", "sagemakermetrics", "s3", "sts", "iam", "logs", "ecr", "kms", "resourcegroupstaggingapi", "awslambda",
    "sqs",
)  # fmt: skip
"""Folders of moto's tests for what is served."""
ACCOUNTS = 1000


@dataclass
class Server:
    """A family of processes, and how it is reached."""

    data: Path
    about: dict[str, Any]

    def penstock(self, *arguments: str) -> str:
        env = os.environ | {"PENSTOCK_DATA": str(self.data)}
        command = [sys.executable, "-m", "penstock", *arguments]
        return subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout

    def world(self) -> dict[str, str]:
        """The variables that programs of this server get."""
        lines = self.penstock("env", "--json")
        return {name: str(value) for name, value in json.loads(lines).items()}


@contextmanager
def raised() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="penstock-conformance-") as name:
        server = Server(Path(name), {})
        IMAGES.mkdir(parents=True, exist_ok=True)
        (server.data / "images").symlink_to(IMAGES)
        server.about = json.loads(server.penstock("up", "--detach", "--port", "0", "--doorway-port", "0", "--json"))
        try:
            yield server
        finally:
            server.penstock("down", "--jobs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the other project's work tree")
    parser.add_argument("--groups", nargs="*", default=[], help="moto's services, sections of the SDK's lists")
    parser.add_argument("--only", nargs="*", default=[], help="tests whose id contains one of these words")
    parser.add_argument("--python", default="", help="a Python with the suite's requirements (default: one is made)")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "conformance.json")
    parser.add_argument("--limit", type=int, default=0, help="seconds that a test may take")
    parser.add_argument("--deadline", type=int, default=7200, help="seconds that all of it may take")
    parser.add_argument("--jobs", type=int, default=1, help="groups at the same time")
    args = parser.parse_args()
    kind = kind_of(args.source)
    if kind == "s3-tests":
        more = ["--only", args.only[0]] if args.only else []
        return subprocess.call([sys.executable, "-m", "tests.conformance.s3", str(args.source), *more], cwd=ROOT)
    with raised() as server, tempfile.TemporaryDirectory() as folder:
        began = time.time()
        groups, setting = (moto if kind == "moto" else sdk)(kind, args, server, Path(folder))
        rows = run(groups, setting, args.jobs)
        rows = report.classified(rows, report.Reasons.read(kind))
        return report.told(rows, args.out, {"suite": kind, "seconds": round(time.time() - began)})


def kind_of(source: Path) -> str:
    """Which suite a work tree holds."""
    if (source / "tests" / "test_sagemaker").is_dir():
        return "moto"
    if (source / "s3tests").is_dir():
        return "s3-tests"
    if (source / "sagemaker-core").is_dir():
        return "sdk-v3"
    if (source / "tests" / "integ").is_dir():
        return "sdk-v2"
    raise SystemExit(f"{source} holds none of the suites that are known here")


def run(groups: list[Group], setting: Setting, jobs: int) -> list[Row]:
    rows: list[Row] = []
    with ThreadPoolExecutor(jobs) as pool:
        for group, found in zip(groups, pool.map(lambda one: suite.run_group(one, setting), groups), strict=True):
            passed = sum(row["outcome"] == "passed" for row in found)
            print(f"{group.name}: {passed} of {len(found)} passed", file=sys.stderr, flush=True)
            rows += found
    return rows


def setting_of(args: argparse.Namespace, python: str, env: dict[str, str], options: list[str], limit_s: int) -> Setting:
    log = args.out.with_suffix(".log")
    log.write_bytes(b"")
    limit_s, deadline = args.limit or limit_s, time.time() + args.deadline
    return Setting(python, args.source.resolve(), env, options, limit_s, deadline, log.resolve())


# --- moto: an account a test
def moto(kind: str, args: argparse.Namespace, server: Server, folder: Path) -> tuple[list[Group], Setting]:
    python = args.python or str(environment("moto") / "bin" / "python")
    url, keys = server.about["url"], server.about["credentials"]
    accounts = folder / "accounts.jsonl"
    accounts.write_text(
        "".join(server.penstock("account", "add", "--count", str(ACCOUNTS), "--json") for _ in range(2))
    )
    env = suite.environment(
        TEST_SERVER_MODE="true", TEST_SERVER_MODE_ENDPOINT=url, AWS_ENDPOINT_URL=url, MOTO_CALL_RESET_API="false",
        AWS_DEFAULT_REGION="us-east-1", AWS_REGION="us-east-1", AWS_ACCESS_KEY_ID=keys["access_key_id"],
        AWS_SECRET_ACCESS_KEY=keys["secret_access_key"], TESTS_SKIP_REQUIRES_DOCKER="",
    )  # fmt: skip
    skipped = folder / "not_applicable"
    skipped.write_text("".join(f"{node}  # {why}\n" for node, why in report.Reasons.read(kind).not_applicable))
    options = [
        "--import-mode=append", "-p", "moto_world", "--isolation=account", "--sweep-buckets", f"--accounts={accounts}",
        f"--not-applicable={skipped}",
    ]  # fmt: skip
    if args.only:
        options += ["-k", " or ".join(args.only)]
    if "s3" in (args.groups or SERVICES):
        options += ["-p", "s3_era"]
        env["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    groups = [Group(name, [f"tests/test_{name}"]) for name in args.groups or SERVICES]
    return groups, setting_of(args, str(Path(python).absolute()), env, options, 60)


# --- the SDKs: chosen tests, through the doorway
def sdk(kind: str, args: argparse.Namespace, server: Server, folder: Path) -> tuple[list[Group], Setting]:
    version = kind.removeprefix("sdk-")
    if not args.python:
        raise SystemExit(
            "give --python: one of an environment with this version of the SDK, and what its tests require"
        )
    python = str(Path(args.python).absolute())
    region = "us-west-2"
    env = suite.environment(**server.world())
    env |= {"AWS_DEFAULT_REGION": region, "AWS_REGION": region, "AWS_STS_REGIONAL_ENDPOINTS": "regional"}
    env["PATH"] = os.pathsep.join([str(Path(python).parent), env["PATH"]])  # the suites run `python -m build`
    role = [python, str(suite.PLUGINS / "role.py"), "SageMakerRole", region]
    env |= json.loads(subprocess.run(role, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout)
    options = ["-p", "sdk_world", f"--rootdir={args.source.resolve()}", "--longest-sleep=10", "-W", "ignore"]
    groups: dict[tuple[str, str], Group] = {}
    for section, file, node in read_sections(Path(__file__).with_name(f"sdk_{version}.txt")):
        if (not args.groups or section in args.groups) and (not args.only or any(word in node for word in args.only)):
            groups.setdefault((section, file), Group(section, [file])).ids.append(node)
    if any("function" in section for section, _ in groups):
        options.append(f"--function-image={function_image(server, python, folder)}")
    return list(groups.values()), setting_of(args, python, env, options, 600)


VERSIONS = """
import sys
from importlib.metadata import distributions
print("%d.%d" % sys.version_info[:2])
known = {each.name: each.version for each in distributions()}
names = ("sagemaker-core", "sagemaker-mlops") if "sagemaker-core" in known and known["sagemaker"] > "3" else ("sagemaker",)
for name in names:
    print(f"{name}=={known[name]}")
"""


def function_image(server: Server, python: str, folder: Path) -> str:
    """Makes known what the suites build by Docker: an image with the Python and the SDK of their own environment.

    Gives: its URI.
    """
    told = subprocess.run([python, "-c", VERSIONS], check=True, stdout=subprocess.PIPE, text=True).stdout
    version, *requirements = told.split()
    file = folder / "function.txt"
    file.write_text("\n".join(requirements) + "\n")
    uri = f"123456789012.dkr.ecr.us-west-2.amazonaws.com/remote-function:{requirements[0].partition('==')[2]}"
    server.penstock("image", "add", uri, "--requirements", str(file), "--python", version)
    server.penstock("image", "pull", uri)  # the suites' patience is for a job that begins
    return uri


def read_sections(path: Path) -> list[tuple[str, str, str]]:
    """Reads a list of node ids. Gives (section, file, node id); a line `## name` opens a section."""
    found, section = [], "all"
    for line in path.read_text().splitlines():
        if line.startswith("## "):
            section = line[3:].strip()
        elif line.strip() and not line.startswith("#"):
            node = line.partition("  #")[0].strip()
            found.append((section, node.partition("::")[0], node))
    return found


if __name__ == "__main__":
    sys.exit(main())
