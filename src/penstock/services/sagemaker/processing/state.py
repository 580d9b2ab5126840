"""The noun: a processing job and its statuses."""

from __future__ import annotations

from penstock.services.sagemaker import nouns

JOB = nouns.job("Processing")
GROUP = "/aws/sagemaker/ProcessingJobs"
