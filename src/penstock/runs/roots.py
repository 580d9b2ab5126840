"""The roots of a run's instances: what lies in them, and how they are mounted where bubblewrap can reach them."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

from penstock.runs import inputs, linux, network, outputs, sandbox
from penstock.runs.base import Input, Instance, RunSpec
from penstock.runs.sandbox import Bound

OWN_FOLDERS = ("/usr/local", "/usr/src")
"""Where images put programs of their own."""
LIGHT_BYTES = 64 * 1024
LIGHT_TEXTS = 100
"""Texts up to here lie in memory, in a layer of their own: on disk each folder and file costs 0.1 ms to make and as much to delete."""
BARE_LAYERS = 32
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
        self._fixed: dict[str, tuple[str, tuple[int, int]]] = {}
        self._bare: dict[frozenset[str], str] = {}
        self._free: dict[tuple[tuple[str, ...], ...], tuple[frozenset[str], list[str]]] = {}
        self.show(house.runs)  # what the runs have there, the base and other layers
        self.system: list[Bound] = []
        """What every root shows of the host, ready to be bound; nothing where the kernel cannot: bubblewrap binds it then."""
        with contextlib.suppress(OSError):
            self.system = [Bound(self.fix(folder), folder, False) for folder in sandbox.system_folders()]

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
        path = source
        while path:  # by its text: a run asks twenty times
            if path in self._shown:
                return self._shown[path][0] + source[len(path) :]
            path = path.rpartition("/")[0]
        return source

    def fix(self, source: str) -> str:
        """Where a path is seen read-only, without devices and other users' programs. Raises OSError, also before Linux 5.12."""
        place = self.seen(source)
        identity = _identity(place)
        known = self._fixed.get(place)
        if known and known[1] == identity:
            return known[0]
        if known:
            linux.detach(known[0])
        target = known[0] if known else f"{self.stage}/fixed{len(self._fixed)}"
        if not known:
            os.mkdir(target) if os.path.isdir(place) else Path(target).touch()
        linux.bind_fixed(place, target)
        self._fixed[place] = target, identity
        return target

    def bare_layer(self, folders: frozenset[str], owner: int | None) -> str | None:
        """A layer in memory of empty folders, made once for all runs that want the same: it is never written to.

        None where there are many already: each is some inodes of the stage.
        """
        if folders not in self._bare and len(self._bare) < BARE_LAYERS:
            layer = inputs.Layer(f"{self.stage}/bare{len(self._bare)}", owner)
            for folder in sorted(folders):
                layer.lay_folder(folder)
            self._bare[folders] = layer.top
        return self._bare.get(folders)

    def free_targets(self, layers: tuple[str, ...], targets: tuple[str, ...]) -> tuple[frozenset[str], list[str]]:
        """The places that may be mounted on from outside a root of layers: no link, and no other mount, is on the way.

        A link would lead the mount out of the root. Layers do not change, so what was found is kept.
        Gives: them, and those that no layer has.
        """
        found = self._free.get((layers, targets))
        if found is None:
            ways = {target: [target, *map(str, Path(target).parents)][:-1] for target in targets}
            free = [
                target
                for target in targets
                if not any(is_below(target, other) for other in ("/proc", "/dev", *targets) if other != target)
                and not any(os.path.islink(self.seen(layer) + way) for layer in layers for way in ways[target])
            ]
            missing = [t for t in free if not any(os.path.isdir(self.seen(layer) + t) for layer in layers)]
            found = self._free[layers, targets] = frozenset(free), missing
        return found

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
    """Lays, then mounts, the roots of all instances; `merged` and `bound` hold the outcome by host name.

    What the root shows of the host is bound into it here, where bubblewrap needs not do it (`assembled`).
    """

    def __init__(self, spec: RunSpec, ground: Ground, scratch: Path, prefix: str = ""):
        """Takes: `prefix`, of its names on the stage, where it is not the only one there; bubblewrap binds all then."""
        self._spec, self._ground, self._scratch, self._prefix = spec, ground, scratch, prefix
        self._lowers: dict[str, list[str]] = {}
        self._mounted: list[Path] = []
        self._light: list[inputs.Layer] = []
        self._ready: frozenset[str] = frozenset()
        """The targets that are mounted on here."""
        self.assembled: set[str] = set()
        self.merged: dict[str, outputs.Root] = {}
        self.bound: dict[str, list[Bound]] = {}

    def lay(self) -> None:
        """Puts inputs and folders into the layers, and shows what is to be mounted."""
        os.mkdir(self._scratch)
        for instance in self._spec.instances:
            self._lay(instance)
        for source in sources_of(self._spec):
            self._ground.show(source)

    def _home(self, host: str) -> Path:
        """The folder on disk that grows while the instance's program runs."""
        return self._scratch / host if len(self._spec.instances) > 1 else self._scratch

    def _lay(self, instance: Instance) -> None:
        home, host = self._home(instance.host), instance.host
        given = [*self._spec.inputs, *instance.inputs]
        owner = self._ground.job_id() if self._ground.house.mapped else None
        if home != self._scratch:
            os.mkdir(home, 0o755)
        os.mkdir(home / "work", 0o755)
        folders = [*self._spec.folders, *self._working_folder()]
        top = upper = inputs.Layer(str(home / "upper"), owner)
        for number, mount in enumerate(self._spec.mounts):
            if mount.mode == "overlay":
                (home / f"mount{number}" / "work").mkdir(parents=True)
                inputs.Layer(str(home / f"mount{number}" / "upper"), owner)
        self._lowers[host] = [str(home / "lower")] if any(i.blob is not None for i in given) else []
        if self._is_light(given):
            top = inputs.Layer(f"{self._ground.stage}/{self._prefix}{host}.light", owner)
            self._light.append(top)
            self._lowers[host].insert(0, top.top)
            folders += self._find_targets()
            if bare := self._ground.bare_layer(frozenset(folders), owner):
                self._lowers[host].append(bare)
                folders = []
        if self._spec.own_local:
            for folder in (*own_folders(), *(f"/usr/local/{name}" for name in ("bin", "lib", "share"))):
                upper.lay_folder(folder)
        if (hosts := [i.host for i in self._spec.instances]) != sandbox.ONE_HOST:  # the base names the usual one
            top.lay_text("/etc/hosts", network.hosts_text(hosts).encode())
            top.lay_text("/etc/hostname", f"{host}\n".encode())
        for folder in folders:
            top.lay_folder(folder)
        for each in given:
            if each.blob is None:
                top.lay_text(each.target, each.data or b"", each.mode)
        inputs.lay_blobs(given, home / "lower")

    def _is_light(self, given: list[Input]) -> bool:
        """Whether what is laid may lie in memory; not where it is kept."""
        texts = [each.data or b"" for each in given if each.blob is None]
        if len(self._spec.folders) > LIGHT_TEXTS:
            return False
        return not self._spec.keep and len(texts) <= LIGHT_TEXTS and sum(map(len, texts)) <= LIGHT_BYTES

    def _find_targets(self) -> list[str]:
        """The places to be made to mount on, where that can be done from outside."""
        system = [each.target for each in self._ground.system]
        layers = (*self._spec.layers, self._ground.house.base)
        targets = (*system, *(mount.target for mount in self._spec.mounts if os.path.isdir(mount.source)))
        self._ready, missing = self._ground.free_targets(layers, targets)
        return missing

    def _working_folder(self) -> list[str]:
        """The working folder is made if it is not there, unless it lies in something that is mounted."""
        covered = ["/usr", "/proc", "/dev", *(m.target for m in self._spec.mounts)]
        if self._spec.own_local and any(is_below(self._spec.cwd, own) for own in own_folders()):
            return [self._spec.cwd]
        return [] if self._spec.cwd == "/" or any(is_below(self._spec.cwd, c) for c in covered) else [self._spec.cwd]

    def mount(self) -> None:
        """Mounts the roots and the writable mounts."""
        for instance in self._spec.instances:
            home, host = self._home(instance.host), instance.host
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
            if self._ground.system and self._light and not own and root.merged != root.upper and not self._prefix:
                self._assemble(host)

    def _assemble(self, host: str) -> None:
        """Binds what can be into an instance's root; the rest is for bubblewrap."""
        self.assembled.add(host)
        root, left = self.merged[host].merged, []
        for each in (*self._ground.system, *self.bound[host]):
            if each.target not in self._ready:
                left.append(each)
                continue
            source = each.source if each.writable or each in self._ground.system else self._ground.fix(each.source)
            linux.mount(source, root + each.target, None, linux.MS_BIND | linux.MS_REC)
        self.bound[host] = left

    def _mount_layers(self, lowers: list[str], home: Path, name: str) -> outputs.Root:
        """A writable root of layers; where overlays do not work, a copy of them."""
        target = self._ground.stage / (self._prefix + name)
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
        home = self._home(host)
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
        for light in self._light:
            light.remove()
        self._mounted, self._light = [], []

    @property
    def layers(self) -> list[Path]:
        """The folders on disk that grow while the program runs."""
        return [self._home(i.host) for i in self._spec.instances]


def sources_of(spec: RunSpec) -> list[str]:
    """The host paths that a run's root shows."""
    return [*spec.layers, *(mount.source for mount in spec.mounts)]


def _identity(path: str) -> tuple[int, int]:
    about = os.stat(path)
    return about.st_dev, about.st_ino


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
