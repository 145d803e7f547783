"""`controller` and `agent`: the two long-running processes."""

from __future__ import annotations

import gc
import signal
from pathlib import Path
from typing import Annotated

import typer

from controller.cli.context import context_of
from controller.cli.session import duration
from controller.settings import docker_config


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("controller")(controller)
    app.command("agent")(agent)


def controller(
    context: typer.Context,
    trust_root: Annotated[Path, typer.Option("--trust-root", help="The pinned trust root.")],
    signing_key: Annotated[
        str,
        typer.Option("--signing-key", help="The controller's key: a file, env:NAME, ssh-agent:WHICH, pkcs11:URI."),
    ],
    state_dir: Annotated[
        Path, typer.Option("--state-dir", help="Caches and health; deletable at any time.")
    ] = Path(".lockgate-state"),
    listen: Annotated[
        str | None, typer.Option("--listen", help="Address agents dial, host:port; `--once` without it has none.")
    ] = None,
    poll: Annotated[str, typer.Option("--poll", help="How often a remote origin is asked.")] = "30s",
    check_tags: Annotated[
        str, typer.Option("--check-tags", help="How often running releases' tags are looked at; 0s: never.")
    ] = "5m",
    images: Annotated[Path | None, typer.Option("--images", help="Folder of OCI image layouts.")] = None,
    log_key: Annotated[
        str | None, typer.Option("--log-key", help="What signs for a public log; by default the signing key.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Passes until nothing is left to do now.")] = False,
) -> None:
    """Watch the repository, decide, record and roll out."""
    from controller.wiring.controller import Controller, ControllerSettings

    _log_to_stderr()
    made = Controller(
        ControllerSettings(
            repo=context_of(context).repo,
            trust_root=trust_root,
            signing_key=signing_key,
            state_dir=state_dir,
            listen=listen or (None if once else "127.0.0.1:7420"),
            poll=duration("--poll", poll),
            check_tags=duration("--check-tags", check_tags),
            images=images,
            log_key=log_key,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: made.stop())
    _settle()
    if once:
        made.run_once()
    else:
        made.run()


def agent(
    trust_root: Annotated[Path, typer.Option("--trust-root", help="The pinned trust root.")],
    name: Annotated[str, typer.Option("--name", help="The agent's name, as declared in Git.")],
    environment: Annotated[str, typer.Option("--environment", help="The only environment it takes orders for.")],
    key: Annotated[
        str, typer.Option("--key", help="The agent's key: a file, env:NAME, ssh-agent:WHICH, pkcs11:URI.")
    ],
    controller: Annotated[str, typer.Option("--controller", help="The controller's address.")],
    directory: Annotated[Path, typer.Option("--dir", help="The target's root: versions, sticker, journal.")],
    images: Annotated[Path | None, typer.Option("--images", help="Folder of OCI image layouts.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", help="Only these image repositories; `*` at the end is any.")
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", help="The key's certificate (ssh-keygen -s), renewed in place."),
    ] = None,
    stop_services: Annotated[
        bool, typer.Option("--stop-services", help="Stop the services too when the agent stops.")
    ] = False,
    witnesses: Annotated[
        int,
        typer.Option("--witnesses", min=0, help="Take orders only from a log that so many other agents cosigned."),
    ] = 0,
    require_approvals: Annotated[
        int,
        typer.Option(
            "--require-approvals", min=0, help="Take only what so many people approved, whatever main asks for."
        ),
    ] = 0,
) -> None:
    """Carry out a controller's orders on this machine and report what happens."""
    from controller.agent.main import AgentSettings, run_agent

    settings = AgentSettings(
        trust_root=trust_root,
        name=name,
        environment=environment,
        key=key,
        controller=controller,
        directory=directory,
        images=images,
        allow=tuple(allow or ()),
        docker_config=docker_config(),
        stop_services=stop_services,
        certificate=certificate,
        witnesses=witnesses,
        approvals=require_approvals,
    )
    _settle()
    raise typer.Exit(run_agent(settings))


def _settle() -> None:
    """From here on garbage is looked for as often as Python does: a process that stays must stay small. What is
    loaded by now is none."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 10)


def _log_to_stderr() -> None:
    """One JSON line an event on standard error: what was recorded, what failed."""
    import sys

    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
