"""Fixtures that several modules share."""

from tests.support.real_run import packs, recorded

__all__ = ["packs", "recorded"]
