"""What an open run executes: the documents that it pinned, never later versions of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controller.core.run import Run
from controller.core.world import RunDocuments
from controller.model.entry import Pin
from controller.model.intent import Intent
from controller.model.lock import release_digest


def run_documents(document: Callable[[Pin], Any], run: Run, live: Intent) -> RunDocuments:
    """What an open run executes, from its pins; its lock from `live` until the inputs have pinned it.

    `document` reads a pin. Raises KeyError when something that the run needs is not pinned.
    """
    pins = {pin.path: pin for pin in run.opened.pins}

    def under(folder: str) -> dict[str, Pin]:
        return {
            p.path.removeprefix(folder).removesuffix(".yaml"): p
            for p in pins.values()
            if p.path.startswith(folder)
        }

    environment = document(pins[f"environments/{run.environment}.yaml"])
    policies = under("policies/")
    release = document(pins[f"releases/{run.opened.release}.yaml"])
    lock_pin = run.inputs.lock if run.inputs is not None else _live_lock(document, run, live)
    return RunDocuments(
        environment=environment,
        strategy=document(pins[f"strategies/{environment.spec.strategy}.yaml"]),
        policies={name: document(pin) for name, pin in policies.items()},
        policy_pins=policies,
        components={name: document(pin) for name, pin in under("components/").items()},
        release=release,
        agents=tuple(sorted(under("agents/"))),
        lock=document(lock_pin) if lock_pin is not None else None,
        lock_pin=lock_pin,
    )


def _live_lock(document: Callable[[Pin], Any], run: Run, live: Intent) -> Pin | None:
    """The lock of the pinned release file, once main has it."""
    lock = live.locks.get(run.opened.release)
    pinned = next((p for p in run.opened.pins if p.path == f"releases/{run.opened.release}.yaml"), None)
    if lock is None or pinned is None:
        return None
    if lock.document.spec.release_digest != release_digest(document(pinned)):
        return None
    return Pin(path=lock.path, blob=lock.blob, sha256=lock.sha256)
