"""The checks that a strategy asks for after the last stage, run against the services of this target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.agent.drivers.services import Service
from controller.agent.probe import check_command, http_status
from controller.errors import Refused
from controller.model.order import ExecProbe, HttpProbe, OrderCheck

SECONDS = 10.0
"""How long one check may take."""


def run_checks(checks: Sequence[OrderCheck], services: Mapping[str, Service]) -> None:
    """Run every check. Raises Refused("check-failed") at the first that does not hold; a check that applies to
    no service does not hold either."""
    for check in checks:
        if check.http is not None:
            _http(check.http, services)
        if check.exec is not None:
            _exec(check.exec, services)


def _http(probe: HttpProbe, services: Mapping[str, Service]) -> None:
    asked = 0
    for name, service in _named(probe.component, services).items():
        port = service.port(probe.port)
        if port is None:
            continue
        asked += 1
        status = http_status(port, probe.path, SECONDS)
        if status != probe.expect:
            got = f"status {status}" if status is not None else "no answer"
            raise _failed(f"GET {probe.path} of {name}", f"status {probe.expect}", got)
    if not asked:
        raise _failed(f"GET {probe.path}", "a service with the port it names", "none")


def _exec(probe: ExecProbe, services: Mapping[str, Service]) -> None:
    chosen = _named(probe.component, services)
    for name, service in chosen.items():
        if not check_command(probe.command, Path(service.directory), service.environment(), SECONDS):
            raise _failed(f"{' '.join(probe.command)} of {name}", "exit status 0", "another, or no end in time")
    if not chosen:
        raise _failed(" ".join(probe.command), f"a service {probe.component}", "none")


def _named(component: str | None, services: Mapping[str, Service]) -> Mapping[str, Service]:
    if component is None:
        return services
    return {component: services[component]} if component in services else {}


def _failed(where: str, expected: str, got: str) -> Refused:
    return Refused(
        "check-failed",
        "a check of the strategy does not hold",
        where=where,
        expected=expected,
        got=got,
        cure="look at the service's log on the target",
    )
