"""Operations on the images of a repository."""

from __future__ import annotations

from typing import Any

from penstock.kernel import pages
from penstock.kernel.call import Call, slow
from penstock.kernel.errors import ServiceError
from penstock.runs.base import Held
from penstock.services.ecr.state import PAGES, images_of, repository_of

MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"


def describe_images(call: Call) -> dict[str, Any]:
    """The images of a repository: one entry a digest, with all its tags.

    Raises: ServiceError ImageNotFoundException for an image that is asked for and not there.
    """
    repository = repository_of(call)
    held = images_of(call, repository.name)
    wanted = call.params.get("imageIds")
    if wanted:
        for each in wanted:
            if not _matching(held, each):
                raise ServiceError("ImageNotFoundException", _absent(call, repository.name, each))
        held = [one for one in held if any(_matching([one], each) for each in wanted)]
    digests = {} if call.params.get("filter", {}).get("tagStatus") == "UNTAGGED" else _by_digest(held)
    shown = [_detail(call, repository.name, same) for same in digests.values()]
    return pages.cut(call, "imageDetails", shown, lambda one: one["imageDigest"], paging=PAGES)


def list_images(call: Call) -> dict[str, Any]:
    """The tags of a repository.

    Differs: there are no untagged images: what is built anew under a tag takes the place of what was there.
    """
    repository = repository_of(call)
    untagged = call.params.get("filter", {}).get("tagStatus") == "UNTAGGED"
    held = [] if untagged else images_of(call, repository.name)
    return pages.cut(call, "imageIds", [_identifier(one) for one in held], lambda one: one["imageTag"], paging=PAGES)


def batch_get_image(call: Call) -> dict[str, Any]:
    """The manifests of images.

    Differs: the layers that a manifest names are folders of this machine, and cannot be downloaded.
    """
    repository = repository_of(call)
    held = images_of(call, repository.name)
    images, failures = [], []
    for each in call.params["imageIds"]:
        if found := _matching(held, each):
            images.append(
                {
                    "registryId": call.account,
                    "repositoryName": repository.name,
                    "imageId": {"imageDigest": found[0].digest, **each},
                    "imageManifest": found[0].manifest,
                    "imageManifestMediaType": MEDIA_TYPE,
                }
            )
        else:
            failures.append(_failure(each))
    return {"images": images, "failures": failures}


@slow
def batch_delete_image(call: Call) -> dict[str, Any]:
    """Deletes images by tag, or by digest with all their tags, from this machine."""
    repository = repository_of(call)
    held = images_of(call, repository.name)
    gone, failures = [], []
    for each in call.params["imageIds"]:
        found = _matching(held, each)
        for one in found:
            call.app.images.remove(one.uri)
            held.remove(one)
            gone.append(_identifier(one))
        if not found:
            failures.append(_failure(each))
    return {"imageIds": gone, "failures": failures}


def _matching(held: list[Held], wanted: dict[str, str]) -> list[Held]:
    """The images that an identifier means."""
    if not wanted:
        return []
    return [
        one
        for one in held
        if wanted.get("imageTag", one.tag) == one.tag and wanted.get("imageDigest", one.digest) == one.digest
    ]


def _by_digest(held: list[Held]) -> dict[str, list[Held]]:
    found: dict[str, list[Held]] = {}
    for one in held:
        found.setdefault(one.digest, []).append(one)
    return found


def _identifier(one: Held) -> dict[str, str]:
    return {"imageDigest": one.digest, "imageTag": one.tag}


def _detail(call: Call, repository: str, same: list[Held]) -> dict[str, Any]:
    return {
        "registryId": call.account,
        "repositoryName": repository,
        "imageDigest": same[0].digest,
        "imageTags": sorted(one.tag for one in same),
        "imageSizeInBytes": same[0].size_bytes,
        "imagePushedAt": max(one.made for one in same),
        "imageManifestMediaType": MEDIA_TYPE,
        "artifactMediaType": CONFIG_TYPE,
        "imageStatus": "ACTIVE",
    }


def _absent(call: Call, repository: str, wanted: dict[str, str]) -> str:
    digest, tag = wanted.get("imageDigest", "null"), wanted.get("imageTag", "null")
    return (
        f"The image with imageId {{imageDigest:'{digest}', imageTag:'{tag}'}} does not exist within the repository with "
        f"name '{repository}' in the registry with id '{call.account}'"
    )


def _failure(wanted: dict[str, str]) -> dict[str, Any]:
    code = "ImageNotFound" if wanted else "MissingDigestAndTag"
    reason = "Requested image not found" if wanted else "Invalid request parameters: both tag and digest cannot be null"
    return {"imageId": wanted, "failureCode": code, "failureReason": reason}
