"""Registries: the port over HTTP, over image layouts, and a router that chooses by repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from controller.adapters.registries.oci import Limits, OciRegistry, Pace, SystemPace
from controller.adapters.registries.oci_auth import Credentials, docker_config_credentials
from controller.adapters.registries.oci_layout import PREFIX, OciLayoutRegistry
from controller.errors import Invalid
from controller.model.registry import ManifestAnswer

__all__ = [
    "Credentials",
    "Limits",
    "OciLayoutRegistry",
    "OciRegistry",
    "Pace",
    "Registries",
    "SystemPace",
    "docker_config_credentials",
]


class Registries:
    """The Registry port over every kind of repository, chosen by the repository's prefix."""

    def __init__(self, *, oci: OciRegistry, images_dir: Path | None = None) -> None:
        """`images_dir` holds the layouts (--images / LOCKGATE_IMAGES); without it they are refused."""
        self._oci = oci
        self._layout = OciLayoutRegistry(images_dir) if images_dir is not None else None

    def registry_for(self, repository: str) -> OciRegistry | OciLayoutRegistry:
        """The adapter that serves `repository`. Raises Invalid("images-folder-missing")."""
        if not repository.startswith(PREFIX):
            return self._oci
        if self._layout is None:
            raise Invalid(
                "images-folder-missing",
                "no images folder is configured",
                where=f"repository {repository[:140]}",
                expected="--images or LOCKGATE_IMAGES",
                got="neither",
                cure="point --images at the folder that holds the image layouts",
            )
        return self._layout

    def tags(self, repository: str) -> list[str]:
        return self.registry_for(repository).tags(repository)

    def manifest(self, repository: str, reference: str) -> ManifestAnswer:
        return self.registry_for(repository).manifest(repository, reference)

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        return self.registry_for(repository).blob(repository, digest)

    def close(self) -> None:
        """Close every adapter's connections."""
        self._oci.close()
