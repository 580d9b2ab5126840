"""Parameters as the bytes of a request, whatever they are: what botocore's own serialisers refuse to write, too."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from penstock.wire import models
from penstock.wire.xmlbody import flat_name
from tests.fuzz.shots import Shot


def shot_of(operation: models.Operation, params: Any, protocol: str) -> Shot:
    """The request for an operation, unsigned."""
    service = operation.service
    shot = Shot(service.name, operation.name, service.signing_name, "POST", "/")
    if protocol == "json":
        shot.headers = {
            "content-type": f"application/x-amz-json-{service.json_version}",
            "x-amz-target": f"{service.target_prefix}.{operation.name}",
        }
        shot.body = json.dumps(params).encode()
    elif protocol == "query":
        pairs = [("Action", operation.name), ("Version", service.api_version)]
        _flatten("", params, operation.input, pairs)
        shot.headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
        shot.body = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in pairs).encode()
    else:
        _rest(operation, params, shot)
    return shot


def text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return json.dumps(value)[:2000]
    return "" if value is None else str(value)


def _quoted(value: str, safe: str = "") -> str:
    return quote(value.encode(errors="surrogatepass"), safe=safe)


def _flatten(prefix: str, value: Any, shape: Any, pairs: list[tuple[str, str]]) -> None:
    if len(prefix) > 2000:
        return
    start = f"{prefix}." if prefix else ""
    kind = shape.type_name if shape is not None else ""
    if isinstance(value, dict) and kind == "map":
        flat = start if shape.serialization.get("flattened") else f"{start}entry."
        for number, (key, each) in enumerate(value.items(), 1):
            pairs.append((f"{flat}{number}.key", text(key)))
            _flatten(f"{flat}{number}.value", each, shape.value, pairs)
    elif isinstance(value, dict):
        members = shape.members if kind == "structure" else {}
        for key, each in value.items():
            below = members.get(key)
            _flatten(start + (flat_name(below, key) if below is not None else key), each, below, pairs)
    elif isinstance(value, list):
        flat = start if kind == "list" and shape.serialization.get("flattened") else f"{start}member."
        for number, each in enumerate(value, 1):
            _flatten(f"{flat}{number}", each, shape.member if kind == "list" else None, pairs)
    else:
        pairs.append((prefix, text(value)))


def _rest(operation: models.Operation, params: Any, shot: Shot) -> None:
    shape, service = operation.input, operation.service
    shot.method = operation.method
    path, _, query = operation.model.http["requestUri"].partition("?")
    queries = [query] if query else []
    given = params if isinstance(params, dict) else {}
    members = shape.members if shape is not None else {}
    payload = shape.serialization.get("payload") if shape is not None else None
    body: dict[str, Any] = {}
    for name, value in given.items():
        member = members.get(name)
        where = member.serialization.get("location") if member is not None else None
        wire = member.serialization.get("name", name) if member is not None else name
        if where in ("uri", "querystring") and isinstance(value, str):
            value = value[:8000]  # addresses end at 64 KB, below every service
        if where == "uri":
            path = path.replace("{" + wire + "+}", _quoted(text(value), "/~")).replace(
                "{" + wire + "}", _quoted(text(value))
            )
        elif where == "querystring":
            for each in value if isinstance(value, list) else [value]:
                queries.append(f"{_quoted(wire)}={_quoted(text(each))}")
        elif where == "header" and wire.lower() == "content-length":
            pass  # how long a body is said to be is a twist's to say
        elif where == "header":
            shot.headers[wire.lower()] = _header(value)
        elif where == "headers":
            for key, each in value.items() if isinstance(value, dict) else ():
                name = "".join(c for c in key if c.isascii() and (c.isalnum() or c in "-_"))
                shot.headers[wire.lower() + name] = _header(each)
        else:
            body[name] = value
    shot.path = path.replace("{", "").replace("}", "").replace("+", "") + ("?" + "&".join(queries) if queries else "")
    value, member = (body.get(payload), members[payload]) if payload else (body, shape)
    if not body or value is None:
        return
    if member.type_name in ("blob", "string"):
        shot.body = text(value).encode(errors="surrogatepass")
    elif service.protocol == "rest-json":
        shot.headers["content-type"] = "application/json"
        shot.body = json.dumps(value).encode()
    else:
        name = member.serialization.get("name", member.name if payload else f"{operation.name}Request")
        shot.body = _element(name, value, member, 0).encode(errors="surrogatepass")


def _header(value: Any) -> str:
    found = "".join(c for c in text(value) if c == "\t" or (ord(c) >= 32 and ord(c) != 127))
    return found.encode(errors="replace").decode("latin-1")[:4000].strip()


def _element(name: str, value: Any, shape: Any, depth: int) -> str:
    kind = shape.type_name if shape is not None else ""
    tag = "".join(c for c in str(name) if c.isascii() and c.isalnum()) or "x"
    if depth > 400:
        return f"<{tag}/>"
    if isinstance(value, dict) and kind != "map":
        members = shape.members if kind == "structure" else {}
        parts = []
        for key, each in value.items():
            below = members.get(key)
            inner = flat_name(below, key) if below is not None else key
            if isinstance(each, list) and below is not None and below.serialization.get("flattened"):
                parts += [_element(inner, one, below.member, depth + 1) for one in each]
            else:
                parts.append(_element(inner, each, below, depth + 1))
        return f"<{tag}>{''.join(parts)}</{tag}>"
    if isinstance(value, list):
        item = shape.member.serialization.get("name", "member") if kind == "list" else "member"
        below = shape.member if kind == "list" else None
        return f"<{tag}>{''.join(_element(item, one, below, depth + 1) for one in value)}</{tag}>"
    return f"<{tag}>{escape(text(value))}</{tag}>"
