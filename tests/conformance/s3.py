"""ceph's s3-tests, a suite that others wrote for servers of S3, run against a family of ours.

    python -m tests.conformance.s3 SOURCE [--only WORD] [--out FILE]

SOURCE is a work tree (or a git directory) of github.com/ceph/s3-tests, outside of this repository. Each test that fails must
match a line of `s3_reasons.toml`, which says why; one that fails without a reason, and a reason that no failure needs any
more, are told, and the former make the run fail.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import boto3
from botocore.config import Config

from penstock.runs.images.environments import find_uv
from penstock.runs.images.indexes import read_indexes

REASONS = Path(__file__).with_name("s3_reasons.toml")
CACHE = Path.home() / ".cache" / "penstock-conformance" / "s3"
REQUIREMENTS = (
    "PyYAML", "boto3", "munch", "isodate", "requests", "pytz", "httplib2", "lxml", "pytest", "pytest-timeout", "pytest-xdist",
)  # fmt: skip
FILES = ("s3tests/functional/test_s3.py", "s3tests/functional/test_headers.py")
SECTIONS = ("s3 main", "s3 alt", "s3 tenant", "iam", "iam root", "iam alt root")


@dataclass
class Outcome:
    """What came of the suite: the names of the tests, by how they ended."""

    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.conformance.s3", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--only", default="", help="tests whose name matches, as pytest -k takes it")
    parser.add_argument("--workers", default="2", help="processes that the suite runs in")
    parser.add_argument("--out", type=Path, help="where the table goes as JSON")
    parser.add_argument("--page", type=Path, help="where the lists go as a page of the documentation")
    given = parser.parse_args()
    return run(given.source, given.only, given.workers, given.out, given.page)


def run(source: Path, only: str = "", workers: str = "2", out: Path | None = None, to: Path | None = None) -> int:
    """Runs the suite, prints the table, and gives the exit status: 0 where every failure has a reason."""
    with tempfile.TemporaryDirectory(prefix="penstock-s3-tests-") as folder, family(Path(folder) / "data") as url:
        tree = lay_out(source, Path(folder) / "tree")
        conf = Path(folder) / "s3tests.conf"
        conf.write_text(configuration(Path(folder) / "data", url))
        outcome = suite(tree, conf, only, workers)
    if to:
        to.write_text(page(outcome))
    return report(outcome, not only, out)


def lay_out(source: Path, tree: Path) -> Path:
    """The suite as files: a work tree as it is, a git directory laid out."""
    if (source / "s3tests").is_dir():
        return source
    tree.mkdir()
    archive = subprocess.run(["git", f"--git-dir={source}", "archive", "HEAD"], capture_output=True, check=True)
    subprocess.run(["tar", "x", "-C", str(tree)], input=archive.stdout, check=True)
    return tree


@contextmanager
def family(data: Path) -> Iterator[str]:
    """A server of real processes on a folder of its own; gives its address."""
    data.mkdir(mode=0o700)
    environment = os.environ | {"PENSTOCK_DATA": str(data)}
    command = [sys.executable, "-m", "penstock"]
    up = subprocess.run(
        [*command, "up", "--detach", "--port", "0", "--doorway-port", "0", "--json"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    try:
        yield str(json.loads(up.stdout)["url"])
    finally:
        subprocess.run([*command, "down", "--jobs"], env=environment, capture_output=True, check=True)


def configuration(data: Path, url: str) -> str:
    """The suite's own settings: an account for each of its users."""
    host, _, port = url.partition("//")[2].partition(":")
    added = subprocess.run(
        [sys.executable, "-m", "penstock", "account", "add", "--count", str(len(SECTIONS)), "--json"],
        env=os.environ | {"PENSTOCK_DATA": str(data)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = ["[DEFAULT]", f"host = {host}", f"port = {port}", "is_secure = False", "ssl_verify = False"]
    lines += ["[fixtures]", "bucket prefix = s3t-{random}-"]
    for section, line in zip(SECTIONS, added.stdout.splitlines(), strict=True):
        keys = json.loads(line)
        lines += [f"[{section}]", f"access_key = {keys['AccessKeyId']}", f"secret_key = {keys['SecretAccessKey']}"]
        lines += [f"user_id = {canonical_id(url, keys)}", f"email = {section.replace(' ', '.')}@example.com"]
        lines += [f"display_name = {keys['AccountId']}", "api_name = eu-west-1", "tenant = tenant"]
        lines += [f"kms_keyid{n} = arn:aws:kms:us-east-1:{keys['AccountId']}:key/key-{n or 1}" for n in ("", "2")]
    return "\n".join(lines)


def canonical_id(url: str, keys: dict[str, str]) -> str:
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"], config=Config(proxies={}),
    )  # fmt: skip
    return str(client.list_buckets()["Owner"]["ID"])


def python() -> str:
    """The interpreter of an environment with what the suite needs, made once."""
    made = CACHE / "venv"
    if not (made / ".whole").exists():
        uv, env = find_uv(os.environ), read_indexes(os.environ).for_uv(os.environ)
        subprocess.run(
            [uv, "venv", "-q", "--clear", "--no-project", "--python", sys.executable, made], check=True, env=env
        )
        interpreter = str(made / "bin" / "python")
        subprocess.run([uv, "pip", "install", "-q", "--python", interpreter, *REQUIREMENTS], check=True, env=env)
        (made / ".whole").touch()
    return str(made / "bin" / "python")


def suite(tree: Path, conf: Path, only: str, workers: str) -> Outcome:
    """Runs the tests but those that a mark of the suite leaves out."""
    marks = " and ".join(f"not {mark}" for mark in reasons()["marks"])
    results = conf.with_name("results.xml")
    environment = {
        **os.environ,
        "S3TEST_CONF": str(conf),
        "PYTHONPATH": str(Path(__file__).parent),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    for name in ("AWS_ENDPOINT_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        environment.pop(name, None)
    command = [python(), "-m", "pytest", "-q", "-m", marks, "--timeout", "180", f"--junitxml={results}", "--tb=short"]
    command += ["-p", "no:cacheprovider", "-p", "s3_era", "-n", workers, *(("-k", only) if only else ()), *FILES]
    log = conf.with_name("pytest.log")
    with log.open("wb") as told:
        subprocess.run(command, cwd=tree, env=environment, stdout=told, stderr=subprocess.STDOUT)
    if not results.exists():
        raise SystemExit(f"the suite did not run: {log.read_text()[-2000:]}")
    return read_results(results)


def read_results(path: Path) -> Outcome:
    """The outcome that a JUnit file tells. A test whose fixture fails at its end counts as failed."""
    outcome = Outcome()
    cases: dict[str, list[Any]] = {}
    for case in (
        ElementTree.parse(path).getroot().iterfind(".//testcase[@classname]")
    ):  # an interrupted run has one without
        name = f"{case.attrib['classname'].rpartition('.')[2]}::{case.attrib['name']}"
        cases.setdefault(name, []).extend(case)
    for name, ends in sorted(cases.items()):
        bad = [end for end in ends if end.tag in ("failure", "error")]
        if bad:
            outcome.failed[name] = (
                bad[0].attrib.get("message", "").splitlines()[0][:300] if bad[0].attrib.get("message") else ""
            )
        elif any(end.tag == "skipped" for end in ends):
            outcome.skipped.append(name)
        else:
            outcome.passed.append(name)
    return outcome


def reasons() -> dict[str, Any]:
    return tomllib.loads(REASONS.read_text())


def explain(failed: dict[str, str]) -> tuple[dict[str, list[str]], list[str], set[str]]:
    """Gives the failures by reason, those without one, and the patterns that no failure needs."""
    patterns: dict[str, str] = {pattern: group["reason"] for group in reasons()["group"] for pattern in group["tests"]}
    by_reason: dict[str, list[str]] = {}
    bare: list[str] = []
    used: set[str] = set()
    for name in failed:
        bare_name = name.partition("::")[2].replace("[", "(").replace("]", ")")  # brackets mean more to fnmatch
        found = [pattern for pattern in patterns if fnmatch.fnmatchcase(bare_name, pattern)]
        used |= set(found)
        (by_reason.setdefault(patterns[found[0]], []) if found else bare).append(name)
    return by_reason, bare, set(patterns) - used


def report(outcome: Outcome, whole: bool, out: Path | None) -> int:
    """Prints the counts, by reason, and what has none."""
    by_reason, bare, unused = explain(outcome.failed)
    counts = f"{len(outcome.passed)} passed, {len(outcome.failed)} failed, {len(outcome.skipped)} skipped"
    print(f"ceph's s3-tests: {counts}")
    for reason, names in sorted(by_reason.items(), key=lambda each: -len(each[1])):
        print(f"  {len(names):4} {reason}")
    for name in bare:
        print(f"  without a reason: {name}: {outcome.failed[name]}")
    for pattern in sorted(unused) if whole else ():
        print(f"  no longer needed: {pattern}")
    if out:
        out.write_text(json.dumps(asdict(outcome), indent=2))
    return 1 if bare else 0


def page(outcome: Outcome) -> str:
    """The lists as a page of the documentation: what passes, and a reason for each of the rest."""
    by_reason, bare, _ = explain(outcome.failed)
    lines = [
        "# ceph's s3-tests",
        "",
        "Written by `python -m tests.conformance.s3 SOURCE --page docs/conformance-s3.md`.",
        "",
    ]
    lines += ["| | tests |", "|---|---|", f"| passed | {len(outcome.passed)} |"]
    lines += [
        f"| failed: {reason} | {len(names)} |" for reason, names in sorted(by_reason.items(), key=lambda e: -len(e[1]))
    ]
    lines += [
        f"| failed, without a reason | {len(bare)} |",
        f"| skipped by the suite itself | {len(outcome.skipped)} |",
    ]
    lines += [
        "",
        "Left out by the suite's own marks: "
        + "; ".join(f"`{m}`: {why}" for m, why in reasons()["marks"].items())
        + ".",
    ]
    for title, names in [("Passed", outcome.passed), *by_reason.items(), ("Without a reason", bare)]:
        if names:
            shown = ", ".join(f"`{name.partition('::')[2]}`" for name in names)
            lines += ["", f"<details><summary>{title}: {len(names)}</summary>", "", shown, "", "</details>"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
