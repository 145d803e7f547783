"""What scenes are made of."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.world_documents import document
from tests.support.worlds import Theatre

ONE = {"count": 1, "roles": {"reviewers": 1}}
TWO = {"count": 2, "roles": {"reviewers": 2}}
CEL = {"rule": {"gate": "cel", "rule": "true", "deadline": "10m"}}
SCENES: dict[str, Callable[[Stage], None]] = {}


class Stage:
    """Makes the theatre of a scenario; `crash` restarts the controller before every pass."""

    def __init__(self, crash: bool) -> None:
        self.crash = crash
        self.theatre: Theatre | None = None

    def open(self, **more: object) -> Theatre:
        self.theatre = Theatre(**more)  # type: ignore[arg-type]
        self.theatre.crash = self.crash
        return self.theatre


def scene(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
    SCENES[play.__name__] = play
    return play


def freeze(**more: object) -> bytes:
    body = {"environments": ["prod"], "from": "2026-01-05T00:00:00Z", "until": "2026-01-05T12:00:00Z"}
    return document("Freeze", "stop", reason="year end", **{**body, **more})
