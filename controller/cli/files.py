"""`init`, `validate`, `schema` and `resolve`: the files people write."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller import __version__
from controller.cli.context import context_of
from controller.cli.session import RootOption, git_config, now, reading
from controller.errors import Invalid, Refused, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from controller.model.intent import Intent
    from controller.model.lock import ReleaseLock
    from controller.uses.view import View
    from controller.wiring.repos import GitRepo

RefOption = Annotated[str | None, typer.Option("--ref", help="A branch, or a whole commit id.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("init")(init)
    app.command("validate")(validate)
    app.command("schema")(schema)
    app.command("resolve")(resolve)


# --- init ------------------------------------------------------------------------------------------------


def init(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="A new or empty directory.", metavar="DIR")],
    project: Annotated[str | None, typer.Option("--project", help="The project; by default DIR's name.")] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="The first owner's name in the trust file.")] = None,
    email: Annotated[str | None, typer.Option("--email", help="The first owner's address.")] = None,
    outside: Annotated[
        Path | None, typer.Option("--outside", help="Where keys and trust-root.json go; by default DIR-private.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", help="The owner's own private key (file, ssh-agent:WHICH, pkcs11:URI); else one is made."
        ),
    ] = None,
) -> None:
    """A new repository from the scaffold, with its trust root and first keys outside of it."""
    from controller.settings import data_dir
    from controller.uses import init as making
    from controller.wiring.attest import make_layout
    from controller.wiring.making import GitWorkshop, open_signer

    options = context_of(context)
    directory = directory.absolute()
    name = owner or "owner"
    address = email or git_config("user.email") or f"{name}@example.com"
    private = (outside or directory.with_name(f"{directory.name}-private")).absolute()
    workshop = GitWorkshop((git_config("user.name") or name, address))
    try:
        made = making.init(
            directory,
            project=project or directory.name,
            owner=name,
            email=address,
            scaffold=data_dir("templates") / "scaffold",
            outside=private,
            workshop=workshop,
            at=now().replace(microsecond=0),
            owner_signer=open_signer(key) if key is not None else None,
            layout=make_layout,
        )
    except OSError as error:
        raise Unavailable(
            "directory-unusable",
            "the project cannot be written",
            where=str(error.filename or directory),
            got=error.strerror or type(error).__name__,
            cure="choose a place this user may write to",
        ) from error
    finally:
        workshop.close()
    value = {
        "directory": str(directory),
        "project": made.root.project,
        "genesis": made.root.genesis,
        "trustRoot": str(made.root_path),
        "keys": {role: str(path) for role, path in made.keys.items()},
    }
    options.answer(value, lambda: _made(value))


def _made(value: Mapping[str, Any]) -> str:
    keys = "\n".join(f"  {role:<11}{path}" for role, path in value["keys"].items())
    return (
        f"project {value['project']} in {value['directory']}, genesis {value['genesis'][:12]}\n"
        f"  trust root {value['trustRoot']}\n{keys}\n"
        "keep these out of the repository; give the trust root to controllers, agents and auditors\n"
        f"next: lockgate --repo {value['directory']} controller --trust-root {value['trustRoot']} "
        f"--signing-key {value['keys']['controller']}"
    )


# --- validate --------------------------------------------------------------------------------------------


def validate(context: typer.Context, ref: RefOption = None, trust_root: RootOption = None) -> None:
    """All diagnostics of the work tree, or of a commit: --ref, else main where there is no work tree."""
    from controller.cli import render
    from controller.core.unheeded import unheeded

    options = context_of(context)
    tree = Path(options.repo)
    if ref is None and (tree / ".git").exists():
        intent, where = _work_tree(tree), f"the work tree of {tree}"
    else:
        with reading(options, trust_root) as repo:
            intent, where = _intent(repo, ref)
    found = [*intent.diagnostics, *unheeded(intent)]
    rows = [diagnostic.to_json() for diagnostic in found]
    options.answer(rows, lambda: render.diagnostics_text(rows, where))
    if any(diagnostic.severity == "error" for diagnostic in intent.diagnostics):
        raise typer.Exit(1)


def _intent(repo: GitRepo, ref: str | None) -> tuple[Intent, str]:
    from controller.uses.view import intent_at

    commit = commit_of(repo, ref)
    return intent_at(repo, commit), f"{ref or 'main'} ({commit[:8]})"


def commit_of(repo: GitRepo, ref: str | None) -> str:
    """The commit of a branch, a whole commit id, or main. Raises Invalid("ref-unknown")."""
    tips = repo.observe()
    if ref is None:
        found = tips.main
    else:
        found = repo.known(ref)
        whole = len(ref) in (40, 64) and set(ref) <= set("0123456789abcdef")
        if found is None and whole:
            repo.commit(ref)
            found = ref
    if found is None:
        raise Invalid(
            "ref-unknown",
            "there is no such branch or commit",
            where=ref or "main",
            expected="a branch, or a whole commit id",
            got=ref or "none",
            cure="push it first, or name another with --ref",
        )
    return found


def _work_tree(tree: Path) -> Intent:
    """The documents as they lie on disk: tracked files and new ones, ignored ones left out."""
    from controller.core.parse import parse, reads
    from controller.core.validate import assemble

    files = {}
    for path, mode, data in _listed(tree):
        if reads(path, mode):
            files[path] = ("0" * 40, parse(path, data, mode))
    return assemble("", files)


def _listed(tree: Path) -> Iterator[tuple[str, int, bytes]]:
    command = [
        "git",
        "-C",
        str(tree),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--full-name",
    ]
    try:
        found = subprocess.run([*command, ":/"], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(
            "repository-unreadable",
            "git cannot list the files",
            where=str(tree),
            got=type(error).__name__,
            cure="see that git works there, or name a commit with --ref",
        ) from error
    for name in sorted(set(found.stdout.split(b"\0")) - {b""}):
        path = name.decode("utf-8", "surrogateescape")
        place = tree / path
        if place.is_symlink():
            yield path, 0o120000, b""
        elif place.is_file():
            yield path, 0o100644, place.read_bytes()


# --- schema ----------------------------------------------------------------------------------------------


def schema(
    context: typer.Context,
    kind: Annotated[
        str | None, typer.Argument(help="A kind of document, or a name like cli/status.", metavar="KIND")
    ] = None,
) -> None:
    """The JSON Schema of a kind of document, of evidence, or of an answer; without KIND their names."""
    from controller.settings import data_dir

    root = data_dir("schemas")
    found = {p.relative_to(root).as_posix().removesuffix(".schema.json"): p for p in root.rglob("*.schema.json")}
    names = sorted(found)
    if kind is None:
        context_of(context).answer(names, lambda: "\n".join(names))
        return
    wanted = kind.lower().replace("-", "")
    path = next((found[name] for name in names if name.replace("-", "") == wanted), None)
    if path is None:
        raise UsageError(
            "kind-unknown",
            "there is no such kind",
            where=kind,
            expected=", ".join(name for name in names if "/" not in name),
            got=kind,
            cure="list all with `lockgate schema`",
        )
    text = path.read_text()
    context_of(context).answer(json.loads(text), lambda: text)


# --- resolve ---------------------------------------------------------------------------------------------


def resolve(
    context: typer.Context,
    release: Annotated[
        str | None, typer.Argument(help="The release; by default every one.", metavar="RELEASE")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the lock: exit code 1 if the file changed or a tag moved.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Put the locks into the work tree too; the controller commits its own.")
    ] = False,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of OCI image layouts.")] = None,
    ref: RefOption = None,
    trust_root: RootOption = None,
) -> None:
    """What a release's lock would be now, or with --check whether its lock still holds. Commits nothing."""
    from controller.cli import render
    from controller.uses.resolve import check as check_lock
    from controller.uses.resolve import report
    from controller.uses.view import intent_at, view
    from controller.wiring.controller import open_registry

    options = context_of(context)
    answers = []
    with reading(options, trust_root) as repo:
        found = view(repo)
        intent = intent_at(repo, commit_of(repo, ref)) if ref is not None else found.intent
        names = [release] if release is not None else _wanted(intent, check)
        registry = open_registry(images)
        try:
            for name in names:
                loaded = _loaded(intent, name)
                if check:
                    lock = _locked(intent, name)
                    answers.append(report(lock, check_lock(lock, loaded, registry)))
                else:
                    lock = _resolved(found, intent, name, registry)
                    answers.append(report(lock))
                    if write:
                        _write_lock(Path(options.repo), lock)
        finally:
            registry.close()
    value = answers[0] if release is not None else answers
    options.answer(value, lambda: render.resolve_text(answers, check))
    if check and any(one["moved"] or one["changed"] for one in answers):
        raise typer.Exit(1)


def _write_lock(folder: Path, lock: ReleaseLock) -> None:
    """Write a lock that does not exist yet. Raises UsageError("work-tree-missing"), Refused("lock-rewritten")."""
    from controller.model.lock import lock_bytes

    path = folder / "releases" / f"{lock.name}.lock.yaml"
    if not path.parent.is_dir():
        raise UsageError(
            "work-tree-missing",
            "there is no work tree to write to",
            where=str(folder),
            expected="a folder with releases/",
            got="none",
            cure="call it in a clone, or with --repo CLONE",
        )
    if path.exists():
        raise Refused(
            "lock-rewritten",
            "the release is locked already, and locks are written once",
            where=str(path),
            expected="no lock file",
            got="one",
            cure="use --check to compare it, or make a release of another name",
        )
    path.write_bytes(lock_bytes(lock))


def _wanted(intent: Intent, check: bool) -> list[str]:
    return sorted(set(intent.releases) & set(intent.locks)) if check else sorted(intent.releases)


def _resolved(found: View, intent: Intent, name: str, registry: Any) -> Any:
    from controller.uses.resolve import pinned_by
    from controller.uses.resolve import resolve as resolve_release

    loaded = _loaded(intent, name)
    return resolve_release(
        loaded,
        intent.components,
        registry,
        pinned=pinned_by(loaded.document, intent, found.state.environments),
        resolver_version=f"lockgate/{__version__}",
        now=now(),
    )


def _loaded(intent: Intent, name: str) -> Any:
    loaded = intent.releases.get(name)
    if loaded is None:
        raise Invalid(
            "release-unknown",
            "there is no such release",
            where=name,
            expected=", ".join(sorted(intent.releases)[-8:]) or "a release",
            got=name,
            cure=f"add releases/{name}.yaml, or name its branch with --ref",
        )
    return loaded


def _locked(intent: Intent, name: str) -> Any:
    lock = intent.locks.get(name)
    if lock is None:
        raise Invalid(
            "lock-missing",
            f"{name} has no lock to check",
            where=f"releases/{name}.lock.yaml",
            expected="a lock written by the controller",
            got="none",
            cure="see `lockgate status`: the controller locks every release on accepted main",
        )
    return lock.document
