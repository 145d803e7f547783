"""The terms of the owners' in-toto layout, from what main declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from controller.core.demand import Demand, demand_of
from controller.core.parse import parse
from controller.core.trust import CONTROLLER, OWNERS, TrustState
from controller.errors import Invalid
from controller.model.agent import Agent
from controller.model.documents import TRUST_PATH
from controller.model.layout import FOREVER, LayoutTerms
from controller.model.link import LAYOUT_PATH
from controller.model.sshwire import bare_key
from controller.ports import Repo


def layout_path(environment: str | None) -> str:
    """Where the layout of every environment, or of one, stands on main."""
    return LAYOUT_PATH if environment is None else f"{LAYOUT_PATH.removesuffix('.json')}/{environment}.json"


def demand_at(repo: Repo, main: str, environment: str) -> Demand | None:
    """The approvers' links that the layout of an environment demands, as a commit of main has it."""
    for path in (layout_path(environment), layout_path(None)):
        file = repo.file(main, path)
        if file is not None:
            return demand_of(path, repo.read(file.blob))
    return None


def certified_agents(agents: Iterable[Agent], environment: str | None) -> list[str]:
    """The agents (of one environment) that no layout can name: an authority certifies their keys."""
    return sorted(
        agent.metadata.name
        for agent in agents
        if agent.spec.cert_authority and environment in (None, agent.spec.environment)
    )


def terms_of(
    trust: TrustState,
    project: str,
    agents: Iterable[Agent],
    *,
    environment: str | None = None,
    deployed_by: int = 1,
    approvers: str | None = None,
    approved_by: int = 1,
    expires: datetime = FOREVER,
) -> LayoutTerms:
    """Who may sign which link: controllers and approvers by their roles, every agent (of one environment).

    Agents whose keys are certified by an authority are left out: what they will sign with is not known yet.
    Raises Invalid("role-unknown"), Invalid("environment-unknown") when the environment has no agent, and
    Invalid("layout-agents") when the layout could name none of those that there are.
    """
    people = None
    if approvers is not None:
        people = _members(trust, approvers)
        if not people:
            raise Invalid(
                "role-unknown",
                f"nobody holds the role {approvers} in trust version {trust.version}",
                where="--approvers",
                expected=", ".join(sorted(trust.roles)),
                got=approvers,
                cure="name a role whose members approve",
            )
    here = [agent for agent in agents if environment in (None, agent.spec.environment)]
    certified = tuple(certified_agents(here, environment))
    found = {
        agent.metadata.name: bare_key(agent.spec.public_key) for agent in here if not agent.spec.cert_authority
    }
    if certified and not found:
        raise Invalid(
            "layout-agents",
            "no layout can name these agents: an authority certifies their keys, which nobody knows beforehand",
            where=f"agents/ of {environment}" if environment is not None else "agents/",
            expected="at least one agent with a key of its own",
            got=", ".join(certified),
            cure="declare one with a key of its own; `lockgate verify` checks the links of certified ones",
        )
    if environment is not None and not found:
        raise Invalid(
            "environment-unknown",
            "no agent is declared there",
            where="--environment",
            expected="an environment with agents",
            got=environment,
            cure="declare its agents under agents/ first",
        )
    return LayoutTerms(
        project=project,
        controllers=_members(trust, CONTROLLER),
        agents=dict(sorted(found.items())),
        deployed_by=deployed_by,
        approvers=people,
        approved_by=approved_by,
        environment=environment,
        expires=expires,
        certified=certified,
    )


def first_terms(project: str, files: Mapping[str, bytes]) -> LayoutTerms:
    """The terms of a new project's layout, from its files: every agent, and one of them is enough."""
    documents = (parse(path, data).document for path, data in files.items() if path.startswith("agents/"))
    agents = [document for document in documents if isinstance(document, Agent)]
    return terms_of(TrustState.parse(files[TRUST_PATH]), project, agents)


def owners_keys(trust: TrustState) -> dict[str, str]:
    """OpenSSH key → owner."""
    return {key: name for name, keys in _members(trust, OWNERS).items() for key in keys}


def _members(trust: TrustState, role: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(trust.members[name].keys) for name in sorted(trust.roles.get(role, ()))}
