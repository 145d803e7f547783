"""`receipt make` and `receipt check`: that an entry is in the log, in one file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from controller.cli.context import context_of
from controller.cli.session import PinnedOption, pinned_root, reading
from controller.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    receipt = typer.Typer(name="receipt", help="That an entry is in the log, in one file.", no_args_is_help=True)
    receipt.command("make")(make)
    receipt.command("check")(check)
    app.add_typer(receipt)


def make(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="The run.", metavar="RUN")],
    number: Annotated[
        int | None, typer.Argument(help="One entry's sequence; without it, every entry.", metavar="N")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the entries and their receipts.")] = Path(),
    trust_root: PinnedOption = None,
) -> None:
    """Write entries of a run and a receipt (.tlog-proof) for each into a folder."""
    from controller.uses.exports.receipts import receipts
    from controller.wiring.repos import verify_ssh

    root = pinned_root(trust_root)
    options = context_of(context)
    with reading(options, trust_root) as repo:
        made = receipts(repo, root, run, verify_ssh, number)
    rows: list[dict[str, Any]] = []
    out.mkdir(parents=True, exist_ok=True)
    for one in made:
        envelope, proof = out / f"{one.name}.dsse.json", out / f"{one.name}.tlog-proof"
        envelope.write_bytes(one.envelope)
        proof.write_bytes(one.receipt.dumps())
        rows.append({"index": one.receipt.index, "envelope": str(envelope), "receipt": str(proof)})
    options.answer(rows, lambda: "\n".join(f"{row['index']:>6}  {row['receipt']}" for row in rows))


def check(
    context: typer.Context,
    receipt: Annotated[Path, typer.Argument(help="The receipt.", metavar="RECEIPT")],
    envelope: Annotated[Path, typer.Argument(help="The entry that it is of.", metavar="ENVELOPE")],
    trust_root: PinnedOption = None,
) -> None:
    """Check a receipt offline, from the trust root and the entry alone; exit code 1 when it does not hold."""
    from controller.model.entry import format_time
    from controller.uses.exports.receipts import check as check_receipt
    from controller.wiring.repos import verify_ssh

    held = check_receipt(_read(receipt), _read(envelope), pinned_root(trust_root), verify_ssh)
    predicate = held.entry.predicate
    value = {
        "index": predicate.index,
        "kind": predicate.kind,
        "run": predicate.run,
        "summary": predicate.summary,
        "at": format_time(predicate.at),
        "size": held.checkpoint.size,
        "origin": held.checkpoint.origin,
        "cosignatures": held.cosignatures,
    }
    context_of(context).answer(
        value,
        lambda: f"in the log: entry {value['index']} of {value['size']} in {value['origin']}: {value['summary']}",
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            "file-unreadable",
            "the file cannot be read",
            where=str(path),
            expected="a file that `lockgate receipt make` wrote",
            got=error.strerror or "an error",
            cure="check the path and its permissions",
        ) from error
