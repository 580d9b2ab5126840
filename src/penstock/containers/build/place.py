"""COPY and ADD, inside the sandbox: puts what lies in a folder where a Dockerfile says.

    place.py FOLDER

FOLDER holds places.json: a list of {"from": path below FOLDER, "name": its own name, "folder": whether it is one, "to":
absolute path, "within": whether `to` means a folder, "mode": octal text or "", "unpack": whether an archive is unpacked}.
Where "from" is empty, the folder `to` is made.
Links of the image are followed as its programs would follow them. Python 3.6 and later, with the standard library.
"""

import json
import os
import shutil
import sys
import tarfile
from typing import Any, Dict


def main(folder: str) -> int:
    with open(os.path.join(folder, "places.json")) as file:
        places = json.load(file)
    try:
        for place in places:
            if not place["from"]:
                os.makedirs(place["to"], exist_ok=True)
                continue
            put(os.path.join(folder, place["from"]), place)
    except (OSError, tarfile.TarError, shutil.Error) as error:
        sys.stdout.write(str(error) + "\n")
        return 1
    return 0


def put(source: str, place: Dict[str, Any]) -> None:
    """Puts one source into its place."""
    target = place["to"]
    if place["folder"]:
        copy_folder(source, target, place["mode"])
        return
    if place["within"] or os.path.isdir(target):
        os.makedirs(target, exist_ok=True)
        if place["unpack"] and tarfile.is_tarfile(source):
            with tarfile.open(source) as archive:
                archive.extractall(target, **unfiltered())  # type: ignore[arg-type]  # noqa: S202 - a sandbox of its own
            return
        target = os.path.join(target, place["name"])
    elif place["unpack"] and tarfile.is_tarfile(source):
        put(source, dict(place, within=True))
        return
    os.makedirs(os.path.dirname(target) or "/", exist_ok=True)
    copy_file(source, target, place["mode"])


def unfiltered() -> Dict[str, str]:
    """Owners cannot be given here, and all else is the image's own."""
    return {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}


def copy_folder(source: str, target: str, mode: str) -> None:
    os.makedirs(target, exist_ok=True)
    for name in sorted(os.listdir(source)):
        path, made = os.path.join(source, name), os.path.join(target, name)
        if os.path.isdir(path) and not os.path.islink(path):
            copy_folder(path, made, mode)
            shutil.copymode(path, made)
        else:
            copy_file(path, made, mode)


def copy_file(source: str, target: str, mode: str) -> None:
    if os.path.islink(target) or (os.path.islink(source) and os.path.exists(target)):
        os.unlink(target)
    shutil.copy2(source, target, follow_symlinks=False)
    if mode and not os.path.islink(target):
        os.chmod(target, int(mode, 8))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
