"""The declarations of endpoint configurations and endpoints."""

from __future__ import annotations

from penstock.kernel.resource import Resource

CONFIG = Resource(
    "sagemaker.endpoint-config",
    key="EndpointConfigName",
    path="endpoint-config/{name}",
    arn="EndpointConfigArn",
    updated="",
    missing=("ValidationException", 'Could not find endpoint configuration "{arn}".'),
    exists=("ValidationException", 'Cannot create already existing endpoint configuration "{arn}".'),
)
ENDPOINT = Resource(
    "sagemaker.endpoint",
    key="EndpointName",
    path="endpoint/{name}",
    arn="EndpointArn",
    status="EndpointStatus",
    missing=("ValidationException", 'Could not find endpoint "{arn}".'),
    exists=("ValidationException", 'Cannot create already existing endpoint "{arn}".'),
)
