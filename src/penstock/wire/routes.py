"""Which operation a request is for: from the signing name, X-Amz-Target, the Action parameter, or method and path."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

from penstock.wire.message import Request
from penstock.wire.models import Operation, Service, metadata, service
from penstock.wire.querybody import pairs
from penstock.wire.rest import Template
from penstock.wire.values import Malformed


class Unroutable(Exception):
    """No operation of the services answers such a request; `code` and `status` are AWS's for that protocol."""

    def __init__(
        self, service_name: str | None, message: str, code: str = "UnknownOperationException", status: int = 404
    ):
        self.service_name = service_name
        self.message, self.code, self.status = message, code, status
        super().__init__(message)


def _is_text(path: str) -> bool:
    try:
        return "%" not in path or bool(unquote(path, errors="strict"))
    except UnicodeDecodeError:
        return False


def _unserved(signing_name: str, operation: str = "") -> Unroutable:
    """What is told of a service that is not served; in its own protocol where botocore knows one of that name."""
    try:
        known = signing_name if metadata(signing_name)["protocol"] != "ec2" else None
    except KeyError:
        known = None
    words = f"The service {signing_name} is not served" + (f" ({operation})" if operation else "")
    return Unroutable(known, f"{words}. `penstock coverage` lists those that are.", "UnknownService", 501)


class Router:
    """Finds operations of these services. Knows of each only its metadata, until a request for it comes."""

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self._signed: dict[str, list[str]] = {}
        self._hosts: dict[str, str] = {}
        self._prefixes: dict[str, list[str]] = {}
        self._targets: dict[tuple[str | None, str], Operation] = {}
        self._rest: dict[str, _Paths] = {}
        for name in self.names:
            meta = metadata(name)
            self._signed.setdefault(meta.get("signingName", meta["endpointPrefix"]), []).append(name)
            self._hosts[meta["endpointPrefix"]] = name
            self._hosts.setdefault(name, name)
            if meta.get("targetPrefix"):
                self._prefixes.setdefault(meta["targetPrefix"], []).append(name)

    def find(self, request: Request, signing_name: str | None, host_service: str | None = None) -> Operation:
        """Gives the operation of a request.

        Takes: `signing_name` the service of the signature's scope, `host_service` what the host's name says
        ("runtime.sagemaker"), either None where there is none.
        Raises: Unroutable.
        """
        target = request.headers.get("x-amz-target")
        if target is not None:
            found = self._targets.get((signing_name, target))
            return found if found is not None else self._by_target(target, signing_name)
        names = self._candidates(signing_name, host_service)
        if not _is_text(request.path):
            if signing_name is None or "s3" in names:
                raise Unroutable("s3", "Couldn't parse the specified URI.", "InvalidURI", 400)
            raise Unroutable(names[0], "The request's path is no text.", "SerializationException", 400)
        if request.path.startswith("/service/"):
            found = self._by_cbor_path(request.path, names)
            if found is not None:
                return found
        try:
            return self._by_action(request, names) or self._by_path(request, names, signing_name)
        except Malformed as wrong:
            if signing_name is None or "s3" in names:
                raise
            raise Unroutable(names[0], str(wrong), "SerializationException", 400) from None

    def service_of_host(self, labels: str) -> str | None:
        """Gives the service that a host's name begins with ("api.sagemaker.us-east-1"); None for one that is not served."""
        while labels and labels not in self._hosts:
            labels = labels.rpartition(".")[0]
        return self._hosts.get(labels)

    def _candidates(self, signing_name: str | None, host_service: str | None) -> list[str]:
        named = self._hosts.get(host_service) if host_service else None
        if signing_name is None:
            return [named] if named else list(self.names)
        names = self._signed.get(signing_name)
        if names is None:
            raise _unserved(signing_name)
        return [named] if named in names and named is not None else names

    def _by_target(self, target: str, signing_name: str | None) -> Operation:
        prefix, _, name = target.rpartition(".")
        for each in self._prefixes.get(prefix, ()):
            owner = service(each)
            if signing_name is not None and signing_name != owner.signing_name:
                continue
            found = owner.operations.get(name)
            if found is None:
                raise Unroutable(each, f"Unknown operation {name}", "UnknownOperationException", 400)
            self._targets[(signing_name, target)] = found
            return found
        names = self._signed.get(signing_name or "", ())
        if signing_name is not None and not names:
            raise _unserved(signing_name, name)
        raise Unroutable(names[0] if names else None, f"Unknown target {target}", "UnknownOperationException", 400)

    def _by_cbor_path(self, path: str, names: Sequence[str]) -> Operation | None:
        parts = path.split("/")
        if len(parts) != 5 or parts[3] != "operation":
            return None
        for each in self._prefixes.get(parts[2], ()):
            if each in names:
                found = service(each).operations.get(parts[4])
                if found is None:
                    raise Unroutable(each, f"Unknown operation {parts[4]}", "UnknownOperationException", 400)
                return found
        return None

    def _by_action(self, request: Request, names: Sequence[str]) -> Operation | None:
        asked = [each for each in names if "query" in _protocols(each)]
        given = _action(request) if asked else {}
        if "Action" not in given:
            if asked and len(asked) == len(names) == 1 and "query" in _protocols(asked[0])[:1]:
                raise Unroutable(asked[0], "Request is missing the Action parameter", "MissingAction", 400)
            return None
        action, version = given["Action"], given.get("Version")
        fitting = [each for each in asked if version is None or metadata(each).get("apiVersion") == version]
        for each in fitting:
            found = service(each).operations.get(action)
            if found is not None:
                return found
        if len(asked) < len(names) and request.path != "/":
            return None
        message = f"Could not find operation {action} for version {version or 'NO_VERSION_SPECIFIED'}"
        raise Unroutable((fitting or asked)[0], message, "InvalidAction", 400)

    def _by_path(self, request: Request, names: Sequence[str], signing_name: str | None) -> Operation:
        rest = [each for each in names if _protocols(each)[0].startswith("rest")]
        if signing_name is None:  # S3's paths match anything
            rest.sort(key=lambda each: metadata(each)["endpointPrefix"] == "s3")
        for each in rest:
            paths = self._rest.get(each)
            if paths is None:
                paths = self._rest[each] = _Paths(service(each))
            found = paths.find(request)
            if found is not None:
                return found
        if rest and _protocols(rest[-1])[0] == "rest-xml":
            message = "The specified method is not allowed against this resource."
            raise Unroutable(rest[-1], message, "MethodNotAllowed", 405)
        name = rest[0] if rest else names[0] if len(names) == 1 else None
        raise Unroutable(name, f"Unable to find an operation for {request.method} {request.path}")


def _protocols(name: str) -> list[str]:
    meta = metadata(name)
    given = list(meta.get("protocols") or [meta["protocol"]])
    return [*given, "query"] if "awsQueryCompatible" in meta and "query" not in given else given


def _action(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "")
    try:
        found = dict(pairs(request.query)) if "Action=" in request.query else {}
        if request.body and kind.startswith("application/x-www-form-urlencoded"):
            found.update(pairs(request.body.decode()))
    except (Malformed, UnicodeDecodeError) as wrong:
        raise Unroutable(None, "The query string is malformed", "MalformedQueryString", 400) from wrong
    return found


class _Route:
    """One operation's path, and what else a request must have for it: required query parameters and headers."""

    def __init__(self, operation: Operation):
        self.operation = operation
        self.template = Template(operation.model.http["requestUri"])
        self.queries: list[str] = []
        self.headers: list[str] = []
        for name in operation.required:
            member = operation.input.members[name]
            where, wire = member.serialization.get("location"), member.serialization.get("name", name)
            if where == "querystring":
                self.queries.append(wire)
            elif where == "header":
                self.headers.append(wire.lower())
        self.weight = (len(self.template.statics), len(self.queries) + len(self.headers))

    def statics_hold(self, given: dict[str, str]) -> bool:
        return all(name in given and (value is None or given[name] == value) for name, value in self.template.statics)

    def needs_hold(self, given: dict[str, str], headers: dict[str, str]) -> bool:
        return all(name in given for name in self.queries) and all(name in headers for name in self.headers)


class _Paths:
    """The routes of one REST service, by method; of those that fit, the one that asks for most wins."""

    def __init__(self, owner: Service):
        self._routes: dict[str, list[_Route]] = {}
        self._plain: dict[str, list[_Route]] = {}
        for operation in owner.operations.values():
            self._routes.setdefault(operation.method, []).append(_Route(operation))
        for routes in self._routes.values():
            # Constant pieces before labels; more demands first; deprecated ones last; else the model's order.
            routes.sort(
                key=lambda each: (
                    [not constant for constant, _ in each.template.pieces],
                    -each.weight[0],
                    -each.weight[1],
                    bool(each.operation.model.deprecated),
                )
            )

        for method, routes in self._routes.items():
            self._plain[method] = [each for each in routes if not each.template.statics and not each.queries]

    def find(self, request: Request) -> Operation | None:
        if not request.query:
            for route in self._plain.get(request.method, ()):
                if route.needs_hold({}, request.headers) and route.template.match(request.path) is not None:
                    return route.operation
        given = dict(pairs(request.query)) if request.query else {}
        second: Operation | None = None
        for route in self._routes.get(request.method, ()):
            if not route.statics_hold(given) or route.template.match(request.path) is None:
                continue
            if route.needs_hold(given, request.headers):
                return route.operation
            if second is None or not (route.queries or route.headers):
                second = second or route.operation
        return second
