"""Making a project: a genesis commit, its trust root, and the files it starts with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from jinja2 import Environment, StrictUndefined

from controller.core.parse import parse
from controller.core.trust import TrustState
from controller.errors import Invalid, UsageError
from controller.model.history import NewCommit
from controller.model.layout import LayoutTerms
from controller.model.link import LAYOUT_PATH
from controller.model.places import PROJECT_PATH, TRUST_PATH
from controller.model.trustroot import RootRefs, TrustRoot
from controller.ports import Repo, Signer
from controller.uses.layout import first_terms

MakeLayout = Callable[[LayoutTerms, Sequence[Signer]], bytes]
"""Writes an in-toto layout on these terms, signed by everybody given."""


class Workshop(Protocol):
    """What making a project needs from Git beyond an observed repository."""

    def create(self, directory: Path) -> Repo:
        """A new repository with a work tree in an empty directory; HEAD is on main."""
        ...

    def check_out(self, directory: Path) -> None:
        """Write main's files into the work tree."""
        ...

    def key(self, path: Path, comment: str) -> Signer:
        """A new private key in a file that only its owner may read, with its .pub beside it."""
        ...


@dataclass(frozen=True, slots=True)
class Made:
    """What `init` made: the root and where it and the keys are."""

    root: TrustRoot
    root_path: Path
    keys: Mapping[str, Path]


def create_project(
    repo: Repo,
    *,
    project: str,
    trust: bytes,
    document: bytes,
    files: Mapping[str, bytes],
    signer: Signer,
    at: datetime,
    refs: RootRefs | None = None,
    trust_files: Mapping[str, bytes] | None = None,
) -> TrustRoot:
    """Write main's genesis (`trust/` and lockgate.yaml alone) and one commit with `files` over it.

    `trust` and `document` are the bytes of trust/trust.yaml and lockgate.yaml, `trust_files` further files
    below trust/. `signer` signs both commits and must be somebody whom `trust` lets write each of `files`
    without approval. Raises Invalid("trust-malformed"), Invalid("genesis-malformed"), Conflict("ref-moved")
    when main exists.
    """
    where = refs or RootRefs()
    TrustState.parse(trust)
    genesis: dict[str, bytes | None] = {PROJECT_PATH: document, TRUST_PATH: trust, **(trust_files or {})}
    strange = [path for path in genesis if path != PROJECT_PATH and not path.startswith("trust/")]
    if strange:
        raise Invalid(
            "genesis-malformed",
            "the genesis commit holds trust/ and lockgate.yaml alone",
            where=strange[0],
            expected="a path below trust/",
            got=strange[0],
            cure="pass it among the files of the second commit",
        )
    commits = [NewCommit(genesis, f"Genesis of {project}\n", at)]
    if files:
        more: dict[str, bytes | None] = dict(files)
        commits.append(NewCommit(more, "Start from the scaffold\n", at + timedelta(seconds=1)))
    first = repo.append(where.main, None, commits, signer)[0]
    return TrustRoot(project=project, genesis=first, refs=where)


def init(
    directory: Path,
    *,
    project: str,
    owner: str,
    email: str,
    scaffold: Path,
    outside: Path,
    workshop: Workshop,
    at: datetime,
    owner_signer: Signer | None = None,
    layout: MakeLayout | None = None,
) -> Made:
    """A new repository from the scaffold, with trust-root.json and keys in `outside`, never in the repository.

    Keys are made for the owner (unless `owner_signer` is theirs) and for the controller; the owner signs the
    first in-toto layout, where their key is one that stock verification takes. No repository is
    made unless every file of the scaffold renders to a valid document. Raises UsageError("directory-in-use"),
    UsageError("keys-inside"), Invalid with the first diagnostic.
    """
    _check_places(directory, outside)
    keys = {"controller": outside / "keys" / "controller"}
    controller = workshop.key(keys["controller"], "controller")
    if owner_signer is None:
        keys["owner"] = outside / "keys" / owner
        owner_signer = workshop.key(keys["owner"], owner)
    facts = {
        "project": project,
        "owner": owner,
        "email": email,
        "keys": {"owner": owner_signer.public_key, "controller": controller.public_key},
    }
    files = render_scaffold(scaffold, facts)
    for path, data in files.items():
        _check_document(path, data)
    if layout is not None and owner_signer.public_key.startswith(("ssh-ed25519 ", "ecdsa-")):
        files[LAYOUT_PATH] = layout(first_terms(project, files), [owner_signer])
    root = create_project(
        workshop.create(directory),
        project=project,
        trust=files.pop(TRUST_PATH),
        document=files.pop(PROJECT_PATH),
        trust_files={path: files.pop(path) for path in sorted(files) if path.startswith("trust/")},
        files=files,
        signer=owner_signer,
        at=at,
    )
    workshop.check_out(directory)
    root_path = outside / "trust-root.json"
    root.save(root_path)
    return Made(root, root_path, keys)


def render_scaffold(scaffold: Path, facts: Mapping[str, object]) -> dict[str, bytes]:
    """The scaffold's files by path; those named *.j2 are rendered, and a missing fact is an error."""
    engine = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)  # noqa: S701
    files: dict[str, bytes] = {}
    for source in sorted(path for path in scaffold.rglob("*") if path.is_file()):
        path = source.relative_to(scaffold).as_posix()
        if path.endswith(".j2"):
            files[path.removesuffix(".j2")] = engine.from_string(source.read_text()).render(facts).encode()
        else:
            files[path] = source.read_bytes()
    return files


def _check_places(directory: Path, outside: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(
            "directory-in-use",
            "the directory is not empty",
            where=str(directory),
            expected="an empty or new directory",
            got="files in it",
            cure="choose another directory",
        )
    if outside.resolve().is_relative_to(directory.resolve()):
        raise UsageError(
            "keys-inside",
            "keys and trust root may not lie in the repository",
            where=str(outside),
            expected=f"a directory outside of {directory}",
            got="one inside",
            cure="choose another directory for them",
        )


def _check_document(path: str, data: bytes) -> None:
    found = next((item for item in parse(path, data).diagnostics if item.severity == "error"), None)
    if found is not None:
        raise Invalid(
            found.code, found.message, where=f"{path}:{found.line}", expected="a valid document", cure=found.cure
        )
