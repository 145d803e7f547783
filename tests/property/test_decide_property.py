"""Whatever agents, people and the clock do: `decide` never raises and its history keeps its invariants."""

from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.world_checks import check_invariants
from tests.support.world_documents import canary
from tests.support.worlds import Theatre

VERBS = ("approve", "reject", "pause", "resume", "abort", "rollback", "continue")
EVENTS = st.one_of(
    st.tuples(st.just("promote"), st.integers(1, 4)),
    st.tuples(st.just("ask"), st.sampled_from(VERBS), st.sampled_from(("olga", "bob", "carol", "alice"))),
    st.tuples(st.just("wait"), st.sampled_from((1, 10, 40, 400, 4000))),
    st.tuples(st.just("orders"), st.integers(1, 4), st.sampled_from(("ok", "boom", None))),
    st.tuples(st.just("samples"), st.integers(1, 4), st.sampled_from((0, 60)), st.booleans(), st.booleans()),
    st.tuples(st.just("refuse")),
    st.tuples(st.just("pass")),
)


def play(t: Theatre, event: tuple[object, ...]) -> None:
    match event:
        case ("promote", n):
            t.promote(f"shop-{n}")
        case ("ask", verb, by):
            run = t.runs.get("prod")
            binds = run.inputs.approval_subject if run and run.inputs and verb == "approve" else None
            t.ask(str(verb), str(by), binds=binds)
        case ("wait", int(seconds)):
            t.wait(timedelta(seconds=seconds))
        case ("orders", n, code):
            t.agents[f"prod-{n}"].orders = lambda order, times: code  # type: ignore[return-value]
        case ("samples", n, int(errors), healthy, mute):
            agent = t.agents[f"prod-{n}"]
            agent.errors, agent.healthy, agent.mute = errors, bool(healthy), bool(mute)
        case ("refuse",):
            t.refuse()
        case _:
            t.pass_()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(EVENTS, max_size=14), st.booleans(), st.booleans())
def test_any_history_holds(events: list[tuple[object, ...]], approvals: bool, crash: bool) -> None:
    needed = {"count": 2, "roles": {"reviewers": 2}} if approvals else {}
    t = Theatre(agents=4, strategy=canary(25, 100), approvals=needed)
    t.crash = crash
    if not approvals:
        t.complete("shop-1")
    for event in events:
        play(t, event)
    t.settle()
    check_invariants(t)
    t.restart()
    assert not t.decided().drafts
