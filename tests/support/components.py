"""Which real programs took part in a run: fixtures that start or call one say so, and the run's end lists them."""

from __future__ import annotations

_USED: dict[str, str] = {}


def used(name: str, version: str) -> None:
    """A real component took part; `name` is its Debian package or project, `version` what it says of itself."""
    _USED[name] = version.strip()


def seen() -> dict[str, str]:
    """What took part in this process so far."""
    return dict(_USED)
