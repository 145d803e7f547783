"""What commands share: the repository, the trust root, who signs, and what the controller says of itself."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.context import Context
from controller.errors import Invalid, LockgateError, UsageError

if TYPE_CHECKING:
    from controller.core.trust import TrustState
    from controller.model.trustroot import TrustRoot
    from controller.uses.view import Health, Unanswered, View
    from controller.wiring.people import Person
    from controller.wiring.repos import GitRepo

RootOption = Annotated[
    Path | None, typer.Option("--trust-root", help="The pinned trust root; names the branches where they differ.")
]
PinnedOption = Annotated[
    Path | None, typer.Option("--trust-root", help="The pinned trust root: everything is proven from it.")
]
KeyOption = Annotated[
    str | None, typer.Option("--key", help="Your private key: a file, env:NAME, ssh-agent:WHICH, pkcs11:URI.")
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Your name in the commit; by default your name in the trust document.")
]
StateOption = Annotated[
    Path | None, typer.Option("--state-dir", help="The controller's state directory, for what it says of itself.")
]
ControllerOption = Annotated[
    str | None, typer.Option("--controller", help="The controller's address, for what it says of itself.")
]


def load_root(path: Path | None) -> TrustRoot | None:
    """The trust root, when one is given. Raises as TrustRoot.load."""
    if path is None:
        return None
    from controller.model.trustroot import TrustRoot

    return TrustRoot.load(path)


def pinned_root(path: Path | None) -> TrustRoot:
    """The trust root that a proof starts from. Raises UsageError("trust-root-missing"), and as TrustRoot.load."""
    root = load_root(path)
    if root is None:
        raise UsageError(
            "trust-root-missing",
            "nothing can be proven without a pinned root",
            where="--trust-root",
            expected="the trust-root.json of this project",
            got="none",
            cure="give --trust-root FILE or set LOCKGATE_TRUST_ROOT",
        )
    return root


@contextlib.contextmanager
def reading(context: Context, trust_root: Path | None = None) -> Iterator[GitRepo]:
    """The repository, for reading."""
    from controller.wiring.repos import read_repo

    repo = read_repo(context.repo, load_root(trust_root))
    try:
        yield repo
    finally:
        repo.close()


@contextlib.contextmanager
def writing(context: Context, trust_root: Path | None = None) -> Iterator[GitRepo]:
    """The repository, for people's commits."""
    from controller.wiring.repos import write_repo

    repo = write_repo(context.repo, load_root(trust_root))
    try:
        yield repo
    finally:
        repo.close()


@contextlib.contextmanager
def viewing(
    context: Context,
    trust_root: Path | None = None,
    state_dir: Path | None = None,
    controller: str | None = None,
) -> Iterator[View]:
    """The project as it stands. Where it cannot be read, the error tells what the controller says too."""
    from controller.uses.view import view
    from controller.uses.why import HEALTHY

    health = health_of(state_dir, controller)
    with contextlib.ExitStack() as stack:
        try:
            found = view(stack.enter_context(reading(context, trust_root)), health)
        except LockgateError as error:
            if health is not None and health.state not in HEALTHY:
                error.cure = f"{error.cure}; the controller is {health.state}: {health.message}".removeprefix("; ")
            raise
        yield found


def now() -> datetime:
    """The time of a question."""
    return datetime.now(UTC)


def person(trust: TrustState, key: str | Path | None, name: str | None) -> Person:
    """Who signs. The key must be a principal's: whatever another key signs is refused anyway.

    Raises UsageError("key-missing"), Invalid("key-not-principal"), and as `open_signer`.
    """
    from controller.wiring.making import open_signer
    from controller.wiring.people import Person

    if key is None:
        raise UsageError(
            "key-missing",
            "this is signed by a person",
            where="--key",
            expected="your private key",
            got="none",
            cure="give --key FILE, --key ssh-agent:COMMENT, or set LOCKGATE_KEY",
        )
    signer = open_signer(key)
    owner = trust.owner_of(signer.public_key)
    if owner is None:
        raise Invalid(
            "key-not-principal",
            f"the key belongs to nobody in trust version {trust.version}",
            where=str(key),
            expected=f"a key of {', '.join(sorted(trust.members))}",
            got=signer.public_key[:44] + "…",
            cure="name the file of your own key, or have owners add it to trust/trust.yaml",
        )
    emails = trust.document.spec.principals[owner].emails
    return Person(name or owner, emails[0] if emails else git_config("user.email") or f"{owner}@localhost", signer)


def git_config(name: str) -> str | None:
    """What Git is configured to here; None when it is not."""
    try:
        found = subprocess.run(["git", "config", name], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def duration(option: str, text: str) -> timedelta:
    """A duration given to an option. Raises UsageError("duration-malformed")."""
    from controller.model.base import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(
            "duration-malformed",
            "the duration cannot be read",
            where=option,
            expected="something like 30s or 1h30m",
            got=text,
            cure="write it like 30s",
        ) from error


def health_of(state_dir: Path | None, controller: str | None) -> Health | None:
    """What the controller says of itself: at its address, else in its state directory; None when not asked."""
    from controller.uses.view import Health
    from controller.uses.why import HEALTHY
    from controller.wiring.state_dir import lived_in

    if controller is not None:
        return _ask(controller)
    if state_dir is None:
        return None
    try:
        said = json.loads((state_dir / "health.json").read_text())
        state, code, message, at = (str(said[key]) for key in ("state", "code", "message", "at"))
        if not said.get("once") and not lived_in(state_dir):
            before = f"; when it was, it was {state}: {message}" if state not in HEALTHY else ""
            return Health("stopped", "controller-stopped", f"none runs with {state_dir}{before}", at)
        return Health(state, code, message, at, unanswered=_unanswered(said))
    except FileNotFoundError:
        return Health("unknown", "controller-unknown", f"no controller has run with {state_dir}")
    except (OSError, ValueError, KeyError, TypeError):
        return Health("unknown", "controller-unknown", f"{state_dir / 'health.json'} cannot be read")


def _unanswered(said: Mapping[str, Any]) -> tuple[Unanswered, ...]:
    from controller.uses.view import Unanswered

    names = [one.name for one in fields(Unanswered)]
    return tuple(Unanswered(*(str(one[name]) for name in names)) for one in said.get("unanswered", ()))


def _ask(address: str) -> Health:
    import httpx

    from controller.model.order import Obstacle
    from controller.uses.view import Health

    url = address if "://" in address else f"http://{address}"
    try:
        said = httpx.get(f"{url.rstrip('/')}/status", timeout=3.0).raise_for_status().json()
        health = said["health"]
        agents = {str(name): str(at) for name, at in said.get("agents", {}).items()}
        refused = {str(name): str(code) for name, code in said.get("refused", {}).items()}
        awaited = {str(e): tuple(str(t) for t in targets) for e, targets in said.get("awaited", {}).items()}
        obstacles = {str(name): Obstacle.model_validate(one) for name, one in said.get("obstacles", {}).items()}
        state, code, message, at = (health[key] for key in ("state", "code", "message", "at"))
        return Health(state, code, message, at, agents, refused, awaited, obstacles, _unanswered(said))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError) as error:
        words = str(error) or type(error).__name__
        return Health("unreachable", "controller-unreachable", f"{url} does not answer: {words}")
