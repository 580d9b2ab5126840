"""Images that a person builds from a Dockerfile, and the jobs that run on them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Family

pytestmark = pytest.mark.sandbox
DOCKERFILE = """
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
ARG WHO=nobody
ENV GREETING="hello ${WHO}" PATH=/opt/program:$PATH
WORKDIR /opt/program
COPY program .
ADD data.tar.gz /data/
COPY --chmod=755 tool /usr/local/bin/tool
RUN echo "$GREETING" > /greeting && rm /data/gone.txt && mkdir -p "$HOME/.cache"
RUN ["python", "-c", "import os, site; open(site.getsitepackages()[0] + '/mine.py', 'w').write('X = 7')"]
ENTRYPOINT ["python", "main.py"]
CMD ["by default"]
"""
MAIN = """
import json, os, sys, mine
report = {"arguments": sys.argv[1:], "cwd": os.getcwd(), "greeting": open("/greeting").read().strip(), "x": mine.X,
          "data": sorted(os.listdir("/data")), "tool": os.popen("tool").read().strip(), "env": os.environ["GREETING"]}
os.makedirs("/opt/ml/output", exist_ok=True)
open("/opt/ml/output/message", "w").write(json.dumps(report))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import tarfile

    made = tmp_path / "image"
    (made / "program").mkdir(parents=True)
    (made / "Dockerfile").write_text(DOCKERFILE)
    (made / "program" / "main.py").write_text(MAIN)
    (made / "tool").write_text("#!/bin/sh\necho tooled\n")
    with tarfile.open(made / "data.tar.gz", "w:gz") as archive:
        for name in ("kept.txt", "gone.txt"):
            (tmp_path / name).write_text(name)
            archive.add(tmp_path / name, name)
    return made


def report_of(family: Family, uri: str, **application: Any) -> dict[str, Any]:
    """What the image's program says of the world it found itself in."""
    sagemaker = family.boto()("sagemaker")
    name = f"on-image-{time.time_ns()}"
    sagemaker.create_processing_job(
        ProcessingJobName=name,
        RoleArn=family.keys["role_arn"],
        AppSpecification={"ImageUri": uri, **application},
        ProcessingResources={"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}},
    )
    sagemaker.get_waiter("processing_job_completed_or_stopped").wait(
        ProcessingJobName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 1200}
    )
    described = sagemaker.describe_processing_job(ProcessingJobName=name)
    assert described["ProcessingJobStatus"] == "Completed", described.get("FailureReason")
    said: dict[str, Any] = json.loads(described["ExitMessage"])
    return said


def test_a_job_runs_on_an_image_that_a_dockerfile_made(family: Family, folder: Path) -> None:
    uri = f"{family.keys['account']}.dkr.ecr.us-east-1.amazonaws.com/own:1"
    built = family.penstock("image", "build", str(folder), "--tag", uri, "--build-arg", "WHO=you")
    assert built.returncode == 0, built.stdout + built.stderr
    ecr = family.boto()("ecr")
    ecr.create_repository(repositoryName="own")
    [image] = ecr.describe_images(repositoryName="own")["imageDetails"]
    assert image["imageTags"] == ["1"]
    said = report_of(family, uri)
    assert said == {
        "arguments": ["by default"], "cwd": "/opt/program", "greeting": "hello you", "x": 7, "data": ["kept.txt"],
        "tool": "tooled", "env": "hello you",
    }  # fmt: skip
    by_digest = f"{uri.rpartition(':')[0]}@{image['imageDigest']}"
    assert report_of(family, by_digest, ContainerArguments=["given"])["arguments"] == ["given"]
    again = family.penstock("image", "build", str(folder), "--tag", "other:2", "--build-arg", "WHO=you")
    assert again.stdout.count("as before") == 3, again.stdout + again.stderr
    assert family.penstock("image", "rm", "other:2").returncode == 0
    ecr.delete_repository(repositoryName="own", force=True)
    assert "No environment is known" in family.penstock("image", "pull", uri).stderr


def test_an_instruction_that_fails_is_told_with_its_last_lines(family: Family, folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM python:3.11\nLABEL a=b\nRUN echo so far && \\\n  ls /not/there\n")
    failed = family.penstock("image", "build", str(folder), "--tag", "fails:1")
    assert failed.returncode == 1
    assert "warning: line 2: LABEL a=b" in failed.stdout
    assert "line 3: RUN echo so far" in failed.stderr
    assert "/not/there" in failed.stderr
    assert family.penstock("image", "rm", "fails:1").returncode != 0


def test_a_build_sees_nothing_of_the_machine(family: Family, folder: Path) -> None:
    canary = folder.parent / "canary"
    canary.write_text("secret")
    (folder / "Dockerfile").write_text(
        f"FROM python:3.11\nRUN ! cat {canary} && ! ls {family.data} && ! ls /home/* /var/lib/dpkg\n"
    )
    built = family.penstock("image", "build", str(folder), "--tag", "sees:1")
    assert built.returncode == 0, built.stdout + built.stderr
    family.penstock("image", "rm", "sees:1")
