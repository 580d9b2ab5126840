"""The routes of a model server, over the models that are loaded in it."""

import json
import threading
import traceback
from typing import Callable, Dict, Optional

from .web import Reply, Request

Invoke = Callable[[bytes, str, str], Reply]
"""Answers a body, by its content type and the Accept of its client."""

TEXT = "text/plain; charset=utf-8"


class Model:
    """A loaded model. One request at a time, as in a worker of AWS's images: users' functions need not bear threads."""

    def __init__(self, invoke: Invoke, parameters: Optional[Callable[[], str]] = None):
        self._invoke, self.parameters = invoke, parameters
        self._turn = threading.Lock()

    def invoke(self, request: Request) -> Reply:
        content_type = request.headers.get("content-type", "")
        accept = request.headers.get("accept", "")
        with self._turn:
            return self._invoke(request.body, content_type, accept)


class Application:
    """Answers requests. `models` is by name; the one that /invocations means is named "".

    Multi-model endpoints will add to it and take from it by /models.
    """

    def __init__(self, workers: int = 1):
        self.models: Dict[str, Model] = {}
        self._workers = workers

    def __call__(self, request: Request) -> Reply:
        """The answer to one request."""
        model = self.models.get("")
        if request.path == "/ping":
            return Reply(200 if model else 503)
        if model is None:
            return Reply(503, b"The model is being loaded.", TEXT)
        if request.path == "/invocations":
            return model.invoke(request) if request.method == "POST" else Reply(405)
        if request.path == "/execution-parameters":
            return self._parameters(model)
        return Reply(404, f"There is nothing at {request.path}.".encode(), TEXT)

    def _parameters(self, model: Model) -> Reply:
        if model.parameters is None:
            return Reply(404)
        try:
            return Reply(200, model.parameters().encode(), "application/json")
        except Exception as error:
            traceback.print_exc()
            return Reply(500, f"Unable to determine execution parameters: {error}".encode(), TEXT)


def default_parameters(workers: int, payload_bytes: int) -> str:
    """What the XGBoost algorithm says of itself to a transform job."""
    found = {
        "MaxConcurrentTransforms": workers,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": payload_bytes // (1 << 20),
    }
    return json.dumps(found)
