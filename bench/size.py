"""Many at once, and many there: executions started together, long lists, a long definition. Smaller by SIZE_EXECUTIONS,
SIZE_PACKAGES, SIZE_PIPELINES and SIZE_STEPS.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.control import load, signed
from bench.steps import ENDED, IMAGE, chain, step
from bench.world import Family, Row, pss_bytes
from penstock import server
from penstock.runs.images.registry import LocalImages
from penstock.services.sagemaker.instances import clamp, machine_of
from penstock.settings import Settings
from penstock.store.records import Change, Document

EXECUTIONS, PACKAGES = int(os.environ.get("SIZE_EXECUTIONS", "1000")), int(os.environ.get("SIZE_PACKAGES", "100000"))
PIPELINES, STEPS = int(os.environ.get("SIZE_PIPELINES", "10000")), int(os.environ.get("SIZE_STEPS", "1000"))
LENGTH = 5
LOOKS = 500
BATCH = 500
TIMEOUT_S = 3600.0


def measure(family: Family) -> list[Row]:
    return [*long_lists(family), *long_definition(family), *together(family)]


# --- many are there
def long_lists(family: Family) -> list[Row]:
    """Pages of 100 from the front, from the middle, and by a filter."""
    fill_packages(family)
    fill_pipelines(family)
    rows = []
    for what, operation, member, cases in (
        (f"{PACKAGES:,} model package versions", "ListModelPackages", "ModelPackageSummaryList",
         [{"ModelPackageGroupName": "size"}, {"ModelPackageGroupName": "size", "SortOrder": "Ascending"},
          {"ModelPackageGroupName": "size", "ModelApprovalStatus": "Approved"}]),
        (f"{PIPELINES:,} pipelines", "ListPipelines", "PipelineSummaries",
         [{}, {"SortBy": "Name"}, {"PipelineNamePrefix": "size-9"}]),
    ):  # fmt: skip
        ask = asker(family)
        pages = [given for case in cases for given in first_pages(ask, operation, member, {**case, "MaxResults": 100})]
        used = cpu_s(family)
        times = [timed(lambda n=n: ask(operation, pages[n % len(pages)])) for n in range(LOOKS)]  # noqa: B023
        rows.append(latency(f"{what}: {operation}, 100 a page", times, 50))
        rows.append(Row("  the server's processor time for it", "ms", (cpu_s(family) - used) / LOOKS * 1e3))
    return rows


def first_pages(
    ask: Callable[[str, dict[str, Any]], Any], operation: str, member: str, case: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """What asks for the first pages of a list."""
    given = case
    for _ in range(10):
        answer = ask(operation, given)
        assert answer[member], (operation, given)
        yield given
        if not answer.get("NextToken"):
            return
        given = {**case, "NextToken": answer["NextToken"]}


def fill_packages(family: Family) -> None:
    """Versions like one that was made through the API, put into the store as the API would."""
    sagemaker = family.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="size")
    container = {"Image": IMAGE, "ModelDataUrl": "s3://bench/model.tar.gz"}
    arn = sagemaker.create_model_package(
        ModelPackageGroupName="size", ModelApprovalStatus="Approved",
        InferenceSpecification={"Containers": [container], "SupportedContentTypes": ["text/csv"],
                                "SupportedResponseMIMETypes": ["text/csv"]},
    )["ModelPackageArn"]  # fmt: skip
    with server.at_store(Settings.load(data=family.data)) as app:
        one = app.store.by_arn(arn)
        assert one is not None
        for start in range(2, PACKAGES + 1, BATCH):
            app.store.commit(Change(puts=[another(one, n) for n in range(start, min(start + BATCH, PACKAGES + 1))]))


def another(one: Document, number: int) -> Document:
    """A further version of a model package."""
    stem, label = one.arn.rpartition("/")[0], ("Approved", "Rejected", "PendingManualApproval")[number % 3]
    name = one.name.rpartition("/")[0] + f"/{number}" if "/" in one.name else f"{stem}/{number}"
    body = {**one.body, "ModelPackageVersion": number, "ModelPackageArn": f"{stem}/{number}",
            "ModelApprovalStatus": label, "CreationTime": one.created + number}  # fmt: skip
    return Document(
        kind=one.kind, account=one.account, region=one.region, name=name, arn=f"{stem}/{number}", parent=one.parent,
        status=one.status, label=label, rank=number, created=one.created + number, updated=one.created + number, body=body,
    )  # fmt: skip


def fill_pipelines(family: Family) -> None:
    role, url, keys = family.keys["role_arn"], str(family.about["url"]), key_of(family)
    text = definition(chain(1)(role))
    for start in range(0, PIPELINES, 1000):
        count = min(1000, PIPELINES - start)
        load(
            url,
            lambda n, start=start: signed(url, keys, "CreatePipeline", {  # type: ignore[misc]
                "PipelineName": f"size-{start + n}", "PipelineDefinition": text, "RoleArn": role,
                "ClientRequestToken": f"size-{start + n}-{'0' * 32}",
            }),
            count,
            False,
        )  # fmt: skip


# --- one is long
def long_definition(family: Family) -> list[Row]:
    """A definition is checked, and started; then its execution is stopped."""
    client, role = family.client("sagemaker"), family.keys["role_arn"]
    text = definition([step(f"s{n}", [f"s{n - 1}"] if n % 10 else [], role) for n in range(STEPS)])
    began = time.perf_counter()
    client.create_pipeline(PipelineName="long", PipelineDefinition=text, RoleArn=role, ClientRequestToken="l" * 32)
    arn = client.start_pipeline_execution(PipelineName="long")["PipelineExecutionArn"]
    took = time.perf_counter() - began
    client.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken="s" * 32)
    wait(client, [arn])
    return [Row(f"a definition of {STEPS:,} steps, created and started", "ms", took * 1e3, budget="< 1,000")]


# --- many at once
def together(family: Family) -> list[Row]:
    """Executions started together: how they end, how the API answers meanwhile, what memory there is, what ran together."""
    LocalImages(family.data / "images").pull(IMAGE)
    client, role = family.client("sagemaker"), family.keys["role_arn"]
    client.create_pipeline(
        PipelineName="many",
        PipelineDefinition=definition(chain(LENGTH)(role)),
        RoleArn=role,
        ClientRequestToken="m" * 32,
    )
    over, times, sizes = threading.Event(), [], [pss_bytes(family.pids())]
    watching = threading.Thread(target=watch, args=(family, over, times, sizes))
    watching.start()
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        arns = list(pool.map(lambda _: client.start_pipeline_execution(PipelineName="many")["PipelineExecutionArn"],
                             range(EXECUTIONS)))  # fmt: skip
    statuses = wait(client, arns)
    took = time.perf_counter() - began
    over.set()
    watching.join()
    assert set(statuses.values()) == {"Succeeded"}, {
        s: list(statuses.values()).count(s) for s in set(statuses.values())
    }
    spans = spans_of(client)
    assert len(spans) >= EXECUTIONS * LENGTH
    room = room_for(Settings.load(data=family.data))
    most = overlap(spans)
    assert most <= room, f"{most} ran at once where {room} have room"
    what = f"{EXECUTIONS:,} executions of {LENGTH} steps at once"
    quarter = max(1, len(sizes) // 4)
    early, late = statistics.median(sizes[quarter : 2 * quarter] or sizes), statistics.median(sizes[-quarter:])
    return [
        Row(f"{what}: all succeed", "s", took, notes={"steps_per_s": EXECUTIONS * LENGTH / took}),
        latency(f"{what}: DescribePipeline meanwhile", times, 100),
        Row(f"{what}: memory in the last quarter", "MB", late / 1e6, early / 1e6, "in the second quarter", "flat"),
        Row(f"{what}: most that ran together", "runs", float(most), float(room), "that have room", "<= 1 x"),
    ]


def watch(family: Family, over: threading.Event, times: list[float], sizes: list[int]) -> None:
    """Asks again and again how long an answer takes, and how large the server's processes are."""
    ask, count = asker(family), 0
    while not over.wait(0.02):
        times.append(timed(lambda: ask("DescribePipeline", {"PipelineName": "many"})))
        count += 1
        if count % 50 == 0:
            sizes.append(pss_bytes(family.pids()))


def wait(client: Any, arns: list[str]) -> dict[str, str]:
    """How each execution ended."""
    open_, found, deadline = list(arns), {}, time.monotonic() + TIMEOUT_S
    while open_ and time.monotonic() < deadline:
        status = client.describe_pipeline_execution(PipelineExecutionArn=open_[-1])["PipelineExecutionStatus"]
        if status in ENDED:
            found[open_.pop()] = status
        else:
            time.sleep(0.2)
    return found | dict.fromkeys(open_, "timeout")


def spans_of(client: Any) -> list[tuple[float, float]]:
    """When each processing job's program ran."""
    names = [
        job["ProcessingJobName"]
        for page in client.get_paginator("list_processing_jobs").paginate(PaginationConfig={"PageSize": 100})
        for job in page["ProcessingJobSummaries"]
    ]
    told = (client.describe_processing_job(ProcessingJobName=name) for name in names)
    return [
        (job["ProcessingStartTime"].timestamp(), job["ProcessingEndTime"].timestamp())
        for job in told
        if "ProcessingStartTime" in job and "ProcessingEndTime" in job
    ]


def overlap(spans: list[tuple[float, float]]) -> int:
    """How many of them there were at once, at most; one that begins as another ends is not beside it."""
    most = now = 0
    for _, step_ in sorted([(end, -1) for _, end in spans] + [(start, 1) for start, _ in spans]):
        now += step_
        most = max(most, now)
    return most


def room_for(settings: Settings) -> int:
    """How many jobs on the instance type of the steps have room at once."""
    capacity, machine = server.capacity_of(settings), clamp(machine_of("ml.t3.medium"), settings)
    return int(min(capacity.cpus / machine.share, capacity.memory_bytes / machine.memory_bytes))


# --- parts
def definition(steps: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": steps})


def key_of(family: Family) -> tuple[str, str]:
    return family.keys["access_key_id"], family.keys["secret_access_key"]


def asker(family: Family) -> Callable[[str, dict[str, Any]], Any]:
    """Asks over one connection: a client's own work is not what is measured."""
    url = str(family.about["url"])
    connection = http.client.HTTPConnection(url.partition("//")[2])

    def ask(operation: str, params: dict[str, Any]) -> Any:
        head, _, body = signed(url, key_of(family), operation, params).partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        connection.request("POST", "/", body, headers)
        answer = connection.getresponse()
        read = answer.read()
        assert answer.status == 200, read
        return json.loads(read)

    return ask


def cpu_s(family: Family) -> float:
    """Processor time that the server's processes have used: it tells more than the clock where others work, too."""
    ticks = 0
    for pid in family.pids():
        stat = Path(f"/proc/{pid}/stat").read_text()
        ticks += sum(map(int, stat[stat.rindex(")") + 2 :].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def timed(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def latency(what: str, times: list[float], budget_ms: int) -> Row:
    p99 = statistics.quantiles(times, n=100)[98] * 1e3
    notes = {"p50_ms": statistics.median(times) * 1e3, "count": len(times)}
    return Row(
        f"{what}, p99", "ms", p99, statistics.median(times) * 1e3, "its median", f"< {budget_ms} ms", notes=notes
    )
