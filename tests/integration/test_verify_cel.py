"""`lockgate verify` decides rules again by the real worker: a lie about one is found, and no worker is no yes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.git.keys import FileSigner
from controller.adapters.git.repo import GitRepo
from controller.core.gates import aggregate_of, decision_digest
from controller.ledger.append import load, prepare, write
from controller.ledger.log import origin_of
from controller.model.entry import Draft, Gates, Verdict
from controller.model.trustroot import TrustRoot
from tests.support.flow import HEAD, Flow, environment, flow
from tests.support.waiting import until

RISK = "risky"
POLICY = f"""{HEAD}kind: Policy
metadata: {{name: low-risk}}
spec:
  level: warn
  gate: cel
  variables: {{risk: inputs.environment.variables.risk}}
  rule: risk == 'low'
  message: the risk is {{risk}}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Flow]:
    """A run that waits for its approval: its one rule warned. No agent runs, the controller has stopped."""
    place = environment("dev", gates=["low-risk"], variables={"risk": RISK}, approvals={"count": 1})
    files = {"environments/dev.yaml": place, "policies/low-risk.yaml": POLICY}
    with flow(tmp_path, {"dev-1": "dev"}, files=files) as made:
        made.processes.start_controller(poll="1s")
        made.image("1.0.0")
        made.promote("dev", made.release("1.0.0"))
        until("the gates are decided", lambda: made.tip() and "gates" in made.kinds())
        made.stop_controller()
        yield made


def verify(shop: Flow, **environ: str) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of the command."""
    command = [sys.executable, "-P", "-m", "controller", "--repo", shop.address, "-o", "json", "verify"]
    done = subprocess.run(
        [*command, "--trust-root", str(shop.stage.trust_root)],
        capture_output=True,
        text=True,
        env=os.environ | environ,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def decide_again(shop: Flow, **verdict: Any) -> None:
    """The controller's key records the run's gates once more, with another verdict of the rule."""
    root = TrustRoot.load(shop.stage.trust_root)
    repo = GitRepo(shop.address, shop.stage.state)
    signer = FileSigner(shop.stage.keys / "controller")
    ledger = load(repo, shop.tip())
    (entries,) = ledger.open_entries.values()
    entry = next(one for one in reversed(entries) if one.kind == "gates")
    assert isinstance(entry.detail, Gates)
    verdicts = tuple(
        one.model_copy(update=verdict) if one.gate == "low-risk" else one for one in entry.detail.verdicts
    )
    aggregate, decision = aggregate_of(verdicts), decision_digest(verdicts)
    warned = any(one.verdict == "WARN" for one in verdicts)
    count = sum(1 for one in entries if one.kind == "gates")
    seen = shop.git("show", f"lockgate/evidence:{entry.path.rpartition('/')[0]}/inputs/gates-{count:02}.json")
    predicate = entry.predicate
    draft = Draft(
        kind="gates",
        at=max(one.predicate.at for one in entries),
        run=predicate.run,
        environment=predicate.environment,
        observed=predicate.observed,
        result=aggregate,
        summary=predicate.summary.replace("PASS", aggregate).replace(", 1 warning", ", 1 warning" * warned),
        who=predicate.who,
        what=predicate.what,
        why={"decision": decision, "reasons": [_reason(one) for one in verdicts if one.verdict == "WAIT"]},
        how=predicate.how,
        when=predicate.when,
        detail=Gates(stage=0, aggregate=aggregate, verdicts=verdicts, decision=decision),
        files={f"inputs/gates-{count + 1:02}.json": seen.encode()},
    )
    prepared = prepare(ledger, [draft], signer, origin_of(root.project, root.genesis))
    write(repo, prepared, ledger.commit, signer)
    repo.close()


def _reason(verdict: Verdict) -> dict[str, str]:
    return {"gate": verdict.gate, "code": verdict.code, "message": verdict.message}


def codes(answer: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in answer["findings"]]


def test_the_rule_is_decided_again(shop: Flow) -> None:
    code, answer = verify(shop)
    assert (code, answer["verified"]) == (0, True), answer
    decide_again(shop, verdict="PASS", code="rule-true", message="the risk is low")
    code, answer = verify(shop)
    assert (code, answer["verified"], codes(answer)) == (1, False, ["decision-mismatch"])
    (finding,) = answer["findings"]
    assert "gate low-risk gives WARN" in finding["message"] and finding["path"].endswith("gates.dsse.json")


def test_silence_may_last_longer_than_its_deadline_and_never_end_before_it(shop: Flow) -> None:
    """A controller that was away puts the deadline off; nobody may say that there was no answer in time yet."""
    silent = {"code": "gate-unanswered", "message": "the cel gate has not answered yet", "unblock": ""}
    now = datetime.fromisoformat(shop.entries()[-1]["at"])
    for hours in (1, 2):
        decide_again(shop, verdict="WAIT", until=now + timedelta(hours=hours), **silent)
        code, answer = verify(shop)
        assert code == 0, [one["message"] for one in answer["findings"]]
    late = {"code": "gate-timeout", "message": "no answer from the cel gate within 0:10:00", "unblock": ""}
    decide_again(shop, verdict="WARN", until=None, **late)
    code, answer = verify(shop)
    assert (code, codes(answer)) == (1, ["decision-mismatch"])
    assert "gives WAIT gate-unanswered" in answer["findings"][0]["message"]


def test_a_gate_may_not_wait_for_less_than_its_deadline(shop: Flow) -> None:
    silent = {"code": "gate-unanswered", "message": "the cel gate has not answered yet", "unblock": ""}
    now = datetime.fromisoformat(shop.entries()[-1]["at"])
    decide_again(shop, verdict="WAIT", until=now + timedelta(minutes=9), **silent)
    code, answer = verify(shop)
    assert (code, codes(answer)) == (1, ["decision-mismatch"])


def test_a_gate_whose_answer_the_controller_was_not_there_to_hear_is_asked_again(tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.mkdir()
    os.mkfifo(held / "gate")
    (held / "cel.py").write_text(f"open({str(held / 'gate')!r}).read()\nraise ImportError('let go')\n")
    place = environment("dev", gates=["low-risk"], variables={"risk": "low"})
    policy = POLICY.replace("level: warn", "level: block\n  deadline: 3s")
    files = {"environments/dev.yaml": place, "policies/low-risk.yaml": policy}
    with flow(tmp_path, {"dev-1": "dev"}, files=files) as shop:
        shop.start(environ={"PYTHONPATH": str(held)})
        shop.image("1.0.0")
        name = shop.release("1.0.0")
        shop.promote("dev", name)
        until("the gates wait", lambda: shop.tip() and "gates" in shop.kinds())
        (verdict,) = [v for v in shop.entries()[-1]["detail"]["verdicts"] if v["gate"] == "low-risk"]
        shop.kill_controller()
        (held / "gate").write_text("")  # its worker is let go, and ends
        assert verdict["code"] == "gate-unanswered"
        deadline = datetime.fromisoformat(verdict["until"])
        until("the gate's time is over", lambda: datetime.now(UTC) > deadline)
        shop.processes.start_controller(poll="1s")
        shop.ends("dev", name, "completed")
        shop.verify()


def test_without_a_worker_nothing_is_taken_for_granted(shop: Flow, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "cel.py").write_text("raise ImportError('no CEL here')\n")
    path = os.pathsep.join(filter(None, [str(broken), os.environ.get("PYTHONPATH")]))
    code, answer = verify(shop, PYTHONPATH=path)
    assert (code, answer["verified"]) == (1, False)
    assert set(codes(answer)) == {"decision-unchecked"}
    assert "low-risk could not be decided again here" in answer["findings"][0]["message"]
