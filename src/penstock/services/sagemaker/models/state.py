"""The model's declaration."""

from __future__ import annotations

from penstock.kernel.resource import Resource

MODEL = Resource(
    "sagemaker.model",
    key="ModelName",
    path="model/{name}",
    arn="ModelArn",
    updated="",
    missing=("ValidationException", 'Could not find model "{arn}".'),
    exists=("ValidationException", 'Cannot create already existing model "{arn}".'),
)
