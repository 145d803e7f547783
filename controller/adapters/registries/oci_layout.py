"""OCI image layouts (image-spec 1.1, image-layout.md) below one folder, as a registry without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from controller.adapters.registries.manifests import (
    MANIFEST_LIMIT,
    check_reference,
    is_digest,
    is_name,
    is_tag,
    not_found,
    parse_json_object,
    read_manifest,
    too_large,
)
from controller.errors import Invalid, Refused, Unavailable
from controller.model.registry import ManifestAnswer

PREFIX: Final = "oci-layout:"
REF_NAME: Final = "org.opencontainers.image.ref.name"
_CHUNK: Final = 256 * 1024


class OciLayoutRegistry:
    """Repositories written `oci-layout:NAME`: the layout in `images_dir`/NAME."""

    def __init__(self, images_dir: Path) -> None:
        self._root = images_dir

    def close(self) -> None:
        """Nothing is held open."""

    def tags(self, repository: str) -> list[str]:
        """Every tag of index.json, sorted. Raises Invalid("repository-not-found")."""
        return sorted(self._tagged(repository))

    def manifest(self, repository: str, reference: str) -> ManifestAnswer:
        """The manifest or index at a tag or digest, hashed; errors as `read_manifest`."""
        check_reference(repository, reference)
        if is_digest(reference):
            folder = self._folder(repository)
            digest, media_type = reference, None
        else:
            descriptor = self._tagged(repository).get(reference)
            if descriptor is None:
                raise not_found(repository, reference)
            folder = self._folder(repository)
            digest, media_type = str(descriptor.get("digest")), descriptor.get("mediaType")
            check_reference(repository, digest)
        path = self._blob_path(folder, digest)
        if path is None:
            raise not_found(repository, digest)
        body = _read_limited(path, f"{repository}@{digest}")
        return read_manifest(body, media_type, repository=repository, reference=digest)

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        """The blob's bytes in chunks, unverified. Raises Invalid("blob-not-found")."""
        check_reference(repository, digest)
        path = self._blob_path(self._folder(repository), digest)
        if path is None:
            raise Invalid(
                "blob-not-found",
                "the image layout has no such blob",
                where=f"repository {repository}",
                expected=digest,
                got="nothing",
                cure="copy the image into the layout again",
            )
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise _unreadable(f"{repository}@{digest}", error) from None

    def _folder(self, repository: str) -> Path:
        name = repository.removeprefix(PREFIX)
        if name == repository or not is_name(name):
            raise Invalid(
                "repository-invalid",
                "this is not the name of an image layout",
                where="component repository",
                expected="oci-layout:NAME, NAME in lower case and below the images folder",
                got=repository[:140],
                cure="correct spec.repository of the component",
            )
        root = self._root.resolve()
        folder = (root / name).resolve()
        if not folder.is_relative_to(root):
            raise Refused(
                "repository-escapes",
                "the image layout lies outside the images folder",
                where=f"repository {repository}",
                expected="a folder below the images folder",
                got="a link out of it",
                cure="copy the layout into the images folder",
            )
        if not (folder / "index.json").is_file():
            raise Invalid(
                "repository-not-found",
                "there is no image layout of this name",
                where=f"repository {repository}",
                expected="a folder with index.json below the images folder",
                got="nothing",
                cure="copy the image there, or point --images (LOCKGATE_IMAGES) at the right folder",
            )
        return folder

    def _blob_path(self, folder: Path, digest: str) -> Path | None:
        path = folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
        if not path.is_file():
            return None
        return path if path.resolve().is_relative_to(self._root.resolve()) else None

    def _tagged(self, repository: str) -> dict[str, dict[str, Any]]:
        """Descriptors of index.json by tag. One tag on two digests is ambiguous."""
        where = f"index.json of {repository}"
        index = parse_json_object(_read_limited(self._folder(repository) / "index.json", where), where)
        found: dict[str, dict[str, Any]] = {}
        descriptors = index.get("manifests")
        for descriptor in descriptors if isinstance(descriptors, list) else []:
            annotations = descriptor.get("annotations") if isinstance(descriptor, dict) else None
            tag = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
            if not isinstance(tag, str) or not is_tag(tag):
                continue
            if tag in found and found[tag].get("digest") != descriptor.get("digest"):
                raise Refused(
                    "manifest-ambiguous",
                    "one tag names two digests",
                    where=where,
                    expected=f"tag {tag} once",
                    got="twice",
                    cure="remove one of the entries",
                )
            found[tag] = descriptor
        return found


def _read_limited(path: Path, where: str) -> bytes:
    try:
        with path.open("rb") as file:
            body = file.read(MANIFEST_LIMIT + 1)
    except OSError as error:
        raise _unreadable(where, error) from None
    if len(body) > MANIFEST_LIMIT:
        raise too_large(where, MANIFEST_LIMIT)
    return body


def _unreadable(where: str, error: OSError) -> Unavailable:
    return Unavailable(
        "layout-unreadable",
        "the image layout cannot be read",
        where=where,
        expected="a readable file",
        got=error.strerror or type(error).__name__,
        cure="check the images folder and its permissions",
    )
