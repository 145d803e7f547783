"""The trust root: the one file that everything else is derived from, kept outside the repository it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from controller.errors import Invalid, UsageError

_OID = Field(pattern="^[0-9a-f]{40}([0-9a-f]{24})?$")
_REF = Field(pattern=r"^refs/[!-~]+$")


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, validate_by_name=True
    )


class RootRefs(_Part):
    """Full ref names of the three branches."""

    main: Annotated[str, _REF] = "refs/heads/main"
    requests: Annotated[str, _REF] = "refs/heads/lockgate/requests"
    evidence: Annotated[str, _REF] = "refs/heads/lockgate/evidence"


class RootCheckpoint(_Part):
    """The least state of the log to start from: its size and Merkle root (base64)."""

    size: Annotated[int, Field(ge=1)]
    root: Annotated[str, Field(min_length=1)]


class TrustRoot(_Part):
    """Project, genesis commit and ref names; optionally a minimum checkpoint."""

    project: Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=128)]
    genesis: Annotated[str, _OID]
    refs: RootRefs = RootRefs()
    checkpoint: RootCheckpoint | None = None

    def dumps(self) -> str:
        """The file's text, stable for equal roots."""
        body: dict[str, Any] = self.model_dump(by_alias=True, exclude_none=True)
        return json.dumps(body, indent=2, sort_keys=True) + "\n"

    def save(self, path: Path) -> None:
        """Write the file; an existing one is replaced."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.dumps())

    @classmethod
    def loads(cls, text: str | bytes, where: str = "trust-root.json") -> TrustRoot:
        """A root from its text. Raises Invalid("trust-root-malformed") naming the first field at fault."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the file"
            raise Invalid(
                "trust-root-malformed",
                f"{place}: {first['msg']}",
                where=where,
                expected="project, genesis and refs as `lockgate init` writes them",
                got=repr(first.get("input"))[:80],
                cure="take the trust-root.json that `lockgate init` wrote",
            ) from error

    @classmethod
    def load(cls, path: Path) -> TrustRoot:
        """Read the file. Raises UsageError("trust-root-missing"), Invalid("trust-root-malformed")."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(
                "trust-root-missing",
                "the trust root cannot be read",
                where=str(path),
                expected="a readable file",
                got=error.strerror or "an error",
                cure="pass --trust-root with the trust-root.json that `lockgate init` wrote",
            ) from error
        return cls.loads(data, str(path))
