"""In-toto layouts, as commands make and read them."""

from __future__ import annotations

from controller.adapters.attest.layout import countersign, make_layout, merge, signed_by

__all__ = ["countersign", "make_layout", "merge", "signed_by"]
