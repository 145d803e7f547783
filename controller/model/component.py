"""Component: something that is built as an OCI image and deployed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from controller.model.base import INTEGRAL, Document, Name, Part, PositiveDuration, SomeTexts, Text

REPOSITORY_PATTERN = (
    "^(oci-layout:[a-z0-9]+([._/-][a-z0-9]+)*|[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+)$"
)
REPOSITORY_DESCRIPTION = "An OCI repository without tag or digest, or oci-layout:NAME."
PLATFORM_PATTERN = "^[a-z0-9]+/[a-z0-9]+(/[a-z0-9.]+)?$"
HTTP_PATH_PATTERN = "^/[!-~]*$"

Repository = Annotated[Text, Field(pattern=REPOSITORY_PATTERN, max_length=512, description=REPOSITORY_DESCRIPTION)]
Platform = Annotated[Text, Field(pattern=PLATFORM_PATTERN, description="A platform such as linux/amd64.")]
HttpPath = Annotated[Text, Field(pattern=HTTP_PATH_PATTERN, description="A path that begins with a slash.")]


class Versioning(Part):
    """How versions are ordered and where in a tag they stand."""

    scheme: Literal["semver", "date", "sequential", "manual"] = "semver"
    tag_pattern: Text | None = None


class Rule(Part):
    """Which tags belong to a channel; the first rule that matches decides."""

    pattern: Text
    channel: Name
    prerelease: bool = False


class Health(Part):
    """How the agent asks whether a workload is healthy; nothing said: while the process lives."""

    http: HttpPath | None = None
    port: Name | None = None
    command: SomeTexts | None = None
    interval: PositiveDuration | None = None
    timeout: PositiveDuration | None = None


class Scrape(Part):
    """Where the workload tells its figures as Prometheus text."""

    http: HttpPath
    port: Name | None = None


class Run(Part):
    """How a workload is started. The agent assigns real ports and passes them as PORT_<NAME>."""

    command: SomeTexts | None = None
    ports: dict[Name, Annotated[int, Field(ge=1, le=65535), INTEGRAL]] = Field(default_factory=dict)
    health: Health | None = None
    metrics: Scrape | None = None
    env: dict[str, str] = Field(default_factory=dict)
    stop_timeout: PositiveDuration | None = None


class ComponentSpec(Part):
    """Where the images are, how they are versioned and run."""

    display_name: Text | None = None
    repository: Repository
    versioning: Versioning = Versioning()
    rules: Annotated[tuple[Rule, ...], Strict(False)] = ()
    default_channel: Name | None = None
    platforms: Annotated[tuple[Platform, ...], Strict(False), Field(min_length=1)] = ("linux/amd64",)
    run: Run = Run()


class Component(Document):
    """A component."""

    kind: Literal["Component"]
    spec: ComponentSpec
