"""`Response`: what an `output_fn` may give back, a body with its content type."""

import json


class Response:
    """A reply's body. `response`, `mimetype` and `status_code` are read by the model server."""

    default_mimetype = "application/json"

    def __init__(
        self, response=None, accept=None, status=200, headers=None, mimetype=None, content_type=None, **kwargs
    ):
        self.response = response
        self.mimetype = mimetype or content_type or accept or self.default_mimetype
        self.content_type = self.mimetype
        self.status_code = status
        self.headers = dict(headers or {})

    def get_data(self, as_text=False):
        """The body as bytes, or as text."""
        body = self.response
        if not isinstance(body, (bytes, bytearray, str)):
            body = json.dumps(body.tolist() if hasattr(body, "tolist") else body)
        if as_text:
            return body.decode("utf-8") if not isinstance(body, str) else body
        return body.encode("utf-8") if isinstance(body, str) else bytes(body)

    data = property(get_data)
