"""What is asked of jobs: that one be made, which is looked over first, stopped, or deleted."""

from __future__ import annotations

from penstock.kernel.buckets import open_bucket, parse_uri
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError, invalid
from penstock.kernel.resource import Resource
from penstock.runs.base import ImageError, Images
from penstock.services.sagemaker import contract, quotas, specs, telling
from penstock.services.sagemaker.experiments import jobs as components
from penstock.services.sagemaker.nouns import FINAL, NOUNS, run_name
from penstock.store.records import Document, ObjectQuery


def begin(call: Call, document: Document) -> None:
    """Gives a new job its run's credentials, tells of it, and has the engine look.

    Raises: ServiceError for a text that no program can be given, beyond a quota, and for an experiment that is not there.
    """
    body = document.body
    quotas.check(call, document, NOUNS[document.kind])
    contract.refuse_nul(call.params)
    components.begin(call, document)
    body["_run"] = run_name(document)
    specs.give_key(call, document)
    call.put(document)
    telling.tell(call, document)
    call.wake(document.ref)


def check_image(call: Call, uri: str) -> None:
    """Refuses an image that nothing stands for, where this process knows the images; elsewhere the job will fail.

    Raises: ServiceError.
    """
    images: Images | None = call.app.images
    if images is None:
        return
    if images.asks(uri):
        call.take_time()
    try:
        images.check(uri)
    except ImageError as fault:
        remedy = str(fault).removeprefix(f"No environment is known for the image {uri}.").strip()  # not said twice
        raise invalid(f"Requested image {uri} not found. {remedy}") from None


def check_source(call: Call, uri: str, role: str) -> None:
    """Raises: ServiceError where no object lies under an input's prefix."""
    bucket, prefix = parse_uri(uri)
    try:
        open_bucket(call, bucket)
        there = bool(call.app.store.objects(ObjectQuery(bucket=bucket, prefix=prefix, limit=1)).rows)
    except ServiceError:
        there = False
    if not there:
        raise invalid(
            f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
            f"exists in the selected region ({call.region}), that objects exist under that S3 prefix, and that the "
            f'role "{role}" has "s3:ListBucket" permissions on bucket "{bucket}".'
        )


def stop(call: Call, resource: Resource, document: Document) -> None:
    """Has a job stopped; one that stops already is left alone.

    Raises: ServiceError for one that has ended.
    """
    if document.status in FINAL:
        raise invalid(f"The request was rejected because the {NOUNS[document.kind]} is in status {document.status}.")
    if document.status == "InProgress":
        resource.move(call, document, "Stopping")
        telling.tell(call, document)
        call.wake(document.ref)


def delete(call: Call, resource: Resource, document: Document) -> None:
    """Deletes an ended job.

    Raises: ServiceError (ResourceInUse) for one that has not ended.
    """
    if document.status not in FINAL:
        raise ServiceError("ResourceInUse", f"Cannot delete {document.arn}: it is in status {document.status}.")
    resource.delete(call, document.name)
