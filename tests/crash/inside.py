"""Run inside a job: tries to get out, to see what is the host's, and to use the job's credentials; prints JSON."""

# ruff: noqa: B023, SIM115, UP017 - what is tried is called at once; standard library only, any Python 3

import ctypes
import datetime
import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

GIVEN = json.load(open("/opt/ml/processing/given/given.json"))
told = {}


def tries(name, act):
    try:
        told[name] = ["done", str(act())]
    except BaseException as error:
        told[name] = ["refused", f"{type(error).__name__}: {error}"]


def read(path):
    with open(path, errors="replace") as file:
        return file.read()


def shell(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip() or done.returncode)
    return done.stdout


def unshare():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")


def connect(host, port):
    socket.create_connection((host, port), 3).close()


def through(host, port):
    """What the doorway says to a CONNECT."""
    with socket.create_connection(("127.0.0.1", 4601), 10) as door:
        door.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        return door.recv(200).split(b"\r\n")[0].decode()


def signed(service, body="", method="POST", path="/", endpoint=None):
    """A request with the job's own credentials, by signature version 4."""
    endpoint = endpoint or os.environ["AWS_ENDPOINT_URL"]
    host = urllib.parse.urlsplit(endpoint).netloc
    now = datetime.datetime.now(datetime.timezone.utc)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    payload = hashlib.sha256(body.encode()).hexdigest()
    headers = {
        "host": host,
        "x-amz-content-sha256": payload,
        "x-amz-date": stamp,
        "x-amz-security-token": os.environ["AWS_SESSION_TOKEN"],
    }
    if service == "sts":
        headers["content-type"] = "application/x-www-form-urlencoded"
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{payload}"
    scope = f"{day}/us-east-1/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
    for part in (day, "us-east-1", service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    del headers["host"]
    request = urllib.request.Request(endpoint + path, body.encode() if body else None, headers, method=method)
    return urllib.request.urlopen(request, timeout=20).read().decode()


IDENTITY = "Action=GetCallerIdentity&Version=2011-06-15"
status = dict(line.split(":\t", 1) for line in read("/proc/self/status").splitlines() if ":\t" in line)
told["capabilities"] = [status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")]
told["environment"] = dict(os.environ)
told["processes"] = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
told["host pids"] = [pid for pid in GIVEN["pids"] if os.path.exists(f"/proc/{pid}/environ") and pid > 20]

tries("umount /usr", lambda: shell("umount /usr"))
tries("umount /proc", lambda: shell("umount -l /proc"))
tries("remount /usr", lambda: shell("mount -o remount,rw,bind /usr"))
tries("remount the root", lambda: shell("mount -o remount,suid,dev /"))
tries("mount a tmpfs", lambda: shell("mount -t tmpfs none /mnt"))
tries("unshare -U", lambda: shell("unshare -U true"))
tries("unshare(NEWUSER)", unshare)
tries("chroot", lambda: os.chroot("/tmp"))
tries("write /usr", lambda: open("/usr/bin/penstock-was-here", "w"))
tries("write a kernel setting", lambda: open("/proc/sys/kernel/core_pattern", "w").write("|/tmp/x"))
tries("write what is brought along", lambda: open("/opt/penstock/containers/training/entry.py", "a").write("x"))
tries("ptrace pid 1", lambda: read("/proc/1/mem"))
for name, path in GIVEN["canaries"].items():
    tries(f"read {name}", lambda: read(path))
    tries(f"read {name} by the root of pid 1", lambda: read(f"/proc/1/root{path}"))
told["canaries found"] = [
    f"{folder}/{name}"
    for folder, _, names in os.walk("/")
    for name in names
    if GIVEN["word"] in name and not folder.startswith("/proc")
]
for number in GIVEN["ports"]:
    tries(f"host loopback {number}", lambda: connect("127.0.0.1", number))
tries("internet", lambda: connect("192.0.2.1", 443))
tries("names", lambda: socket.getaddrinfo("example.com", 443))
tries("runner's socket", lambda: socket.socket(socket.AF_UNIX).connect(GIVEN["data"] + "/sockets/runner.sock"))
for host, port in GIVEN["doors"]:
    tries(f"doorway to {host}:{port}", lambda: through(host, port))
tries("identity", lambda: signed("sts", IDENTITY))
tries("identity by AWS's own name", lambda: signed("sts", IDENTITY, endpoint="https://sts.us-east-1.amazonaws.com"))
tries("an object", lambda: signed("s3", "from inside", "PUT", f"/{GIVEN['bucket']}/from-inside"))
tries(
    "an unsigned call",
    lambda: urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + f"/{GIVEN['bucket']}/from-inside").read(),
)
print("TOLD " + json.dumps(told), flush=True)
if len(sys.argv) > 1:
    time.sleep(float(sys.argv[1]))
