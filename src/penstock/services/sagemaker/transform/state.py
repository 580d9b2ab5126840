"""The noun: a transform job and its statuses."""

from __future__ import annotations

from penstock.services.sagemaker import nouns

JOB = nouns.job("Transform")
GROUP = "/aws/sagemaker/TransformJobs"
