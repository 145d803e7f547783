"""Pull an image by digest into a content-addressed store; every byte is hashed before it has a name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller.adapters.registries.manifests import (
    INDEX_TYPES,
    MANIFEST_LIMIT,
    digest_mismatch,
    is_digest,
    parse_json_object,
)
from controller.agent.unpack import write_failed
from controller.errors import Invalid, Refused
from controller.model.registry import ManifestAnswer
from controller.ports import Registry

_LAYERS_LIMIT: Final = 512
_LAYER_TYPE = re.compile(
    r"application/vnd\.(?:oci\.image\.layer\.v1\.tar(?:\+gzip|\+zstd)?|docker\.image\.rootfs\.diff\.tar\.gzip)"
)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer in the store: compressed, verified."""

    media_type: str
    digest: str
    path: Path


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image of which every blob is in the store and matches its digest."""

    repository: str
    digest: str
    platform_digest: str
    config_digest: str
    config: dict[str, Any]
    layers: tuple[Layer, ...]

    @property
    def blobs(self) -> tuple[str, ...]:
        """The digests of its configuration and layers."""
        return (self.config_digest, *(layer.digest for layer in self.layers))

    @property
    def command(self) -> tuple[str, ...]:
        """The image's own command: Entrypoint, then Cmd."""
        settings = self.config.get("config") or {}
        parts = [*(settings.get("Entrypoint") or []), *(settings.get("Cmd") or [])]
        return tuple(str(part) for part in parts)


@dataclass(frozen=True, slots=True)
class _Descriptor:
    media_type: str
    digest: str
    size: int


class Puller:
    """Pulls into `store`/blobs/sha256/<hex>. What is there already is verified again, never downloaded again."""

    def __init__(self, registry: Registry, store: Path, *, image_limit: int = 16 * 1024**3) -> None:
        """`image_limit` bounds the sum of an image's blobs as stored, in bytes."""
        self._registry = registry
        self._blobs = store / "blobs" / "sha256"
        self._partial = store / "partial"
        self._limit = image_limit
        self._lock = threading.Lock()

    def pull(
        self, repository: str, digest: str, platform: str, check: Callable[[], None] = lambda: None
    ) -> PulledImage:
        """The image at `digest` (a manifest, or an index that holds `platform`), complete and verified.

        Raises Refused("digest-mismatch") with the file removed, Refused("platform-mismatch"),
        Refused("image-too-large"), Invalid("platform-missing"), Invalid("layer-unsupported"),
        Unavailable("disk-full"), what the registry raises, and what `check` does, which is called while bytes
        come. May be repeated: nothing verified is lost.
        """
        if not is_digest(digest):
            raise Invalid(
                "digest-required",
                "images are pulled by digest only",
                where=f"repository {repository}",
                expected="sha256:<64 hex digits>",
                got=digest[:140],
                cure="use the digest of the release lock",
            )
        with self._lock:
            try:
                self._blobs.mkdir(parents=True, exist_ok=True)
                self._partial.mkdir(parents=True, exist_ok=True)
                return self._pull(repository, digest, platform, check)
            except OSError as error:
                raise write_failed(error, f"store {self._blobs}") from None

    def _pull(self, repository: str, digest: str, platform: str, check: Callable[[], None]) -> PulledImage:
        top = self._manifest(repository, digest)
        answer = top
        if top.media_type in INDEX_TYPES:
            answer = self._manifest(repository, _platform_digest(top, platform, repository))
            if answer.media_type in INDEX_TYPES:
                raise _malformed(repository, answer.digest, "a manifest", "an index within an index")
        where = f"{repository}@{answer.digest}"
        document = parse_json_object(answer.body, where)
        config = _descriptor(document.get("config"), where)
        layers = [_descriptor(entry, where) for entry in document["layers"]]
        self._check_sizes(repository, answer.digest, config, layers)
        for layer in layers:
            if _LAYER_TYPE.fullmatch(layer.media_type) is None:
                raise Invalid(
                    "layer-unsupported",
                    "this kind of layer cannot be unpacked",
                    where=where,
                    expected="a tar, plain or compressed with gzip or zstd",
                    got=layer.media_type[:100],
                    cure="build the image with ordinary layers",
                )
        config_path = self._blob(repository, config, check)
        settings = parse_json_object(config_path.read_bytes(), f"configuration of {where}")
        _check_platform(settings, platform, where)
        paths = [self._blob(repository, layer, check) for layer in layers]
        stored = tuple(Layer(la.media_type, la.digest, path) for la, path in zip(layers, paths, strict=True))
        return PulledImage(repository, top.digest, answer.digest, config.digest, settings, stored)

    def _check_sizes(self, repository: str, digest: str, config: _Descriptor, layers: list[_Descriptor]) -> None:
        total = config.size + sum(layer.size for layer in layers)
        if config.size > MANIFEST_LIMIT or total > self._limit or len(layers) > _LAYERS_LIMIT:
            raise Refused(
                "image-too-large",
                "the image is larger than allowed",
                where=f"{repository}@{digest}",
                expected=f"at most {self._limit} bytes in {_LAYERS_LIMIT} layers",
                got=f"{total} bytes in {len(layers)} layers",
                cure="make the image smaller or raise the agent's limit",
            )

    def _manifest(self, repository: str, digest: str) -> ManifestAnswer:
        answer = self._registry.manifest(repository, digest)
        got = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
        if got != digest:
            raise digest_mismatch(f"{repository}@{digest}", digest, got)
        self._store(repository, _Descriptor(answer.media_type, digest, len(answer.body)), iter([answer.body]))
        return answer

    def _blob(self, repository: str, descriptor: _Descriptor, check: Callable[[], None]) -> Path:
        check()

        def chunks() -> Iterator[bytes]:
            for chunk in self._registry.blob(repository, descriptor.digest):
                check()
                yield chunk

        return self._store(repository, descriptor, chunks())

    def _store(self, repository: str, wanted: _Descriptor, chunks: Iterator[bytes]) -> Path:
        """The stored file of a blob, from the store if it is still whole, else from `chunks`."""
        name = wanted.digest.removeprefix("sha256:")
        path = self._blobs / name
        if path.is_file() and not path.is_symlink():
            if _file_digest(path) == wanted.digest:
                return path
            path.unlink()
        temporary = self._partial / name
        where = f"{repository}@{wanted.digest}"
        try:
            got = self._write(temporary, chunks, wanted.size)
            if got != wanted.digest:
                raise digest_mismatch(where, wanted.digest, got)
            temporary.replace(path)
            _sync_folder(self._blobs)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def _write(self, path: Path, chunks: Iterator[bytes], size: int) -> str:
        """Write and hash; more bytes than announced end the download. Returns the digest of what came."""
        path.unlink(missing_ok=True)
        hasher = hashlib.sha256()
        written = 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file, contextlib.ExitStack() as stack:
            close = getattr(chunks, "close", None)
            if close is not None:
                stack.callback(close)
            for chunk in chunks:
                written += len(chunk)
                hasher.update(chunk)
                if written > size:
                    return f"more than the {size} bytes of its descriptor"
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return f"sha256:{hasher.hexdigest()}"


def _platform_digest(index: ManifestAnswer, platform: str, repository: str) -> str:
    system, architecture, *variant = platform.split("/")
    wanted = (system, architecture, variant[0] if variant else None)
    entries = parse_json_object(index.body, f"{repository}@{index.digest}")["manifests"]
    offered: dict[tuple[Any, Any, Any], set[str]] = {}
    for entry in entries:
        place = entry.get("platform") if isinstance(entry, dict) else None
        if isinstance(place, dict):
            key = (place.get("os"), place.get("architecture"), place.get("variant"))
            offered.setdefault(key, set()).add(str(entry.get("digest")))
    digests = offered.get(wanted, set())
    if len(digests) == 1 and is_digest(digest := next(iter(digests))):
        return digest
    raise Invalid(
        "platform-missing",
        "the image does not offer this platform",
        where=f"{repository}@{index.digest}",
        expected=platform,
        got=f"{len(digests)} manifests for it",
        cure="build the image for the agent's platform",
    )


def _check_platform(config: dict[str, Any], platform: str, where: str) -> None:
    got = f"{config.get('os')}/{config.get('architecture')}"
    if got != "/".join(platform.split("/")[:2]):
        raise Refused(
            "platform-mismatch",
            "the image was built for another platform",
            where=where,
            expected=platform,
            got=got[:100],
            cure="build the image for the agent's platform",
        )


def _descriptor(value: Any, where: str) -> _Descriptor:
    if isinstance(value, dict):
        kind, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
        named = isinstance(kind, str) and isinstance(digest, str) and is_digest(digest)
        if named and type(size) is int and size >= 0 and not value.get("urls"):
            return _Descriptor(str(kind), str(digest), size)
    raise _malformed(where, "", "descriptors with mediaType, sha256 digest and size", "something else")


def _malformed(repository: str, digest: str, expected: str, got: str) -> Invalid:
    return Invalid(
        "manifest-malformed",
        "the manifest is not one that can be pulled",
        where=f"{repository}@{digest}" if digest else repository,
        expected=expected,
        got=got,
        cure="push the image again",
    )


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
