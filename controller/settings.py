"""Where things lie: the package's own data (beside the code, or inside the wheel), and registry credentials."""

from __future__ import annotations

import os
import zoneinfo
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_dir(name: str) -> Path:
    """The folder `schemas`, `templates` or `example-repo`, wherever this installation keeps it."""
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def artifact_templates() -> dict[str, bytes]:
    """The templates of what is rendered for a run, by the name of what each renders."""
    folder = data_dir("templates") / "artifacts"
    return {path.name.removesuffix(".j2"): path.read_bytes() for path in sorted(folder.glob("*.j2"))}


@cache
def tzdata_version() -> str:
    """Which time zone data `zoneinfo` reads here: "2025b" of the system's, "tzdata 2025.2" of the package,
    "unknown" where nothing says."""
    for folder in map(Path, zoneinfo.TZPATH):
        for name in ("tzdata.zi", "+VERSION"):
            try:
                with (folder / name).open(encoding="ascii", errors="replace") as file:
                    return file.readline().removeprefix("# version").strip() or "unknown"
            except OSError:
                continue
        if (folder / "UTC").exists():
            return "unknown"
    from importlib.metadata import PackageNotFoundError, version  # slow to load, and hardly ever asked

    try:
        return f"tzdata {version('tzdata')}"
    except PackageNotFoundError:
        return "unknown"


def docker_config() -> Path:
    """The file in which `docker login` and `skopeo login` keep credentials: in DOCKER_CONFIG, else ~/.docker."""
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"
