"""Project: lockgate.yaml, the root of a repository's intent."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.model.base import INTEGRAL, Document, Name, Part, PositiveDuration, Text


class Branches(Part):
    """The branches the controller observes and writes."""

    main: Text = "main"
    requests: Text = "lockgate/requests"
    evidence: Text = "lockgate/evidence"


class Defaults(Part):
    """What environments and promotions get when they say nothing."""

    gate_max_age: PositiveDuration | None = None
    expires_after: PositiveDuration | None = None


class Quotas(Part):
    """Declared, visible limits."""

    documents: Annotated[int, Field(ge=1), INTEGRAL] | None = None
    environments: Annotated[int, Field(ge=1), INTEGRAL] | None = None
    agents: Annotated[int, Field(ge=1), INTEGRAL] | None = None
    open_runs: Annotated[int, Field(ge=1), INTEGRAL] | None = None


class TimeStamping(Part):
    """Where checkpoints are time-stamped (RFC 3161). Trust pins the authority's certificate by its name."""

    authority: Name
    url: Annotated[str, Field(pattern="^https?://[!-~]+$", max_length=2048)]


class Publication(Part):
    """Where checkpoints are published (a Rekor v2 log). Trust pins the log's origin and keys by its name."""

    log: Name
    url: Annotated[str, Field(pattern="^https?://[!-~]+$", max_length=2048)]


class ProjectSpec(Part):
    """Settings of the whole project; its name is the document's."""

    display_name: Text | None = None
    branches: Branches = Branches()
    defaults: Defaults = Defaults()
    offline: bool = False
    quotas: Quotas = Quotas()
    time_stamping: TimeStamping | None = None
    publication: Publication | None = None


class Project(Document):
    """The project."""

    kind: Literal["Project"]
    spec: ProjectSpec = ProjectSpec()
