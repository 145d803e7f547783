"""The golden history: what a real controller, real agents and people left under the rules as they are.

`python -m tests.support.golden` makes it anew, which is right only before the first release: afterwards histories
like it stand in other people's repositories, and have to be verified for ever.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel

from controller.demo.processes import Load
from controller.demo.stage import slot_file
from controller.demo.story import BUSY, QUIET
from controller.ledger import cursors, fold, marks, statement
from controller.ledger.rules import RULES
from controller.model import (
    base,
    entry,
    environment,
    eventdetails,
    link,
    lock,
    order,
    release,
    request,
    restart,
    rundetails,
    strategy,
    wire,
)
from controller.wiring.people import Ask, commit_on, merge_branch, restore
from controller.wiring.people import request as ask
from tests.support.flow import HEAD, Flow, flow
from tests.support.flow import environment as environment_file
from tests.support.flow import strategy as strategy_file
from tests.support.real_run import lockgate
from tests.support.waiting import until

FOLDER = Path(__file__).parents[1] / "fixtures" / "golden"
BUNDLE, ROOT, COUNTS, MEMBERS = (
    FOLDER / name for name in ("history.bundle", "trust-root.json", "counts.json", "members.json")
)
CHANGED = (
    "What was written under these rules is no longer what verification expects. Raise RULES in "
    "controller/ledger/rules.py and keep the former rules for the entries that name them. Before the first "
    "release, `python -m tests.support.golden` makes the golden history anew instead."
)
AGENTS = {"dev-1": "dev", "dev-2": "dev", "prod-1": "prod"}
_ERRORS = {"source": "agents", "metric": "error_rate", "successWhen": "value < 0.05", "interval": "300ms"}
_STAGE = {"percent": 100, "minHealthyTime": "1s", "deadline": "60s"}


def _cel(name: str, rule: str, **spec: object) -> str:
    body = {"gate": "cel", "rule": rule, "message": f"{name} says no", **spec}
    return f"{HEAD}kind: Policy\nmetadata: {{name: {name}}}\nspec: {json.dumps(body)}\n"


def _judged() -> str:
    errors = _ERRORS | {"minSamples": 2, "failureLimit": 0, "onNoData": "wait"}
    spec = {"stages": [_STAGE | {"analysis": ["errors"]}], "analysis": {"errors": errors}}
    spec["verify"] = [{"http": {"path": "/healthz", "expect": 200}}]
    return f"{HEAD}kind: Strategy\nmetadata: {{name: dev}}\nspec: {json.dumps(spec)}\n"


FILES = {
    "environments/dev.yaml": environment_file("dev", gates=["reasoned", "advice", "quiet"], witnesses=1),
    "environments/prod.yaml": environment_file("prod", order=20, approvals={"count": 2}, promotesFrom=["dev"]),
    "strategies/dev.yaml": _judged(),
    "strategies/prod.yaml": strategy_file("prod"),
    "policies/reasoned.yaml": _cel("reasoned", "inputs.promotion.reason != 'none'"),
    "policies/advice.yaml": _cel("advice", "inputs.promotion.ticket != ''", level="warn"),
    "policies/quiet.yaml": f"{HEAD}kind: Policy\nmetadata: {{name: quiet}}\nspec: {{gate: freeze}}\n",
}


def main() -> None:
    """Play it, keep it, and say what is in it."""
    with tempfile.TemporaryDirectory(prefix="golden-") as folder, flow(Path(folder), AGENTS, files=FILES) as shop:
        _play(shop)
        FOLDER.mkdir(exist_ok=True)
        branches = ("main", "lockgate/requests", "lockgate/evidence")
        shop.git("repack", "-adfq", "--window=250")
        shop.git("bundle", "create", str(BUNDLE), *branches)
        ROOT.write_text(shop.stage.trust_root.read_text())
        done = lockgate("--repo", shop.stage.origin, "-o", "json", "verify", "--no-cache", "--trust-root", ROOT)
        answer = json.loads(done.stdout)
        if not answer["verified"]:
            raise SystemExit(done.stdout)
        counts = {name: answer[name] for name in ("commits", "entries", "runs", "refused")}
        kinds = dict(sorted(Counter(shop.kinds()).items()))
    _write(COUNTS, {"rules": RULES, **counts, "kinds": kinds})
    _write(MEMBERS, always_written())
    print(COUNTS.read_text(), f"{BUNDLE.stat().st_size} bytes")


def clone(folder: Path) -> Path:
    """The golden history as a bare repository."""
    origin = folder / "golden.git"
    subprocess.run(["git", "clone", "-q", "--mirror", str(BUNDLE), str(origin)], check=True)
    return origin


# --- what happens in it ------------------------------------------------------------------------------------


def _play(shop: Flow) -> None:
    shop.start_heard()
    with Load(shop.processes, ["dev-1", "dev-2"], rate=QUIET):
        first = shop.deploy("dev", "1.0.0")
    shop.land("promote-none", {"promotions/dev.yaml": slot_file("dev", first, "none")})
    shop.ends("dev", first, "denied")
    _approved(shop, first)
    _rolled_back(shop)
    _refused(shop)
    _new_trust(shop)
    with Load(shop.processes, ["dev-1", "dev-2"], rate=QUIET):
        shop.deploy("dev", "1.2.0")
    until("agents saw the log", lambda: "witnessed" in shop.kinds(), 60)
    shop.processes.stop()


def _approved(shop: Flow, name: str) -> None:
    """bob approves by merging, carol by a request; before that she may not do what operators do."""
    shop.promote("prod", name)
    until("the run waits", lambda: "awaiting approval" in shop.asks("status", "prod").replace("_", " "), 60)
    ask(shop.people, shop.stage.person("carol"), "shop", Ask("abort", "prod", "not hers to ask"))
    until("the request is judged", lambda: "request" in shop.kinds(), 60)
    done = lockgate(
        "--repo", shop.stage.origin, "approve", "prod", "--reason", "tested", "--key", shop.stage.keys / "carol"
    )
    assert done.returncode == 0, done.stderr
    shop.ends("prod", name, "completed")


def _rolled_back(shop: Flow) -> None:
    """A release that answers 500 under load: measured, rolled back, its slot taken back."""
    shop.image("1.1.0", "load")
    name = shop.release("1.1.0")
    shop.locked(name)
    with Load(shop.processes, ["dev-1", "dev-2"], rate=BUSY):
        shop.promote("dev", name)
        shop.ends("dev", name, "rolled_back")
    until("the slot is back", lambda: "shop-1.0.0" in shop.main_file("promotions/dev.yaml"), 60)


def _refused(shop: Flow) -> None:
    """dave merges his own change, which is refused and taken back by a signed revert."""
    until("main is accepted", lambda: _accepted(shop) == shop.tip("main"), 60)
    tip, dave = shop.tip("main"), shop.stage.person("dave")
    slot = slot_file("prod", "shop-1.1.0", "again, quickly")
    commit_on(shop.people, "alone", dave, {"promotions/prod.yaml": slot}, "Promote it again")
    merge_branch(shop.people, "alone", dave, into="main", message="Merge branch 'alone'")
    until("it is refused", lambda: "main-refused" in shop.kinds(), 60)
    restore(shop.people, shop.stage.person("carol"), to=tip, branch="main", message="Revert what nobody approved")
    until("main goes on", lambda: _accepted(shop) == shop.tip("main"), 60)


def _new_trust(shop: Flow) -> None:
    """The owners give alice another key; hers counts for another day."""
    from controller.adapters.git.keys import generate_key

    generate_key(shop.stage.keys / "alice2", "alice2")
    rotate = ("rotate", "alice", "--new-key", shop.stage.keys / "alice2.pub", "--overlap", "1d")
    for by, words in (("olivia", rotate), ("olivia", ("sign",)), ("oscar", ("sign",))):
        done = lockgate("--repo", shop.stage.origin, "trust", *words, "--key", shop.stage.keys / by)
        assert done.returncode == 0, done.stderr
    done = lockgate("--repo", shop.stage.origin, "merge", "trust-2", "--key", shop.stage.keys / "olivia")
    assert done.returncode == 0, done.stderr
    until("it is in force", lambda: _cursors(shop)["trustVersion"] == 2, 60)


def _cursors(shop: Flow) -> dict[str, object]:
    return dict(json.loads(shop.git("show", "lockgate/evidence:state/cursors.json")))


def _accepted(shop: Flow) -> object:
    return _cursors(shop)["main"]


# --- what is always written --------------------------------------------------------------------------------

WRITTEN: tuple[ModuleType, ...] = (
    wire, entry, rundetails, eventdetails, restart, link, order, request, statement, cursors, fold, marks,
    base, release, lock, environment, strategy,
)  # fmt: skip
"""Where the models stand that are written as evidence, state or messages, and the documents that runs take in."""


def models() -> list[type[BaseModel]]:
    """Every one of them."""
    return [
        value
        for module in WRITTEN
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.__name__
    ]


def always_written() -> dict[str, list[str]]:
    """By model, the members that stand in everything that is written of it: those that are never None."""
    found: dict[str, list[str]] = {}
    for model in models():
        model.model_rebuild()
        names = [name for name, field in model.model_fields.items() if field.default is not None]
        found[f"{model.__module__.removeprefix('controller.')}.{model.__name__}"] = sorted(names)
    return found


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
