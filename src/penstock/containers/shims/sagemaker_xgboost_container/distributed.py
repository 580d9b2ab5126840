"""`rabit_run`: trains on several instances together; `wait_hostname_resolution`.

The instances first tell the alphabetically first one whether they have data, over TCP port 9099; it starts XGBoost's
tracker for those that do, and tells them where it is. Works with XGBoost's rabit (before 1.7) and collective.
"""

import contextlib
import json
import logging
import socket
import sys
import threading
import time

import xgboost as xgb

from sagemaker_xgboost_container.callback import get_rank, version

PORT = 9099
_WAIT_S = 900.0


def wait_hostname_resolution(sm_hosts):
    """Returns when every host's name has an address."""
    deadline = time.time() + _WAIT_S
    for host in sm_hosts:
        while True:
            try:
                socket.gethostbyname(host)
                break
            except OSError:
                if time.time() > deadline:
                    raise
                time.sleep(0.2)


def rabit_run(
    exec_fun,
    args,
    include_in_training,
    hosts,
    current_host,
    first_port=None,
    second_port=None,
    max_connect_attempts=None,
    connect_retry_timeout=0.2,
    update_rabit_args=False,
):
    """Calls `exec_fun(**args)` on every host that has data, with XGBoost's workers joined.

    Takes: `update_rabit_args`, whether `is_master` is put into args. A host without data ends here with exit code 0.
    """
    hosts = sorted(hosts)
    port = first_port or PORT
    if len(hosts) == 1:
        plan, tracker = {"hosts": hosts if include_in_training else []}, None
    elif current_host == hosts[0]:
        plan, tracker = _gather(hosts, current_host, include_in_training, port, second_port or 0)
    else:
        plan, tracker = _report(hosts[0], current_host, include_in_training, port, connect_retry_timeout), None
    if not plan["hosts"]:
        raise RuntimeError("No hosts received training data.")
    if not include_in_training:
        logging.warning("Host %s not being used for distributed training.", current_host)
        if tracker:
            tracker.join()
        sys.exit(0)
    if len(plan["hosts"]) == 1:
        if update_rabit_args:
            args.update({"is_master": True})
        exec_fun(**args)
        return
    with _joined(plan, current_host):
        logging.info("Worker %d of %d is %s", get_rank(), len(plan["hosts"]), current_host)
        if update_rabit_args:
            args.update({"is_master": get_rank() == 0})
        exec_fun(**args)
    if tracker:
        tracker.join()


def _gather(hosts, current_host, include, port, tracker_port):
    """The first host's part: hear all others, start the tracker, tell them."""
    address = socket.gethostbyname(current_host)
    with contextlib.closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(len(hosts))
        listener.settimeout(_WAIT_S)
        said, waiting = {current_host: include}, []
        while len(said) < len(hosts):
            connection = listener.accept()[0]
            record = json.loads(connection.makefile().readline())
            said[record["host"]] = record["include_in_training"]
            waiting.append(connection)
        chosen = [host for host in hosts if said[host]]
        plan, tracker = {"hosts": chosen, "uri": address, "port": tracker_port}, None
        if len(chosen) > 1:
            tracker, plan["port"] = _start_tracker(address, len(chosen), tracker_port)
        for connection in waiting:
            connection.sendall((json.dumps(plan) + "\n").encode())
            connection.close()
    return plan, tracker


def _report(first_host, current_host, include, port, retry_s):
    """Every other host's part: tell the first one, hear the plan."""
    deadline = time.time() + _WAIT_S
    while True:
        try:
            connection = socket.create_connection((first_host, port), timeout=_WAIT_S)
            break
        except OSError:
            if time.time() > deadline:
                raise
            time.sleep(retry_s)
    with contextlib.closing(connection):
        connection.sendall((json.dumps({"host": current_host, "include_in_training": include}) + "\n").encode())
        return json.loads(connection.makefile().readline())


def _start_tracker(address, count, port):
    """XGBoost's tracker in threads of its own. Gives: something to join, and the port."""
    if version() >= (2, 1):
        tracker = xgb.tracker.RabitTracker(n_workers=count, host_ip=address, port=port, sortby="task")
        tracker.start()
        thread = threading.Thread(target=tracker.wait_for, daemon=True)
        thread.start()
        return thread, tracker.worker_args()["dmlc_tracker_port"]
    if version() >= (1, 6):
        from xgboost.tracker import RabitTracker

        tracker = RabitTracker(host_ip=address, n_workers=count, port=port)
    else:
        # this one looks for a free port itself, but not from 0
        tracker = _old_tracker()(hostIP=address, nslave=count, port=port or PORT + 1, port_end=9999)
    tracker.start(count)
    return tracker, tracker.port


def _old_tracker():
    try:
        from xgboost.tracker import RabitTracker
    except ImportError:  # 0.90 carries it inside dmlc-core
        import os

        sys.path.append(os.path.join(os.path.dirname(xgb.__file__), "dmlc-core", "tracker"))
        from dmlc_tracker.tracker import RabitTracker
    return RabitTracker


@contextlib.contextmanager
def _joined(plan, current_host):
    task, uri, port = str(plan["hosts"].index(current_host)), plan["uri"], plan["port"]
    if version() >= (2, 1):
        with xgb.collective.CommunicatorContext(dmlc_tracker_uri=uri, dmlc_tracker_port=int(port), dmlc_task_id=task):
            yield
    elif hasattr(xgb, "collective"):
        with xgb.collective.CommunicatorContext(
            DMLC_TRACKER_URI=uri, DMLC_TRACKER_PORT=int(port), DMLC_TASK_ID=task, DMLC_NUM_WORKER=len(plan["hosts"])
        ):
            yield
    else:
        words = {
            "DMLC_NUM_WORKER": len(plan["hosts"]),
            "DMLC_TRACKER_URI": uri,
            "DMLC_TRACKER_PORT": port,
            "DMLC_TASK_ID": task,
        }
        xgb.rabit.init([("{}={}".format(*item)).encode() for item in words.items()])
        try:
            yield
        finally:
            xgb.rabit.finalize()
