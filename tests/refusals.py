"""What a refused call is told: by a client, and in this process."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.kernel.errors import ServiceError


def refused(operation: Any, **params: Any) -> tuple[str, str]:
    """The code and the sentence of the error that a client's call ends in."""
    with pytest.raises(ClientError) as fault:
        operation(**params)
    error = fault.value.response["Error"]
    return str(error["Code"]), str(error["Message"])


def code_of(operation: Any, **params: Any) -> str:
    """The code alone."""
    return refused(operation, **params)[0]


def refusal(act: Any, *given: Any, **named: Any) -> tuple[str, str]:
    """The code and the sentence of the error that something of this process ends in."""
    with pytest.raises(ServiceError) as fault:
        act(*given, **named)
    return fault.value.code, fault.value.message
