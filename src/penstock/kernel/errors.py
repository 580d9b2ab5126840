"""The one error that a client is told.

ServiceError            answered in the service's own error form
penstock.Refused        the operator is told
anything else           a bug: logged with its request id, answered InternalFailure
"""

from __future__ import annotations

from typing import Any


class ServiceError(Exception):
    """An error that the client is told, under AWS's code and with AWS's sentence.

    Takes: `members`, further members of the modelled error (S3's Key and BucketName, say).
    """

    def __init__(self, code: str, message: str, status: int = 400, **members: Any):
        self.code, self.message, self.status, self.members = code, message, status, members
        super().__init__(f"{code}: {message}")


def invalid(message: str) -> ServiceError:
    """ValidationException, SageMaker's answer to most of what it refuses."""
    return ServiceError("ValidationException", message)


def unserved(service: str, operation: str) -> ServiceError:
    """What is not there says its name: 501."""
    return ServiceError(
        "NotImplemented",
        f"Penstock does not serve {service}:{operation} (yet). `penstock coverage {service}` lists what it does.",
        501,
    )
