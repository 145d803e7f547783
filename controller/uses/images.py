"""Small OCI images made from plain files, without tools: for the demo, tutorials and tests.

Formats: image-spec 1.1 (image-layout.md, manifest.md, config.md, layer.md). The same input gives the same
bytes, so the same digests, on every machine.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import zstandard

_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_REF_NAME: Final = "org.opencontainers.image.ref.name"
_EPOCH: Final = "1970-01-01T00:00:00Z"

Compression = Literal["gzip", "zstd", "none"]
_LAYER_TYPES: Final[Mapping[Compression, str]] = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "none": "application/vnd.oci.image.layer.v1.tar",
}


def build_layout(
    images_dir: Path,
    name: str,
    tag: str,
    files: Mapping[str, bytes],
    *,
    layers: Sequence[Mapping[str, bytes] | bytes] = (),
    command: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    platform: str = "linux/amd64",
    compression: Compression = "gzip",
) -> str:
    """Add an image to the layout `images_dir`/`name` under `tag`; returns the manifest's digest.

    `files` (path in the image → content) are the lowest layer; each of `layers` lies above, as files or as
    the bytes of a ready tar. A file that starts with "#!" is executable. A tag that exists is moved.
    """
    folder = _open_layout(images_dir / name)
    descriptor = _write_image(folder, [files, *layers], command, env or {}, platform, compression)
    _tag(folder, tag, descriptor)
    return str(descriptor["digest"])


def build_index(
    images_dir: Path,
    name: str,
    tag: str,
    images: Mapping[str, Mapping[str, bytes]],
    *,
    command: Sequence[str] = (),
    compression: Compression = "gzip",
) -> str:
    """Add a multi-platform image ("os/architecture[/variant]" → files) under `tag`; the index's digest."""
    folder = _open_layout(images_dir / name)
    manifests = []
    for platform, files in sorted(images.items()):
        descriptor = _write_image(folder, [files], command, {}, platform, compression)
        manifests.append({**descriptor, "platform": _platform(platform)})
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
    descriptor = _write_blob(folder, _INDEX, _json(index))
    _tag(folder, tag, descriptor)
    return str(descriptor["digest"])


def make_tar(files: Mapping[str, bytes]) -> bytes:
    """A tar of regular files and their parent folders: sorted, owned by root, dated 1970."""
    buffer = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in sorted(files.items()):
            parts = path.strip("/").split("/")
            for depth in range(1, len(parts)):
                parent = "/".join(parts[:depth])
                if parent not in made:
                    made.add(parent)
                    folder = tarfile.TarInfo(parent)
                    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(folder)
            entry = tarfile.TarInfo("/".join(parts))
            entry.size = len(content)
            entry.mode = 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _write_image(
    folder: Path,
    layers: Sequence[Mapping[str, bytes] | bytes],
    command: Sequence[str],
    env: Mapping[str, str],
    platform: str,
    compression: Compression,
) -> dict[str, Any]:
    tars = [layer if isinstance(layer, bytes) else make_tar(layer) for layer in layers]
    descriptors = [_write_blob(folder, _LAYER_TYPES[compression], _compress(tar, compression)) for tar in tars]
    settings: dict[str, Any] = {"Env": [f"{key}={value}" for key, value in sorted(env.items())]}
    if command:
        settings["Cmd"] = list(command)
    config = {
        "created": _EPOCH,
        **_platform(platform),
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [_digest(tar) for tar in tars]},
        "history": [{"created": _EPOCH, "created_by": "lockgate"} for _ in tars],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _write_blob(folder, _CONFIG, _json(config)),
        "layers": descriptors,
    }
    return _write_blob(folder, _MANIFEST, _json(manifest))


def _compress(tar: bytes, compression: Compression) -> bytes:
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=3).compress(tar)
    if compression == "gzip":
        buffer = io.BytesIO()
        with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
            file.write(tar)
        return buffer.getvalue()
    return tar


def _platform(text: str) -> dict[str, str]:
    system, architecture, *variant = text.split("/")
    return {"os": system, "architecture": architecture} | ({"variant": variant[0]} if variant else {})


def _open_layout(folder: Path) -> Path:
    (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    marker = folder / "oci-layout"
    if not marker.exists():
        _replace(marker, _json({"imageLayoutVersion": "1.0.0"}))
    return folder


def _write_blob(folder: Path, media_type: str, data: bytes) -> dict[str, Any]:
    digest = _digest(data)
    path = folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
    if not path.exists():
        _replace(path, data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _tag(folder: Path, tag: str, descriptor: Mapping[str, Any]) -> None:
    path = folder / "index.json"
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": []}
    if path.exists():
        index |= json.loads(path.read_bytes())
    kept = [one for one in index["manifests"] if one.get("annotations", {}).get(_REF_NAME) != tag]
    kept.append({**descriptor, "annotations": {_REF_NAME: tag}})
    index["manifests"] = sorted(kept, key=lambda one: str(one["annotations"][_REF_NAME]))
    _replace(path, _json(index))


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
