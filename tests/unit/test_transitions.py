"""The state machine: every pair of phase and event, legal or not."""

import pytest

from controller.core.transitions import ACTIONS, ENDS, OPEN, REMEMBERED, TRANSITIONS, follow
from controller.errors import Refused

PHASES = ("new", *OPEN, *ENDS)
EVENT_OF = {
    "approve": "approval",
    "reject": "rejection",
    "pause": "paused",
    "resume": "resumed",
    "abort": "aborted",
}


@pytest.mark.parametrize("event", sorted({event for _, event in TRANSITIONS}))
@pytest.mark.parametrize("phase", PHASES)
def test_every_pair(phase: str, event: str) -> None:
    target = TRANSITIONS.get((phase, event))
    if target is None:
        with pytest.raises(Refused) as caught:
            follow(phase, event, "evaluating")
        assert (caught.value.code, caught.value.got) == ("transition-illegal", event)
    elif target == REMEMBERED:
        assert follow(phase, event, "evaluating") == "evaluating"
        with pytest.raises(Refused, match="transition-illegal"):
            follow(phase, event)
    else:
        assert follow(phase, event) == target


def reachable(start: str) -> set[str]:
    found, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        targets = {t for (phase, _), t in TRANSITIONS.items() if phase == here} - {REMEMBERED}
        waiting += targets - found
        found |= targets
    return found


def test_every_end_is_reached_and_every_open_phase_ends() -> None:
    assert set(PHASES) - {"new"} <= reachable("new")
    assert all(reachable(phase) & set(ENDS) for phase in OPEN)
    assert not {phase for phase, _ in TRANSITIONS} & set(ENDS)


def test_what_is_offered_is_legal() -> None:
    assert set(ACTIONS) == set(OPEN)
    for phase, verbs in ACTIONS.items():
        for verb in verbs:
            assert (phase, EVENT_OF.get(verb, verb)) in TRANSITIONS
