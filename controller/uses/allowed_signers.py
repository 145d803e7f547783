"""Allowed signers for stock Git, derived from the trust root and never from the branch under audit."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from controller.core.parse import parse
from controller.core.trust import OWNERS, TRUST_NAMESPACE, Member, TrustState, VerifySsh
from controller.errors import UsageError
from controller.model.documents import Agent
from controller.model.sshwire import bare_key
from controller.model.trustroot import TrustRoot
from controller.ports import Repo
from controller.uses.trust_chain import trust_history

AGENTS = "agents"
"""What `--role` calls the agents: they are declared in files of their own, by no role of Trust."""
_SPACE = 'namespaces="lockgate-agent"'


def allowed_signers(repo: Repo, root: TrustRoot, tip: str, verify_ssh: VerifySsh, role: str | None = None) -> str:
    """The allowed-signers file (ssh-keygen(1), ALLOWED SIGNERS) of a role, or of everybody.

    Holds every key that any trust version on the chain from the root to `tip` (an accepted commit) gave to the
    role, so that old commits verify too. Raises UsageError("role-unknown") and what `trust_history` raises.
    """
    states = [state for _, state in trust_history(repo, root, tip, verify_ssh)]
    if role is not None and not any(role in state.roles for state in states):
        raise UsageError(
            "role-unknown",
            f"no trust version has a role {role}",
            expected=", ".join(sorted(states[-1].roles)),
            got=role,
            cure="choose one of these roles",
        )
    lines: dict[tuple[str, str], str] = {}
    for state in states:
        for member in _members(state, role):
            for key, span in member.spans.items():
                # The latest version decides how long a key may sign.
                lines[member.name, key] = f"{member.name} {_options(state, member, *span)} {key}"
    return "".join(f"{line}\n" for line in sorted(lines.values()))


def agent_signers(repo: Repo, root: TrustRoot, tip: str, verify_ssh: VerifySsh) -> str:
    """The agents of an accepted commit, as an allowed-signers file; authorities that certify are marked so.

    Raises what `trust_history` raises.
    """
    trust_history(repo, root, tip, verify_ssh)
    lines: list[str] = []
    for path, file in repo.files(tip, "agents/"):
        document = parse(path, repo.read(file.blob), file.mode).document
        if not isinstance(document, Agent):
            continue
        name, spec = document.metadata.name, document.spec
        options = ["cert-authority"] if spec.cert_authority else []
        lines.append(f"{name} {_line([*options, _SPACE], None, None)} {bare_key(spec.public_key)}")
        lines += [
            f"{name} {_line([_SPACE], key.valid_after, key.valid_before)} {bare_key(key.public_key)}"
            for key in spec.previous_keys
        ]
    return "".join(f"{line}\n" for line in sorted(lines))


def _members(state: TrustState, role: str | None) -> Iterable[Member]:
    return [member for name, member in state.members.items() if role is None or state.holds(name, role)]


def _options(state: TrustState, member: Member, after: datetime | None, before: datetime | None) -> str:
    signs = f"git,{TRUST_NAMESPACE}" if state.holds(member.name, OWNERS) else "git"
    return _line([f'namespaces="{signs}"'], after, before)


def _line(options: list[str], after: datetime | None, before: datetime | None) -> str:
    if after is not None:
        options.append(f'valid-after="{_time(after)}"')
    if before is not None:
        options.append(f'valid-before="{_time(before)}"')
    return ",".join(options)


def _time(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y%m%d%H%M%SZ")
