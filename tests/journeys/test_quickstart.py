"""The quickstart, executed: each block marked `bash run`, one after another, against real processes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Family

pytestmark = pytest.mark.sandbox
BLOCKS = re.findall(r"^```bash run\n(.*?)^```$", (ROOT / "docs" / "quickstart.md").read_text(), re.M | re.S)


@pytest.mark.timeout(900)  # the images that the pipeline names are built if no test has done so before
def test_the_quickstart_does_what_it_says(family: Family, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    environment = os.environ | {
        "PENSTOCK_DATA": str(family.data),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    said = []
    for block in BLOCKS:
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, f"{block}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
        said.append(ran.stdout)
    told = "\n".join(said)
    assert len(BLOCKS) == 9
    assert "assumed-role/SageMakerExecutionRole" in told or ":user/" in told
    assert "hello" in told
    assert "['quickstart'" in told or "'quickstart'" in told
    assert "Execution Succeeded" in told
    assert "accuracy: 0.8" in told, "the evaluation's own print, in its log"
    assert "At AWS: " in told, "the plan's sum"
    assert "AWS would have billed" in told
    assert "Approved" in told
    assert "CreateRole" not in told  # `coverage sts` tells of STS alone
    assert re.search(r"yes +AssumeRole\b", told)
