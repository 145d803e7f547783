"""What an agent takes from a controller's key: only what people approved, by objects that prove themselves.

The honest orders are those that a controller gave for a real repository; each attack is what the holder of its
key, and of the origin, could send instead.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.adapters.git import sshsig
from controller.adapters.git.keys import FileSigner
from controller.adapters.git.objects import parse_commit
from controller.adapters.git.people import swap, write_commit
from controller.core.authority import Authority, Rules, Standpoint, authority_of, content_of
from controller.core.chain import tree_entries
from controller.core.trust import TrustState
from controller.errors import Refused
from controller.ledger import dsse
from controller.ledger.canonical import parse
from controller.model.lock import manifest_digest
from controller.model.order import Approving, ExecProbe, Order, OrderCheck, PreparedOrder
from controller.uses.approving import Bundle
from controller.uses.view import view
from controller.wiring.people import Ask, commit_on, merge_branch, request
from tests.support.flow import SOURCE, Flow, environment
from tests.support.site import Site, quiet

ROLES = {"count": 2, "roles": {"reviewers": 1, "operators": 1}, "expiresAfter": "48h"}
LEAP = {"kind": "deny", "schedule": "0 0 29 2 *", "duration": "1h"}
"""Nothing is changed in an hour that leap years have."""
TRUST = (
    (SOURCE / "trust" / "trust.yaml.j2")
    .read_text()
    .replace("replay]\n        reviewers", "approve]\n        reviewers")
)


@dataclass
class Given:
    """A repository with an open run in prod, and the order that web-1 was given."""

    flow: Flow
    site: Site
    prepared: PreparedOrder
    order: Order
    sent: Approving

    @property
    def trust(self) -> TrustState:
        main = self.flow.people.observe().main or ""
        file = self.flow.people.file(main, "trust/trust.yaml")
        assert file is not None
        return TrustState.parse(self.flow.people.read(file.blob))

    def own(self, **changes: Any) -> Standpoint:
        now = datetime.now(UTC)
        values: dict[str, Any] = {
            "project": "shop",
            "ref": "refs/heads/main",
            "trust": self.trust,
            "verify_ssh": sshsig.verify,
            "read_commit": parse_commit,
            "now": now,
            "ran": lambda _content: False,
            "first_seen": lambda _commit: now,
        }
        return Standpoint(**{**values, **changes})

    def judge(self, order: Order | None = None, sent: Approving | None = None, **own: Any) -> Authority:
        return authority_of(order or self.order, self.sent if sent is None else sent, self.own(**own))

    def refuses(self, order: Order | None = None, sent: Approving | None = None, **own: Any) -> str:
        with pytest.raises(Refused) as caught:
            self.judge(order, sent, **own)
        assert caught.value.code == "order-unapproved"
        return str(caught.value)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    folder = tmp_path_factory.mktemp("authority")
    files = {
        "environments/prod.yaml": environment(
            "prod", approvals=ROLES, variables={"LEVEL": "info"}, windows=[LEAP]
        ),
        "environments/staging.yaml": environment("staging", approvals={"count": 1}),
        "trust/trust.yaml.j2": TRUST,
    }
    flow = Flow(folder, {"web-1": "prod", "stg-1": "staging"}, files=files)
    site = Site(folder)
    delivered: list[PreparedOrder] = []
    controller = site.controller()
    controller.hub.deliver = delivered.extend  # type: ignore[method-assign]
    try:
        flow.image("1.0.0")
        release = flow.release("1.0.0")
        assert quiet(controller) == ""
        flow.promote("prod", release)
        assert quiet(controller) == ""
        approve(flow, "olga")
        assert quiet(controller) == ""
        (prepared,) = delivered
        assert prepared.approving is not None
        order = Order.model_validate(parse(dsse.split(prepared.envelope).payload))
        yield Given(flow, site, prepared, order, prepared.approving)
    finally:
        controller.close()
        flow.people.close()


def approve(flow: Flow, who: str, environment: str = "prod", **changes: Any) -> str:
    """Somebody's signed approval of the open run; the request's commit."""
    run = view(flow.people).runs[environment]
    assert run.inputs is not None
    ask = Ask("approve", environment, "tested", run.id, binds=run.inputs.approval_subject)
    return request(flow.people, flow.stage.person(who), "shop", replace(ask, **changes))[1]


def joined(*parts: Approving, **changes: Any) -> Approving:
    """The first one's words with the objects of all."""
    objects: dict[str, Any] = {
        kind: sorted({one for part in parts for one in getattr(part, kind)})
        for kind in ("commits", "trees", "blobs")
    }
    return parts[0].model_copy(update={**objects, **changes})


# --- the honest order ------------------------------------------------------------------------------------


def test_an_order_that_two_roles_approved_is_taken(given: Given) -> None:
    found = given.judge()
    assert found.content == content_of(given.order)
    assert found.rules is not None
    assert len(found.approvals) == 2  # bob's merge and olga's request
    assert sum(map(len, given.sent.commits + given.sent.trees + given.sent.blobs)) < 40_000


@pytest.mark.parametrize("how", ["left out", "changed"])
def test_every_object_is_needed_as_it_is(given: Given, how: str) -> None:
    """All but those of the strategy, which are for check orders."""
    people = given.flow.people
    entries = tree_entries(people.raw(people.commit(given.sent.vouched["strategies/prod.yaml"]).tree)[1]) or {}
    folder = people.raw(entries[b"strategies"][1])[1]
    needless = {folder, people.raw((tree_entries(folder) or {})[b"prod.yaml"][1])[1]}
    for kind in ("commits", "trees", "blobs"):
        for place, text in enumerate(getattr(given.sent, kind)):
            data = bytearray(base64.b64decode(text))
            if bytes(data) in needless:
                continue
            data[len(data) // 2] ^= 1
            objects = list(getattr(given.sent, kind))
            objects[place : place + 1] = [base64.b64encode(bytes(data)).decode()] if how == "changed" else []
            given.refuses(sent=given.sent.model_copy(update={kind: objects}))


# --- what a stolen controller's key can say --------------------------------------------------------------


def other_digest(order: Order) -> Order:
    digest = "sha256:" + "0" * 64
    parts = {name: part.model_copy(update={"digest": digest}) for name, part in order.components.items()}
    manifest = manifest_digest({name: part.digest for name, part in parts.items()})
    return order.model_copy(update={"components": parts, "manifest_digest": manifest})


def edited(order: Order, **changes: Any) -> Order:
    parts = {name: part.model_copy(update=changes) for name, part in order.components.items()}
    return order.model_copy(update={"components": parts})


ORDERS: dict[str, Callable[[Order], Order]] = {
    "unapproved digest": other_digest,
    "unapproved digest under the approved manifest": lambda o: edited(o, digest="sha256:" + "1" * 64),
    "another repository": lambda o: edited(o, repository="oci-layout:evil"),
    "another command": lambda o: edited(o, run={"command": ["sh", "-c", "evil"]}),
    "another role": lambda o: edited(o, role="migration"),
    "a component left out": lambda o: o.model_copy(update={"components": {}}),
    "one component more": lambda o: o.model_copy(
        update={"components": {**o.components, "evil": next(iter(o.components.values()))}}
    ),
    "other variables": lambda o: o.model_copy(update={"variables": {"LD_PRELOAD": "/tmp/evil.so"}}),
    "another release": lambda o: o.model_copy(update={"release": "shop-9.9.9"}),
    "another target": lambda o: o.model_copy(update={"target": "web-9"}),
    "a rollback to what never ran": lambda o: other_digest(o).model_copy(update={"action": "rollback"}),
    "a check that runs a command": lambda o: o.model_copy(
        update={"action": "check", "checks": (OrderCheck(exec=ExecProbe(command=("evil",))),)}
    ),
}


@pytest.mark.parametrize("what", ORDERS)
def test_an_order_that_says_otherwise_than_was_approved(given: Given, what: str) -> None:
    given.refuses(ORDERS[what](given.order))


def test_nothing_carried(given: Given) -> None:
    given.refuses(sent=Approving())
    only_rules = given.sent.model_copy(update={"promotion": None, "requests": [], "binding": None})
    given.refuses(sent=only_rules)


def test_an_approved_digest_in_another_environment(given: Given) -> None:
    elsewhere = given.order.model_copy(update={"environment": "staging", "target": "stg-1"})
    given.refuses(elsewhere)
    # with staging's own signed rules, which ask for one approval that prod's objects do not give
    made = Bundle(given.flow.people)
    assert given.sent.promotion is not None
    path = "environments/staging.yaml"
    file = given.flow.people.file(given.sent.promotion, path)
    assert file is not None
    made.path(given.sent.promotion, path)
    made.blob(file.blob)
    sent = joined(given.sent, made.approving(), vouched={**given.sent.vouched, path: given.sent.promotion})
    assert "promotions/staging.yaml" in given.refuses(elsewhere, sent)


def test_too_few_approvals(given: Given) -> None:
    assert "operators" in given.refuses(sent=given.sent.model_copy(update={"requests": []}))
    twice = given.sent.model_copy(update={"requests": [*given.sent.requests, *given.sent.requests]})
    given.refuses(sent=twice, least=3)


def test_approvals_bound_to_something_else(given: Given) -> None:
    binding = given.sent.binding
    assert binding is not None
    for changes in (
        {"targets": [*binding.targets, "web-9"]},
        {"targets": []},
        {"policies": ["0" * 40]},
        {"lock": "sha256:" + "0" * 64},
        {"environment": "0" * 40},
        {"slot": "0" * 40},
        {"promotion_commit": "0" * 40},
        {"trust_version": 7},
    ):
        given.refuses(sent=given.sent.model_copy(update={"binding": binding.model_copy(update=changes)}))
    given.refuses(sent=given.sent.model_copy(update={"binding": None}))


def test_rules_that_nobody_signed(given: Given) -> None:
    """An environment that asks for nothing, in a commit by the controller's key, by nobody, and by a developer."""
    people, path = given.flow.people, "environments/prod.yaml"
    main = people.observe().main
    assert main is not None
    lax = {path: environment("prod", variables={"LEVEL": "info"}).encode()}
    for who in ("controller", None, "alice"):
        signer = FileSigner(given.flow.stage.keys / who) if who else None
        oid = write_commit(
            people,
            (main,),
            lax,
            message="Lax",
            author=("x", "x@example.com"),
            when=datetime.now(UTC),
            signer=signer,
        )
        made = Bundle(people)
        made.path(oid, path)
        file = people.file(oid, path)
        assert file is not None
        made.blob(file.blob)
        sent = joined(given.sent, made.approving(), vouched={**given.sent.vouched, path: oid})
        assert "may decide about" in given.refuses(sent=sent)
        unapproved = other_digest(given.order)
        given.refuses(unapproved, sent.model_copy(update={"promotion": None, "requests": [], "binding": None}))


def test_rules_and_promotions_never_go_back(given: Given) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    assert "older" in given.refuses(rules=Rules("0" * 40, later))
    assert "older" in given.refuses(promoted=later)
    rollback = given.order.model_copy(update={"action": "rollback"})
    assert given.judge(rollback, promoted=later, rules=Rules("0" * 40, later)).promoted is None


@pytest.mark.parametrize(
    ("hour", "taken"), [("23:59", True), ("00:03", True), ("00:20", False), ("00:54", False), ("00:56", True)]
)
def test_outside_the_windows_nothing_is_taken_but_the_way_back(given: Given, hour: str, taken: bool) -> None:
    """A stage that began within the windows has until its deadline, and clocks differ."""
    day = "2028-02-28" if hour > "12" else "2028-02-29"
    now = datetime.fromisoformat(f"{day}T{hour}:00+00:00")
    own: dict[str, Any] = {"now": now, "first_seen": lambda _: now}
    if taken:
        assert given.judge(**own).approvals
    else:
        with pytest.raises(Refused, match="deny 0 0 29 2") as caught:
            given.judge(**own)
        assert caught.value.code == "order-outside-window"
        # Who leaves the strategy out, by which the stage's time is known, gains nothing.
        left = {path: oid for path, oid in given.sent.vouched.items() if not path.startswith("strategies/")}
        assert "strategies/" in given.refuses(sent=given.sent.model_copy(update={"vouched": left}), **own)
    rollback = given.order.model_copy(update={"action": "rollback"})
    assert given.judge(rollback, **own).approvals


def test_what_ran_here_may_be_gone_back_to_without_asking(given: Given) -> None:
    rollback = given.order.model_copy(update={"action": "rollback"})
    assert (
        given.judge(rollback, Approving(), ran=lambda content: content == content_of(given.order)) == Authority()
    )
    given.refuses(rollback, Approving())


def test_a_check_order_teaches_nothing(given: Given) -> None:
    check = other_digest(given.order).model_copy(update={"action": "check"})
    assert given.judge(check, Approving()) == Authority()


# --- who approves ----------------------------------------------------------------------------------------


def promotion(
    given: Given, merged_by: str, written_by: str = "alice", base: str | None = None, **more: Any
) -> str:
    """Another promotion of the same release, not on main; the merge's id."""
    people, stage = given.flow.people, given.flow.stage
    main = base or people.observe().main
    assert main is not None
    slot = people.read(people.file(given.sent.promotion or "", "promotions/prod.yaml").blob)  # type: ignore[union-attr]
    branch = f"p-{datetime.now(UTC).timestamp()}"
    commit_on(
        people, branch, stage.person(written_by), {"promotions/prod.yaml": slot + b"# again\n"}, "p", base=main
    )
    target = f"refs/heads/t-{branch}"
    swap(people, target, None, main)
    return merge_branch(
        people, branch, stage.person(merged_by), into=target.removeprefix("refs/heads/"), message="m"
    )


def carrying(given: Given, merge: str) -> Approving:
    made = Bundle(given.flow.people)
    made.step(merge, "promotions/prod.yaml")
    commit = given.flow.people.commit(merge)
    made.path(commit.parents[0], f"releases/{given.order.release}.lock.yaml")
    slot = given.flow.people.file(merge, "promotions/prod.yaml")
    assert slot is not None
    made.blob(slot.blob)
    return joined(given.sent, made.approving(), promotion=merge)


def test_another_merge_takes_no_approval_along(given: Given) -> None:
    merge = promotion(given, "carol")
    given.refuses(sent=carrying(given, merge))
    assert "approval-void" in given.refuses(sent=carrying(given, merge).model_copy(update={"binding": None}))


@pytest.mark.parametrize(
    ("written", "merged", "code"),
    [("bob", "bob", "self-approval"), ("alice", "dave", "approver-not-in-role")],
    ids=["by its author", "by somebody who may not"],
)
def test_a_merge_that_approves_nothing(given: Given, written: str, merged: str, code: str) -> None:
    merge = promotion(given, merged, written)
    assert code in given.refuses(sent=carrying(given, merge))


def test_a_merge_from_before_the_lock(given: Given) -> None:
    people = given.flow.people
    at = people.observe().main or ""
    lock = f"releases/{given.order.release}.lock.yaml"
    while people.file(at, lock) is not None:
        at = people.commit(at).parents[0]
    merge = promotion(given, "bob", base=at)
    sent = carrying(given, merge).model_copy(update={"binding": None, "requests": []})
    assert lock in given.refuses(sent=sent)


def timed(trust: TrustState, name: str, end: datetime) -> TrustState:
    """The trust with an end to somebody's keys."""
    spec = trust.document.spec
    principal = spec.principals[name].model_copy(update={"valid_before": end})
    people = {**spec.principals, name: principal}
    document = trust.document.model_copy(update={"spec": spec.model_copy(update={"principals": people})})
    return TrustState.of(document)


def revoked(trust: TrustState, name: str) -> TrustState:
    spec = trust.document.spec
    people = {other: one for other, one in spec.principals.items() if other != name}
    document = trust.document.model_copy(update={"spec": spec.model_copy(update={"principals": people})})
    return TrustState.of(document)


@pytest.mark.parametrize("who", ["bob", "olga"])
def test_an_expired_or_revoked_reviewer(given: Given, who: str) -> None:
    now = datetime.now(UTC)
    given.refuses(trust=revoked(given.trust, who))
    good = timed(given.trust, who, now + timedelta(hours=1))
    assert given.judge(trust=good).approvals
    said = given.refuses(trust=good, now=now + timedelta(hours=1))
    assert ("key-expired" in said) == (who == "olga")  # bob's signature vouches for the documents too


def test_an_approval_runs_out_from_when_it_was_first_seen(given: Given) -> None:
    now = datetime.now(UTC)
    assert given.judge(now=now + timedelta(hours=47), first_seen=lambda _: now).approvals
    assert "approval-expired" in given.refuses(now=now + timedelta(hours=49), first_seen=lambda _: now)
    # ... but what it was given for may be gone back to
    rollback = given.order.model_copy(update={"action": "rollback"})
    assert given.judge(rollback, now=now + timedelta(hours=49), first_seen=lambda _: now).approvals


def test_a_request_counts_for_what_its_own_commit_adds(given: Given) -> None:
    """carol's later request stands on olga's: its tree holds olga's approval, under carol's signature."""
    people, stage = given.flow.people, given.flow.stage
    oid = request(people, stage.person("carol"), "shop", Ask("reject", "prod", "not today"))[1]
    made = Bundle(people)
    made.request(oid)
    sent = joined(given.sent, made.approving(), requests=[oid])
    assert "that approves" in given.refuses(sent=sent)
    later = [blob for blob in sent.blobs if b'"reject"' not in base64.b64decode(blob)]
    assert "the file that the request's commit adds" in given.refuses(
        sent=sent.model_copy(update={"blobs": later})
    )


def test_a_first_commit_and_a_huge_load_are_refusals_too(given: Given) -> None:
    people = given.flow.people
    slot = {"promotions/prod.yaml": b"x"}
    oid = write_commit(
        people, (), slot, message="r", author=("x", "x@example.com"), when=datetime.now(UTC), signer=None
    )
    made = Bundle(people)
    made.path(oid, "promotions/prod.yaml")
    given.refuses(sent=joined(given.sent, made.approving(), promotion=oid))
    given.refuses(sent=given.sent.model_copy(update={"blobs": [*given.sent.blobs, "A" * (6 << 20)]}))
