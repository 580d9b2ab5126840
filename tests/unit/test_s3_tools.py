"""S3 as programs see it that are not boto3: the AWS CLI, s3fs, pyarrow's S3 file system."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from penstock.kernel import ids
from tests import clients
from tests.conftest import Boto

pytestmark = pytest.mark.clients
MIB = 1 << 20


@pytest.fixture
def bucket(client: Boto) -> str:
    name = f"test-{ids.word(16)}"
    client("s3").create_bucket(Bucket=name)
    return name


def environment(client: Boto, folder: Path) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if "proxy" not in name.lower() and not name.startswith("AWS_")
    }
    return kept | {
        "AWS_ENDPOINT_URL": client.url, "AWS_ACCESS_KEY_ID": client.keys["access_key_id"], "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_SECRET_ACCESS_KEY": client.keys["secret_access_key"], "HOME": str(folder), "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip


def run(command: list[Any], client: Boto, folder: Path) -> str:
    done = subprocess.run(
        [str(each) for each in command],
        cwd=folder,
        env=environment(client, folder),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_cli_copies_a_large_file_and_syncs_a_folder_both_ways_and_only_what_changed(client: Boto, bucket: str, tmp_path: Path) -> None:
    def aws(*arguments: Any) -> str:
        return run([clients.environment("cli") / "bin" / "aws", "s3", *arguments], client, tmp_path)

    files = {"a.txt": b"a", "sub/é b.bin": os.urandom(100_000), "big": os.urandom(17 * MIB)}
    for name, data in files.items():
        (tmp_path / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / name).write_bytes(data)
        os.utime(tmp_path / "up" / name, (1e9, 1e9))  # S3 tells whole seconds: a file of this second would seem newer
    assert aws("sync", "up", f"s3://{bucket}/x").count("upload:") == 3
    aws("cp", f"s3://{bucket}/x/big", "back")  # both ways in several parts at once
    assert (tmp_path / "back").read_bytes() == files["big"]
    (tmp_path / "up" / "a.txt").write_bytes(b"changed")
    (tmp_path / "up" / "big").unlink()
    told = aws("sync", "--delete", "up", f"s3://{bucket}/x")
    assert (told.count("upload:"), told.count("delete:")) == (1, 1)
    aws("cp", "--recursive", f"s3://{bucket}/x", "down")
    assert {path.name for path in (tmp_path / "down").rglob("*") if path.is_file()} == {"a.txt", "é b.bin"}
    assert (tmp_path / "down" / "sub" / "é b.bin").read_bytes() == files["sub/é b.bin"]


ARROW = """
import sys, pyarrow, pyarrow.dataset, pyarrow.parquet
from pyarrow.fs import FileSelector, S3FileSystem
bucket, host = sys.argv[1:]
files = S3FileSystem(endpoint_override=host, scheme="http", region="us-east-1")
table = pyarrow.table({"part": ["a", "b"] * 1000, "n": list(range(2000))})
pyarrow.dataset.write_dataset(table, f"{bucket}/set", format="parquet", partitioning=["part"], filesystem=files)
found = pyarrow.dataset.dataset(f"{bucket}/set", format="parquet", partitioning=["part"], filesystem=files)
assert found.to_table(filter=pyarrow.dataset.field("part") == "a").num_rows == 1000
data = bytes(range(256)) * 50_000
with files.open_output_stream(f"{bucket}/big") as file:
    file.write(data)
with files.open_input_file(f"{bucket}/big") as file:
    assert file.size() == len(data)
    assert file.read_at(10, 1_000_000) == data[1_000_000:1_000_010]
assert len(files.get_file_info(FileSelector(bucket, recursive=True))) >= 5
files.copy_file(f"{bucket}/big", f"{bucket}/copy")
files.delete_dir(f"{bucket}/set")
assert sorted(info.base_name for info in files.get_file_info(FileSelector(bucket))) == ["big", "copy"]
"""

S3FS = """
import sys, s3fs
bucket, host = sys.argv[1:]
files = s3fs.S3FileSystem(endpoint_url="http://" + host)
data = bytes(range(256)) * 50_000
with files.open(f"{bucket}/a/big", "wb", block_size=5 << 20) as file:
    file.write(data)
files.pipe(f"{bucket}/a/small", b"hello", Metadata={"who": "me"})
assert files.metadata(f"{bucket}/a/small") == {"who": "me"}
with files.open(f"{bucket}/a/big", "rb") as file:
    file.seek(1_000_000)
    assert file.read(10) == data[1_000_000:1_000_010]
assert sorted(files.ls(f"{bucket}/a")) == [f"{bucket}/a/big", f"{bucket}/a/small"]
assert files.glob(f"{bucket}/*/sm*") == [f"{bucket}/a/small"]
files.copy(f"{bucket}/a/big", f"{bucket}/b/big")
files.mv(f"{bucket}/a/small", f"{bucket}/b/small")
files.put_tags(f"{bucket}/b/small", {"a": "b"})
assert files.get_tags(f"{bucket}/b/small") == {"a": "b"}
assert files.info(f"{bucket}/b/big")["size"] == len(data)
files.rm(f"{bucket}/a", recursive=True)
files.rm(f"{bucket}/b", recursive=True)
assert files.find(bucket) == []
"""


@pytest.mark.parametrize("script", [ARROW, S3FS], ids=["pyarrow", "s3fs"])
def test_a_file_system_over_s3_works(client: Boto, bucket: str, tmp_path: Path, script: str) -> None:
    python = clients.environment("s3") / "bin" / "python"
    run([python, "-c", script, bucket, client.url.removeprefix("http://")], client, tmp_path)
