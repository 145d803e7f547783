"""Fixtures that several modules share."""

from tests.support.real_run import recorded

__all__ = ["recorded"]
