"""Version directories: an image's files under versions/<component>/<digest12>/, complete or not there at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from controller.agent.drivers.services import short
from controller.agent.files import fsync_dir, sync_filesystem, write_atomic
from controller.errors import Invalid
from controller.model.order import OrderComponent

if TYPE_CHECKING:
    from controller.agent.puller import PulledImage, Puller

MARKER = "image.json"
KEEP = 3
"""Version directories kept of each component besides the one that runs: rollbacks find them without a pull."""


@dataclass(frozen=True, slots=True)
class Version:
    """A complete version directory; `rootfs` is where its command runs."""

    component: str
    digest: str
    platform_digest: str
    rootfs: Path
    workdir: Path
    command: tuple[str, ...]
    env: dict[str, str]


class Versions:
    """`directory`/versions, filled from a puller that is made only when something must be pulled."""

    def __init__(self, directory: Path, puller: Callable[[], Puller], platform: str) -> None:
        self._root = directory / "versions"
        self._blobs = directory / "store" / "blobs" / "sha256"
        self._make_puller = puller
        self._puller: Puller | None = None
        self._platform = platform

    def pull(self, component: str, order: OrderComponent, check: Callable[[], None]) -> PulledImage | None:
        """The verified image in the store; None when its version directory is complete already.

        `check` is called while bytes come; what it raises ends the pull.
        """
        if self.find(component, order.digest) is not None:
            return None
        if self._puller is None:
            self._puller = self._make_puller()
        return self._puller.pull(order.repository, order.digest, self._platform, check)

    def unpack(self, component: str, order: OrderComponent, image: PulledImage | None) -> Version:
        """The complete version directory; repeated or interrupted work is done once."""
        found = self.find(component, order.digest)
        if found is not None:
            return found
        assert image is not None
        from controller.agent.unpack import unpack

        final = self._folder(component, order.digest)
        partial = final.with_name(f".{final.name}.new")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with ExitStack() as stack:
            layers = [(layer.media_type, stack.enter_context(layer.path.open("rb"))) for layer in image.layers]
            unpack(layers, partial / "rootfs")
        settings = image.config.get("config") or {}
        marker = {
            "digest": image.digest,
            "platformDigest": image.platform_digest,
            "command": list(image.command),
            "env": [str(item) for item in settings.get("Env") or []],
            "workdir": str(settings.get("WorkingDir") or ""),
            "blobs": list(image.blobs),
        }
        # The marker vouches for every file beside it, also after a power cut: first they are durable, then it is.
        sync_filesystem(partial)
        write_atomic(partial / MARKER, json.dumps(marker, sort_keys=True).encode())
        partial.rename(final)
        fsync_dir(final.parent)
        version = self.find(component, order.digest)
        assert version is not None
        return version

    def find(self, component: str, digest: str) -> Version | None:
        """The version directory of a digest, when it is complete."""
        folder = self._folder(component, digest)
        try:
            marker = json.loads((folder / MARKER).read_bytes())
        except FileNotFoundError:
            return None
        if marker["digest"] != digest:
            raise Invalid(
                "version-occupied",
                "another image has this version directory",
                where=str(folder),
                expected=digest,
                got=str(marker["digest"]),
                cure="remove the directory when nothing runs from it",
            )
        rootfs = folder / "rootfs"
        workdir = rootfs / str(marker["workdir"]).lstrip("/")
        if not workdir.is_dir() or not workdir.resolve().is_relative_to(rootfs.resolve()):
            workdir = rootfs
        return Version(
            component=component,
            digest=digest,
            platform_digest=marker["platformDigest"],
            rootfs=rootfs,
            workdir=workdir,
            command=tuple(marker["command"]),
            env=dict(item.split("=", 1) for item in marker["env"] if "=" in item),
        )

    def prune(self, used: dict[str, str]) -> None:
        """Remove version directories beyond the newest few; never one in `used` (component → digest).

        Of what was pulled, the store keeps the blobs of the version that runs and of the one before: the others
        are unpacked, and a pull brings them back.
        """
        if not self._root.is_dir():
            return
        kept: set[str] = set()
        for folder in self._root.iterdir():
            keep = short(used[folder.name]) if folder.name in used else None
            others = [path for path in folder.iterdir() if path.name != keep and path.is_dir()]
            others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
            for path in others[KEEP:]:
                shutil.rmtree(path, ignore_errors=True)
            running = [folder / keep] if keep is not None else []
            for path in (*running, *others[:1]):
                kept |= _blobs_of(path)
        self._prune_store(kept)

    def _prune_store(self, kept: set[str]) -> None:
        if not self._blobs.is_dir():
            return
        for blob in self._blobs.iterdir():
            if f"sha256:{blob.name}" not in kept:
                blob.unlink(missing_ok=True)

    def _folder(self, component: str, digest: str) -> Path:
        return self._root / component / short(digest)


def _blobs_of(folder: Path) -> set[str]:
    """Digests of everything that was pulled for a version directory; none of one that is not complete."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
    except (OSError, ValueError):
        return set()
    return {str(marker["digest"]), str(marker["platformDigest"]), *map(str, marker.get("blobs", ()))}
