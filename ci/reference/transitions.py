"""docs/reference/transitions.md: the run's state machine, from controller/core/transitions.py."""

from __future__ import annotations

from ci.reference.markdown import code, table
from ci.reference.markdown import page as whole
from controller.core.transitions import ACTIONS, ENDS, OPEN, REMEMBERED, TRANSITIONS

INTRO = """Every entry of a run is one event. A pair of phase and event that is not in the table is refused
(`transition-illegal`) and changes nothing. Source: `controller/core/transitions.py`."""


def page() -> str:
    """The page."""
    rows = sorted(TRANSITIONS.items(), key=lambda item: (_place(item[0][0]), item[0][1]))
    actions = [(code(phase), ", ".join(code(verb) for verb in ACTIONS[phase]) or "none") for phase in OPEN]
    return whole(
        "Phases of a run",
        INTRO,
        f"## Diagram\n\n{diagram()}",
        "## Every transition\n\n"
        + table(
            ("phase", "event", "next phase"),
            ((code(phase), code(event), _shown(target)) for (phase, event), target in rows),
        ),
        "## What may be asked for\n\n" + table(("phase", "requests"), actions),
        "## Ends\n\n" + ", ".join(code(phase) for phase in ENDS) + ". Every end is sealed; nothing follows it.",
    )


def diagram() -> str:
    """A Mermaid state diagram: one arrow for each pair of phases, with all events that take it."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (phase, event), target in TRANSITIONS.items():
        if target != phase:
            arrows.setdefault((phase, target), []).append(event)
    lines = ["```mermaid", "stateDiagram-v2"]
    for (phase, target), events in sorted(arrows.items(), key=lambda item: tuple(map(_place, item[0]))):
        source = "[*]" if phase == "new" else phase
        goals = ("scheduled",) if target == REMEMBERED else (target,)
        label = ", ".join(sorted(events)) + (" (to the phase it was in)" if target == REMEMBERED else "")
        lines += [f"    {source} --> {goal}: {label}" for goal in goals]
    lines += [f"    {phase} --> [*]" for phase in ENDS]
    return "\n".join([*lines, "```"])


def _place(phase: str) -> int:
    order = ("new", *OPEN, *ENDS, REMEMBERED)
    return order.index(phase)


def _shown(target: str) -> str:
    return "the phase it was in" if target == REMEMBERED else code(target)
