"""The ASGI edge: a request comes in, the chain below answers it.

    refuse a foreign Host        a page in a browser must not reach us by a name of its own
    read the signature's scope   service, region, access key
    preflights and forms         what a page in a browser sends to S3, unsigned
    route                        to a modelled operation
    authenticate                 the signature against the key's secret
    receive                      the body: whole, or streamed into the blobs
    parse, perform, commit       again when somebody wrote in between
    reply                        in the service's own form, errors too

Reads run inline in the event loop, what is marked `slow` in the executor (never in anyio's threads), a commit is awaited.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import re
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

from penstock import hosts, posts
from penstock.blobs import checksums
from penstock.connections import Incoming
from penstock.intake import Body, Disconnected, Receive, keep, keep_small, spooled
from penstock.kernel import auth, cors, ids, sigv4
from penstock.kernel.app import App
from penstock.kernel.call import Call, Caller, Long, Waiting
from penstock.kernel.errors import ServiceError, unserved
from penstock.kernel.turns import Hand, Lane, Turns
from penstock.kernel.waits import Waits
from penstock.porter import Porter
from penstock.store.records import Change, Stale, StoreFailed, Taken, Unavailable, Unmet
from penstock.wire import chunked, models, protocols
from penstock.wire.message import Reply, Request
from penstock.wire.routes import Router, Unroutable
from penstock.wire.values import Malformed

log = logging.getLogger("penstock.front")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
RERUNS = 50
SPOOLS = 8
"""So many large bodies come at once, at most: whose signature is not proved yet must not fill the disk."""
S3_SCOPE = "/s3/aws4_request"
"""In the header of a request to S3: of those, which come in crowds, one is begun at each turn of the event loop while others call."""
FORM = "application/x-www-form-urlencoded"
ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]+\]")
REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,40}[a-z0-9])?")
"""Wider than AWS's list: a person may make one up. It becomes a part of paths, so dots and slashes are out."""

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Front:
    """One process's answers to the API."""

    def __init__(self, app: App, porter: Porter | None = None):
        self.app, self.porter = app, porter
        self.router = Router(app.services)
        self.turns = Turns()
        self.lane = Lane()
        self.spools, self.large = asyncio.Semaphore(SPOOLS), asyncio.Semaphore(1)
        """Whose turns it is to have a large body on the disk, and to hold one in memory."""
        self.waits = Waits(app.clock)
        app.store.hear(self.waits.tell)
        self.hosts = {app.settings.host, "127.0.0.1", "localhost", "[::1]", socket.gethostname().lower()}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """The ASGI application for clients of the host."""
        await self.serve(None, scope, receive, send)

    def of_run(self, run: str) -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
        """The ASGI application for the connections of a run's own socket."""

        async def serve(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await self.serve(run, scope, receive, send)

        return serve

    async def serve(self, run: str | None, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = read_head(scope, run)
        body = Body(request, receive, self.app.settings, scope.get("incoming"))
        if request.headers.get("authorization", "").find(S3_SCOPE) > 0:
            await self.lane.turn()
        else:
            self.lane.make_way()
        reply = await self.answer(request, body)
        await write(reply, request.method, receive, send, body.incoming)

    async def answer(self, request: Request, body: Body) -> Reply:
        """The chain. Every failure leaves it as a reply in the service's own form."""
        request_id = ids.request_id()
        route: list[models.Operation] = []
        reply = await self.reply_of(request, body, request_id, route)
        if "origin" in request.headers and route and route[0].service.endpoint_prefix == "s3":
            try:
                cors.add_headers(self.app.store, request, reply)
            except (Unavailable, sqlite3.DatabaseError) as fault:  # what was done is done: the answer stays what it is
                log.error("request %s: the bucket's CORS configuration could not be read: %s", request_id, fault)
        return reply

    async def reply_of(self, request: Request, body: Body, request_id: str, route: list[models.Operation]) -> Reply:
        try:
            return await self.chain(request, body, request_id, route)
        except Disconnected:
            return Reply(400)
        except Exception as fault:
            operation = route[0] if route else None
            service = operation.service if operation else None
            if isinstance(fault, Unroutable) and fault.service_name:
                service = models.service(fault.service_name)
            code, message, status, members = told(fault, service)
            if status >= 500 and code not in ("NotImplemented", "UnknownService", "ServiceUnavailable"):
                log.exception("request %s: %s %s", request_id, request.method, request.path)
            reply = protocols.error(
                service, operation, code, message, status, members, request_id, protocols.spoken(service, request)
            )
            if code == "RequestTimeout":
                reply.headers["connection"] = "close"
            return reply

    async def chain(self, request: Request, body: Body, request_id: str, route: list[models.Operation]) -> Reply:
        """The links, one after another; `route` gets the operation as soon as it is known."""
        name, bucket = self.meant_by(request.headers.get("host", "").lower())
        if bucket:
            request.signed_path, request.path = request.path, f"/{bucket}{request.path}"
        if request.path == "/_penstock/health":
            return Reply(200, {"content-type": "application/json"}, b'{"status":"ok"}')
        if name == "telemetry":
            return Reply(200, {"content-type": "text/plain"}, b"")
        if request.method == "OPTIONS" and name in (None, "s3"):
            return cors.preflight(self.app.store, request)
        if name in (None, "s3") and posts.is_post(request):
            return await self.post(request, body, request_id, route)
        scope = sigv4.scope(request)
        if request.method == "POST" and request.headers.get("content-type", "").startswith(FORM):
            request.body = await body.whole()  # a query service names its operation in the body
        operation = self.router.find(request, scope.service if scope else None, name)
        route.append(operation)
        if scope is None:
            if operation.model.auth_type == "none" and self.app.function(operation) is None:
                raise unserved(operation.service.name, operation.name)  # it takes no signature: SAML, web identities
            raise sigv4.AuthError("unsigned", "Missing Authentication Token")
        if not REGION.fullmatch(scope.region):
            raise sigv4.AuthError("scope", f"Credential should be scoped to a valid region, not '{scope.region[:50]}'.")
        return await self.perform(request, body, scope, operation, request_id)

    # --- the links of the chain
    def meant_by(self, host: str) -> tuple[str | None, str | None]:
        """The service and bucket that a host name means; (None, None) for our own address.

        Raises: ServiceError for a host that is neither ours nor AWS's.
        """
        bare = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        if bare in self.hosts or ADDRESS.fullmatch(
            bare
        ):  # a page's own name may stand for us, an address is no such name
            return None, None
        is_s3, bucket = hosts.bucket_of(bare)
        if is_s3:
            return ("telemetry", None) if (bucket or "").startswith(hosts.TELEMETRY_BUCKET) else ("s3", bucket)
        if local := re.fullmatch(r"(.+?)(?:\.s3)?\.localhost", bare):
            return "s3", local[1]
        if hosts.is_aws(bare):
            return self.router.service_of_host(hosts.labels_of(bare)), None
        raise ServiceError("InvalidHost", f"Penstock does not answer for the host {host!r}.", 400)

    async def perform(
        self, request: Request, body: Body, scope: sigv4.Scope, operation: models.Operation, request_id: str
    ) -> Reply:
        """Authenticates, receives the body, and runs the operation until its change is committed."""
        now = self.app.clock.now()
        # S3's clients say the body's digest in the head; the signatures of other services are not proved without the body
        streaming = operation.streaming_input if operation.service.name == "s3" else None
        if streaming:
            caller, chunks = auth.authenticate(self.app.store, request, scope, now, None)
            request.upload = await self.receive_upload(request, body, scope, chunks)
        elif body.is_large() and (takes := getattr(self.app.function(operation), "takes", None)) is not None:
            return await self.perform_large(request, body, scope, operation, request_id, takes)
        else:
            request.body = await body.whole()
            digest = hashlib.sha256(request.body).hexdigest()
            caller, chunks = auth.authenticate(self.app.store, request, scope, now, digest)
            if is_chunked(request, scope):
                request.body = unchunk(request, scope, chunks)
        protocol = protocols.spoken(operation.service, request)
        params = protocols.parse(operation, request, protocol)
        if streaming:
            params[streaming] = request.upload
        result = await self.run(operation, params, caller, scope.region, request, request_id, body)
        return protocols.reply(operation, result, request_id, protocol)

    async def perform_large(
        self, request: Request, body: Body, scope: sigv4.Scope, operation: models.Operation, request_id: str,
        takes: tuple[int, str],
    ) -> Reply:  # fmt: skip
        """Performs an operation that takes larger bodies than others: on the disk until its signature is proved, in memory one by one.

        Raises: ServiceError (413) beyond the operation's own limit.
        """
        most_bytes, code = takes
        if (body.length or 0) > most_bytes:
            told = f"Request must be smaller than {most_bytes} bytes for the {operation.name} operation"
            raise ServiceError(code, told, 413)
        now, loop = self.app.clock.now(), asyncio.get_running_loop()
        auth.key_of(self.app.store, scope)  # nobody fills the disk with a key that is none
        async with self.spools, spooled(body, self.app.settings.data) as (file, digest):
            caller, chunks = auth.authenticate(self.app.store, request, scope, now, digest)
            async with self.large:
                request.body = await loop.run_in_executor(None, file.read)
                if is_chunked(request, scope):
                    request.body = await loop.run_in_executor(None, unchunk, request, scope, chunks)
                protocol = protocols.spoken(operation.service, request)
                params = await loop.run_in_executor(None, protocols.parse, operation, request, protocol)
                request.body = b""
                result = await self.run(operation, params, caller, scope.region, request, request_id, body)
        return protocols.reply(operation, result, request_id, protocol)

    async def run(
        self, operation: models.Operation, params: dict[str, Any], caller: Caller, region: str, request: Request,
        request_id: str, body: Body | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Runs the operation until its change is committed, and gives its result.

        Raises: ServiceError; what the operation's own waiting raises.
        """
        call = Call(
            app=self.app,
            caller=caller,
            service=operation.service.name,
            operation=operation.name,
            region=region,
            params=params,
            request_id=request_id,
            now=self.app.clock.now(),
            run=request.run,
            headers=request.headers,
        )
        call.arrived = call.now
        hand = Hand(self.turns)
        self.waits.attend()
        try:
            result, later = await self.commit(call, operation, hand, body)
            return result if later is None else await later()
        except Unmet:
            raise ServiceError(
                "PreconditionFailed", "At least one of the pre-conditions you specified did not hold", 412
            ) from None
        finally:
            hand.give_back()

    async def commit(
        self, call: Call, operation: models.Operation, hand: Hand, body: Body | None
    ) -> tuple[dict[str, Any], Callable[[], Awaitable[dict[str, Any]]] | None]:
        """Runs the operation until its change is committed: again when somebody wrote in between, and then by turns.

        Gives: the result, and what is awaited for it where it is still to come.
        """
        params, lost_times = call.params, 0
        while True:
            call = replace(call, params=params, change=Change())  # an operation may have put others in their place
            try:
                result = await self.perform_once(call, operation)
                if not hand and (ref := self.turns.contended(call.change)):
                    await hand.take(ref)
                    continue  # what was read may be written by now
                if call.change:
                    await self.app.store.commit_async(call.change)
                hand.give_back()
                return result, call.later
            except Long:
                call.patient = True
            except Waiting as waiting:
                hand.give_back()
                await self.wait(call, waiting, body)
                lost_times = 0
            except (Stale, Taken) as lost:
                lost_times += 1
                if lost_times == RERUNS:
                    raise
                if lost_times == 1 and any(seen.ref == lost.ref for seen in call.change.reads):
                    continue  # readers are many, and need no order: only who loses again waits for a turn
                await hand.take(lost.ref)

    async def wait(self, call: Call, waiting: Waiting, body: Body | None) -> None:
        """Waits until there is a reason to run the operation again.

        Raises: Disconnected, when the client went away meanwhile.
        """
        gone = asyncio.ensure_future(until_gone(body.receive)) if body else None
        try:
            if not await self.waits.wait(waiting, gone):
                raise Disconnected
        finally:
            if gone:
                gone.cancel()
        call.now = self.app.clock.now()
        if self.waits.over:
            call.arrived = 0.0

    async def perform_once(self, call: Call, operation: models.Operation) -> dict[str, Any]:
        """Runs an operation here, or beside the event loop where it may take long."""
        function = self.app.function(operation)
        when: Callable[[Call], bool] | None = getattr(function, "slow_when", None)
        if call.patient or getattr(function, "slow", False) or (when is not None and when(call)):
            return await asyncio.get_running_loop().run_in_executor(None, self.app.perform, call, operation)
        return self.app.perform(call, operation)

    async def post(self, request: Request, body: Body, request_id: str, route: list[models.Operation]) -> Reply:
        """Takes a browser's form: its policy stands for a signature."""
        post = posts.Post(self.app, request, self.app.clock.now())
        route.append(post.operation)
        received = await keep(self.app.blobs, post.pieces(body.pieces()), checksums.asked({}))
        allowed = post.allowed
        assert allowed is not None  # a form without a file was refused
        result = await self.run(
            post.operation, post.params(received), allowed.caller, allowed.region, request, request_id
        )
        return post.reply(result, request_id)

    async def receive_upload(self, request: Request, body: Body, scope: sigv4.Scope, chunks: Any) -> Any:
        """Streams the body into the blobs, and holds its length and digest against what the head of the request says."""
        headers = request.headers
        unchunker = unchunker_of(request, scope, chunks) if is_chunked(request, scope) else None
        algorithms, received = checksums.asked(headers), None
        if unchunker is None:
            received = await keep_small(self.app.blobs, body, algorithms)
            if received is None and self.porter is not None:
                received = await self.porter.carry(body, algorithms)
        if received is None:
            pieces = decoded(body.pieces(), unchunker, headers) if unchunker else body.pieces()
            received = await keep(self.app.blobs, pieces, algorithms)
        expected = headers.get("x-amz-decoded-content-length" if unchunker else "content-length")
        if expected is not None and expected != str(received.size_bytes):
            raise ServiceError(
                "IncompleteBody",
                "You did not provide the number of bytes specified by the Content-Length HTTP header.",
                400,
            )
        if re.fullmatch(r"[0-9a-f]{64}", scope.payload_hash) and scope.payload_hash != received.sha256:
            raise ServiceError(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                400,
            )
        return received


def told(fault: Exception, service: models.Service | None) -> tuple[str, str, int, dict[str, Any]]:
    """What the client is told of a failure: code, message, status, members."""
    match fault:
        case ServiceError():
            return fault.code, fault.message, fault.status, fault.members
        case sigv4.AuthError():
            return (*fault.answer(service.name if service else "", service.protocol if service else "rest-xml"), {})
        case protocols.BadRequest() | Unroutable():
            return fault.code, fault.message, fault.status, {}
        case Malformed():
            return "IncompleteBody", str(fault), 400, {}
        case Unavailable():
            return "ServiceUnavailable", "The store is not answering; try again.", 503, {}
        case StoreFailed():
            log.error("%s", fault)
            return "ServiceUnavailable", f"Nothing was written: {fault}", 503, {}
        case OSError() if fault.errno in NO_ROOM:
            log.error("%s", fault)
            return "ServiceUnavailable", f"Nothing was written: {os.strerror(fault.errno)}", 503, {}
        case sqlite3.DatabaseError():  # locked by somebody else, or damaged: doctor tells
            log.error("%s", fault)
            return "ServiceUnavailable", f"The database does not answer: {fault}", 503, {}
    return "InternalFailure", "An internal error has occurred.", 500, {}


def read_head(scope: dict[str, Any], run: str | None) -> Request:
    """The request of an ASGI scope, without its body."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    path = scope["raw_path"].decode("latin-1")
    if path.startswith(("http://", "https://")):  # a request to a proxy names the whole address
        path = "/" + path.partition("://")[2].partition("/")[2]
    return Request(
        method=scope["method"], path=path, query=scope["query_string"].decode("latin-1"), headers=headers, run=run
    )


def is_chunked(request: Request, scope: sigv4.Scope) -> bool:
    headers = request.headers
    named = "aws-chunked" in headers.get("content-encoding", "") and "x-amz-decoded-content-length" in headers
    return scope.is_chunked or named


def unchunker_of(request: Request, scope: sigv4.Scope, chunks: Any) -> chunked.Unchunker:
    length = request.headers.get("x-amz-decoded-content-length", "")
    return chunked.Unchunker(
        chunks,
        int(length) if length.isdecimal() else None,
        scope.payload_hash == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    )


async def decoded(
    pieces: AsyncIterator[bytes], unchunker: chunked.Unchunker, headers: dict[str, str]
) -> AsyncIterator[bytes]:
    """The bytes out of an aws-chunked body; what its trailer says is put into the headers."""
    async for piece in pieces:
        for part in unchunker.feed(piece):
            yield part
    headers.update(unchunker.finish())


def unchunk(request: Request, scope: sigv4.Scope, chunks: Any) -> bytes:
    """The body out of its chunks, held against the checksums in its trailer.

    Raises: ServiceError BadDigest.
    """
    unchunker = unchunker_of(request, scope, chunks)
    body = b"".join(unchunker.feed(request.body))
    trailer = unchunker.finish()
    for algorithm in checksums.ALGORITHMS:
        given = trailer.get(f"x-amz-checksum-{algorithm.lower()}")
        if given is not None and given != checksums.compute(algorithm, [body]):
            raise ServiceError("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")
    request.headers.update(trailer)
    return body


async def write(reply: Reply, method: str, receive: Receive, send: Send, incoming: Incoming | None) -> None:
    """Sends a reply; chunks of a lazy body are read in the executor, as long as the client is there."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
    body = reply.body
    if isinstance(body, bytes):
        if "content-length" not in reply.headers and reply.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(body)))
        body = b"" if method == "HEAD" else body
        if incoming is not None and incoming.answer(reply.status, headers, body):
            return
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if method != "HEAD":
        await write_chunks(iter(body), receive, send)
    await send({"type": "http.response.body", "body": b""})


async def write_chunks(chunks: Iterator[bytes], receive: Receive, send: Send) -> None:
    loop = asyncio.get_running_loop()
    gone = loop.create_task(until_gone(receive))
    try:
        while not gone.done() and (chunk := await loop.run_in_executor(None, next, chunks, None)) is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    finally:
        gone.cancel()


async def until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
