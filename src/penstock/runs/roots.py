"""The roots of a run's instances: what lies in them, and how they are mounted where bubblewrap can reach them."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

from penstock.runs import inputs, linux, network, outputs, sandbox
from penstock.runs.base import Instance, RunSpec
from penstock.runs.sandbox import Bound

OWN_FOLDERS = ("/usr/local", "/usr/src")
"""Where images put programs of their own."""
NO_OVERLAY = (errno.EPERM, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP)


class Ground:
    """The part of the supervisor's namespaces that is the same for every run, so that it is made once, and ahead."""

    def __init__(self, house: sandbox.House):
        """Moves this process into a mount namespace of its own, with the stage in it."""
        self.house = house
        self._entered = False
        if house.mapped:
            # What belongs to other users can be shown as the job's only from outside the user namespace: `enter` comes last.
            os.setgroups([])
        else:
            linux.join(house.user_namespace, linux.NEWUSER)
        linux.unshare(linux.NEWNS)
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_SLAVE)
        self.stage = sandbox.mount_stage()
        self._shown: dict[str, tuple[str, tuple[int, int]]] = {}
        """Where each source is seen, and which file or folder it was."""
        self.show(house.runs)  # what the runs have there, the base and other layers

    def can_show(self, sources: Iterable[str]) -> bool:
        """Whether these can be shown: any before this process entered the user namespace; what was shown, afterwards."""
        if not (self.house.mapped and self._entered):
            return True
        try:
            return all(self._is_shown(source) for source in sources)
        except FileNotFoundError:
            return False

    def _is_shown(self, source: str) -> bool:
        """Whether a source is shown already, and it is the same file or folder still."""
        if source.startswith(self.house.runs + "/"):
            return os.path.exists(source)
        return source in self._shown and self._shown[source][1] == _identity(source)

    def show(self, source: str) -> None:
        """Makes a path reachable for the job's user, and its own, where that is another than the server's."""
        if self.house.mapped and source not in self._shown and not source.startswith(self.house.runs + "/"):
            if not os.path.exists(source):
                raise FileNotFoundError(errno.ENOENT, "there is nothing to mount", source)
            target = f"{self.stage}/shown{len(self._shown)}"
            os.mkdir(target) if os.path.isdir(source) else Path(target).touch()
            identity = _identity(source)
            try:
                linux.bind_as(source, target, self.house.user_namespace)
            except OSError:  # a file system that cannot: its files keep their owners
                linux.mount(source, target, None, linux.MS_BIND)
            self._shown[source] = target, identity

    def seen(self, source: str) -> str:
        """Where a path that was shown, or lies in one that was, is."""
        for path in (source, *map(str, Path(source).parents)):
            if path in self._shown:
                return self._shown[path][0] + source[len(path) :]
        return source

    def enter(self) -> None:
        """Moves this process into the user namespace, for good; nothing more can be shown."""
        if self.house.mapped and not self._entered:
            linux.join(self.house.user_namespace, linux.NEWUSER)
            linux.unshare(linux.NEWNS)
        self._entered = True

    def job_id(self) -> int:
        """The job's user, as this process has to call it."""
        return 0 if self._entered else sandbox.JOB_ID

    @contextlib.contextmanager
    def as_job(self) -> Iterator[None]:
        """What is started meanwhile belongs to the job's user, and so is root in the user namespace."""
        if not self.house.mapped:
            yield
            return
        linux.keep_capabilities()
        os.setresgid(0, 0, sandbox.KEEPER_ID)
        os.setresuid(0, 0, sandbox.KEEPER_ID)
        try:
            yield
        finally:
            os.setresuid(*(sandbox.KEEPER_ID,) * 3)
            os.setresgid(*(sandbox.KEEPER_ID,) * 3)


class Roots:
    """Lays, then mounts, the roots of all instances; `merged` and `bound` hold the outcome by host name."""

    def __init__(self, spec: RunSpec, ground: Ground, scratch: Path):
        self._spec, self._ground, self._scratch = spec, ground, scratch
        self._lowers: dict[str, list[str]] = {}
        self._mounted: list[Path] = []
        self.merged: dict[str, outputs.Root] = {}
        self.bound: dict[str, list[Bound]] = {}

    def lay(self) -> None:
        """Puts inputs and folders into the layers, and shows what is to be mounted."""
        os.mkdir(self._scratch)
        for instance in self._spec.instances:
            self._lay(instance)
        for source in sources_of(self._spec):
            self._ground.show(source)

    def _lay(self, instance: Instance) -> None:
        home, host = self._scratch / instance.host, instance.host
        for path in (home, home / "upper", home / "work"):
            os.mkdir(path, 0o755)
        upper, given = home / "upper", [*self._spec.inputs, *instance.inputs]
        written = [upper]
        for number, mount in enumerate(self._spec.mounts):
            if mount.mode == "overlay":
                written.append(home / f"mount{number}" / "upper")
                written[-1].mkdir(parents=True)
                (home / f"mount{number}" / "work").mkdir()
        if self._spec.own_local:
            inputs.lay_folders((*own_folders(), *(f"/usr/local/{name}" for name in ("bin", "lib", "share"))), upper)
        if (hosts := [i.host for i in self._spec.instances]) != sandbox.ONE_HOST:  # the base names the usual one
            (upper / "etc").mkdir()
            (upper / "etc" / "hosts").write_text(network.hosts_text(hosts))
            (upper / "etc" / "hostname").write_text(host + "\n")
        inputs.lay_folders([*self._spec.folders, *self._working_folder()], upper)
        inputs.lay_inputs(given, home / "lower", upper)
        self._lowers[host] = [str(home / "lower")] if any(i.blob is not None for i in given) else []
        if self._ground.house.mapped:
            for layer in written:
                give_away(layer, self._ground.job_id())

    def _working_folder(self) -> list[str]:
        """The working folder is made if it is not there, unless it lies in something that is mounted."""
        covered = ["/usr", "/proc", "/dev", *(m.target for m in self._spec.mounts)]
        if self._spec.own_local and any(is_below(self._spec.cwd, own) for own in own_folders()):
            return [self._spec.cwd]
        return [] if self._spec.cwd == "/" or any(is_below(self._spec.cwd, c) for c in covered) else [self._spec.cwd]

    def mount(self) -> None:
        """Mounts the roots and the writable mounts."""
        for instance in self._spec.instances:
            home, host = self._scratch / instance.host, instance.host
            lowers = [*self._lowers[host], *self._spec.layers, self._ground.house.base]
            root = self.merged[host] = self._mount_layers(lowers, home, host)
            own = own_folders() if self._spec.own_local else []
            self.bound[host] = [Bound(root.merged + folder, folder, True) for folder in own]
            # Outer before inner, or the outer would cover the inner.
            for number, mount in sorted(enumerate(self._spec.mounts), key=lambda m: m[1].target.count("/")):
                source, writable = self._ground.seen(mount.source), mount.mode == "overlay"
                if writable:
                    above = [layer + mount.target for layer in self._spec.layers if os.path.isdir(layer + mount.target)]
                    layer = self._mount_layers([*above, mount.source], home / f"mount{number}", f"{host}-{number}")
                    source = layer.merged
                self.bound[host].append(Bound(source, mount.target, writable))

    def _mount_layers(self, lowers: list[str], home: Path, name: str) -> outputs.Root:
        """A writable root of layers; where overlays do not work, a copy of them."""
        target = self._ground.stage / name
        target.mkdir()
        try:
            shown = [self._ground.seen(lower) for lower in lowers]
            sandbox.mount_overlay(shown, str(home / "upper"), str(home / "work"), str(target))
            self._mounted.append(target)
            return outputs.Root(str(target), str(home / "upper"))
        except OSError as error:
            target.rmdir()
            if error.errno not in NO_OVERLAY or self._ground.house.mapped:
                raise
        copy = str(home / "root")
        for layer in [*reversed(lowers), str(home / "upper")]:
            sandbox.copy_layer(layer, copy)
        return outputs.Root(copy, copy)

    def keep(self, target: Path) -> None:
        """Moves what the first instance wrote to a folder, as a layer that other roots may stand on; its root is gone then."""
        host = self._spec.instances[0].host
        home = self._scratch / host
        self.unmount()
        Path(self.merged[host].upper).rename(target)
        for number, mount in enumerate(self._spec.mounts):
            if mount.mode == "overlay":
                place = inputs.inside(target, mount.target)
                place.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    place.rmdir()  # bubblewrap's mount point
                (home / f"mount{number}" / "upper").rename(place)
        if self._ground.house.mapped:
            take_back(target)

    def unmount(self) -> None:
        """Takes down what was mounted."""
        for target in self._mounted:
            linux.detach(str(target))
            target.rmdir()
        self._mounted = []

    @property
    def layers(self) -> list[Path]:
        """The folders on disk that grow while the program runs."""
        return [self._scratch / i.host for i in self._spec.instances]


def sources_of(spec: RunSpec) -> list[str]:
    """The host paths that a run's root shows."""
    return [*spec.layers, *(mount.source for mount in spec.mounts)]


def _identity(path: str) -> tuple[int, int]:
    about = os.stat(path)
    return about.st_dev, about.st_ino


def give_away(folder: Path, owner: int) -> None:
    """Makes a tree the job's own."""
    for parent, _, names in os.walk(folder):
        os.chown(parent, owner, owner)
        for name in names:
            os.chown(f"{parent}/{name}", owner, owner, follow_symlinks=False)


def take_back(folder: Path) -> None:
    """Makes a tree of the job's the server's own again, from inside the user namespace."""
    for parent, _, names in os.walk(folder):
        os.chown(parent, sandbox.KEEPER_ID, sandbox.KEEPER_ID)
        for name in names:
            os.chown(f"{parent}/{name}", sandbox.KEEPER_ID, sandbox.KEEPER_ID, follow_symlinks=False)


def own_folders() -> list[str]:
    """The folders below /usr that a root may have for its own: those that are there to be covered."""
    return [folder for folder in OWN_FOLDERS if os.path.isdir(folder)]


def is_below(path: str, folder: str) -> bool:
    path, folder = posixpath.normpath(path), posixpath.normpath(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")
