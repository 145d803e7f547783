"""The owners' word on how evidence goes on after it was lost: `trust/restart/<n>.json` on main."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.model.wire import GitId, Maybe, Sha256, Time, Wire

RESTART_FOLDER = "trust/restart"
_Root = Annotated[str, Field(pattern=r"^([A-Za-z0-9+/]{43}=)?$")]
_Lost = Annotated[str, Field(pattern="^[0-9a-f]{7,40}$")]


class VouchedLock(Wire):
    """A lock file on main whose record is lost: owners say that the controller made it."""

    release: str
    path: str
    manifest_digest: Sha256
    sha256: Sha256
    components: dict[str, Sha256]


class VouchedRevert(Wire):
    """A slot that the controller took back on main by a run whose record is lost; `blob` is absent where the slot
    was removed."""

    run: str
    path: str
    blob: Maybe[GitId]


class VouchedCommit(Wire):
    """A refused commit of main that owners let stand, with its code: the record of that is lost."""

    commit: GitId
    code: str


class Restart(Wire):
    """The `number`-th restart of a project's evidence.

    `evidence` is the newest commit that survives, the branch's tip (absent: nothing does), and `size` and `root`
    (base64) are those of its log. `lost` is the tip that the controller remembers and misses, or its first
    characters. `main` is the commit up to which `locks`, `reverts` and `acknowledged` name what the controller and
    owners did about main and evidence no longer tells; `requests` the request up to which verdicts were given, be
    they lost.
    """

    api_version: Literal["lockgate.dev/v1"] = "lockgate.dev/v1"
    kind: Literal["EvidenceRestart"] = "EvidenceRestart"
    number: Annotated[int, Field(ge=1, le=1_000_000)]
    project: str
    genesis: GitId
    trust_version: Annotated[int, Field(ge=1)]
    evidence: Maybe[GitId]
    size: Annotated[int, Field(ge=0)]
    root: _Root
    lost: Maybe[_Lost]
    main: GitId
    requests: Maybe[GitId]
    locks: tuple[VouchedLock, ...] = ()
    reverts: tuple[VouchedRevert, ...] = ()
    acknowledged: tuple[VouchedCommit, ...] = ()
    reason: Annotated[str, Field(min_length=1, max_length=4096)]
    at: Time


class RestartProof(Wire):
    """A restart and the signatures over it by principal (SSHSIG, armored), for those who check it themselves."""

    restart: Restart
    signatures: dict[str, str]


def restart_path(number: int) -> str:
    """Where the n-th restart stands on main."""
    return f"{RESTART_FOLDER}/{number}.json"


def restart_signature_path(number: int, principal: str) -> str:
    """Where an owner's detached signature over it stands."""
    return f"{RESTART_FOLDER}/{number}/{principal}.sig"
