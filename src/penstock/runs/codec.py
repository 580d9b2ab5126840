"""Run specs and run states as JSON, with the standard library alone: what a run's folder holds."""

from __future__ import annotations

import base64
import json
from typing import Any

from penstock.runs.base import Input, Instance, Mount, Output, Result, RunSpec, RunState


def pack_spec(spec: RunSpec) -> dict[str, Any]:
    """A spec as JSON can hold it."""
    packed = _fields(spec)
    packed["mounts"] = [_fields(m) for m in spec.mounts]
    packed["inputs"] = [_pack_input(i) for i in spec.inputs]
    packed["outputs"] = [_fields(o) for o in spec.outputs]
    packed["instances"] = [_fields(i) | {"inputs": [_pack_input(x) for x in i.inputs]} for i in spec.instances]
    return packed


def unpack_spec(packed: dict[str, Any]) -> RunSpec:
    """A spec from its JSON."""
    given = dict(packed)
    given["mounts"] = [Mount(**m) for m in packed["mounts"]]
    given["inputs"] = [_unpack_input(i) for i in packed["inputs"]]
    given["outputs"] = [Output(**o) for o in packed["outputs"]]
    given["instances"] = [
        Instance(**(i | {"inputs": [_unpack_input(x) for x in i["inputs"]]})) for i in packed["instances"]
    ]
    return RunSpec(**given)


def pack_state(state: RunState) -> dict[str, Any]:
    """A state as JSON can hold it."""
    packed = _fields(state)
    packed["results"] = [
        _fields(r) | {"inline": None if r.inline is None else base64.b64encode(r.inline).decode()}
        for r in state.results
    ]
    return packed


def unpack_state(packed: dict[str, Any]) -> RunState:
    """A state from its JSON."""
    given = dict(packed)
    given["results"] = [
        Result(**(r | {"inline": None if r["inline"] is None else base64.b64decode(r["inline"])}))
        for r in packed["results"]
    ]
    return RunState(**given)


def dump(packed: dict[str, Any]) -> bytes:
    return json.dumps(packed, separators=(",", ":")).encode()


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def _pack_input(given: Input) -> dict[str, Any]:
    packed: dict[str, Any] = {"target": given.target, "mode": given.mode}
    if given.blob is not None:
        packed["blob"] = given.blob
    if given.data is not None:
        packed["data"] = base64.b64encode(given.data).decode()
    return packed


def _unpack_input(packed: dict[str, Any]) -> Input:
    data = packed.get("data")
    return Input(packed["target"], packed.get("blob"), None if data is None else base64.b64decode(data), packed["mode"])
