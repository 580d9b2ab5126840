"""One instance of a transform job.

    penstock_transform CONFIG

CONFIG is JSON that the engine wrote: the model's containers, this instance's objects, and how the data is sent. Answers
go to their targets, a file at a time. What goes wrong is told in the failure file; files that were answered stay.
"""

import json
import os
import signal
import sys
import time
from typing import Any, Dict, List, Optional

from . import filters, servers, work

DEFAULT_PAYLOAD_MB = 6
MOST_LANES = 100


def main(path: str) -> int:
    """Starts the containers, sends them everything; gives the exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    with open(path) as file:
        config = json.load(file)
    containers: List[servers.Container] = []
    try:
        processing = filters.processing(config["processing"], config["content_type"], config["accept"], config["split"])
        if not config["objects"]:
            say("This instance has no objects to transform.")
            return 0
        base = {name: value for name, value in os.environ.items() if name not in config["unset"]}
        for number, each in enumerate(config["containers"]):
            containers.append(servers.Container(number, each, workers_of(config), base))
        for container in containers:
            container.wait()
        failures = run(config, containers, processing)
    except filters.Unfit as error:
        return fail(config, f"ClientError: {error}")
    except servers.Broken as error:
        return fail(config, f"AlgorithmError: {error}")
    finally:
        for container in containers:
            container.stop()
    return fail(config, summed(failures)) if failures else 0


def workers_of(config: Dict[str, Any]) -> int:
    """How many workers a model server gets: as many as requests at a time, at most as many as there are cpus."""
    given = config["containers"][0]["env"].get("SAGEMAKER_MODEL_SERVER_WORKERS")
    if given and given.isdigit() and int(given):
        return int(given)
    own = config["containers"][0]["framework"] == "xgboost" and len(config["containers"]) == 1
    wanted = config["concurrent"] or (config["cpus"] if own and not config["scripted"] else 1)
    return max(1, min(int(wanted), int(config["cpus"])))


def run(
    config: Dict[str, Any], containers: List[servers.Container], processing: Optional[filters.Processing]
) -> List[work.Failure]:
    """Sends the data; asks the first container how, where the job does not say."""
    asked = servers.parameters(containers[0])
    concurrent = int(config["concurrent"] or asked.get("MaxConcurrentTransforms") or 1)
    payload_mb = config["payload_mb"]
    if payload_mb is None:
        payload_mb = int(asked.get("MaxPayloadInMB") or DEFAULT_PAYLOAD_MB)
    strategy = config["strategy"] or {"SINGLE_RECORD": "SingleRecord"}.get(
        asked.get("BatchStrategy", ""), "MultiRecord"
    )
    shown = "SINGLE_RECORD" if strategy == "SingleRecord" else "MULTI_RECORD"
    say(f"MaxConcurrentTransforms={concurrent}, MaxPayloadInMB={payload_mb}, BatchStrategy={shown}")
    plan = work.Plan(
        config["split"],
        strategy == "SingleRecord",
        payload_mb << 20,
        concurrent,
        config["assemble"],
        config["compression"],
    )
    lanes = [
        servers.Pipeline(
            containers, lane, config["content_type"], config["accept"], config["timeout_s"], config["retries"]
        )
        for lane in range(max(1, min(concurrent, MOST_LANES)))
    ]
    os.makedirs(config["folder"], exist_ok=True)
    return work.Job(config["objects"], plan, processing, lanes, config["folder"], say).run()


def summed(failures: List[work.Failure]) -> str:
    """The sentence of a job with files that have no answer."""
    first = failures[0]
    more = f" So did {len(failures) - 1} more of this instance's files." if len(failures) > 1 else ""
    kind, _, rest = first.sentence.partition(": ")
    return f"{kind}: {first.uri} failed: {rest}{more}"


def say(text: str) -> None:
    """A line of the log, as AWS's data log has it."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}"
    sys.stdout.write(f"{stamp}:[sagemaker logs]: {text}\n")
    sys.stdout.flush()


def fail(config: Dict[str, Any], sentence: str) -> int:
    """Leaves the reason where the job's FailureReason is read from."""
    say(sentence)
    with open(config["failure"], "w") as file:
        file.write(sentence)
    return 1
