"""What happened, read back from the origin and the agents, in a form that two plays of a story share.

Times, ids of commits and digests of what contains them differ from play to play; nothing else may.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from controller.adapters.git import sshsig
from controller.adapters.git.repo import GitRepo
from controller.demo.stage import Stage
from controller.ledger.entry import read
from controller.model.entry import Entry
from controller.model.trustroot import TrustRoot
from controller.uses.audit.verify import verify

_FACTS = ("stage", "attempt", "action", "verdict", "phase", "code")
_RUN = re.compile(r"(\w+-\d+)-[0-9a-f]{8}")


def told(stage: Stage, agents: Iterable[str]) -> dict[str, Any]:
    """The story's record. Asserts on the way what holds by itself: density, single execution, `verify`."""
    repo = GitRepo.read_only(stage.origin)
    try:
        tips = repo.observe()
        assert tips.evidence is not None and tips.main is not None
        entries = _entries(repo, tips.evidence)
        assert [e.predicate.index for e in entries] == list(range(len(entries))), "indexes are not dense"
        subjects = [commit.message.partition("\n")[0] for commit in repo.first_parents(tips.main, None)]
        report = verify(repo, TrustRoot.load(stage.trust_root), verify_ssh=_verify_ssh)
        assert report.verified, report.findings
        roles = _roles(entries)
        found = {
            "runs": _runs(entries, roles),
            "events": _events(entries),
            "main": subjects,
            "agents": _agents([stage.agents / name for name in agents], roles),
        }
        for name in agents:
            _sticker_is_backed(repo, tips.evidence, stage.agents / name)
    finally:
        repo.close()
    checked = ["git", "-C", str(stage.origin), "fsck", "--strict", "--full", "--no-dangling"]
    done = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(stage.origin.rglob("*.lock"))
    return found


def _entries(repo: GitRepo, tip: str) -> list[Entry]:
    found = []
    for folder in ("runs", "events"):
        for path, file in repo.files(tip, folder):
            if path.endswith(".dsse.json"):
                found.append(read(repo.read(file.blob), path, None))
    return sorted(found, key=lambda entry: entry.predicate.index)


def _roles(entries: list[Entry]) -> dict[str, dict[str, str]]:
    """By run: which of its targets came first. The order is drawn by a hash over the run's id."""
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        if entry.run is not None and entry.kind == "ordered":
            roles = found.setdefault(entry.run, {})
            for target in entry.predicate.what.targets:
                roles.setdefault(target, f"target {len(roles) + 1}")
    return found


def _runs(entries: list[Entry], roles: dict[str, dict[str, str]]) -> dict[str, list[Any]]:
    """Each run's entries in sequence; gates that wait may be asked any number of times."""
    found: dict[str, list[Any]] = {}
    for entry in entries:
        if entry.run is None:
            continue
        detail = entry.detail
        named = roles.get(entry.run, {})
        targets = sorted(named.get(target, "another target") for target in entry.predicate.what.targets)
        line: list[Any] = [entry.kind, entry.predicate.result, targets]
        line += [
            getattr(detail, name, None) for name in ("stage", "attempt", "action", "verdict", "phase", "code")
        ]
        lines = found.setdefault(_plain(entry.run), [])
        if entry.kind == "gates" and entry.predicate.result == "WAIT":
            continue
        lines.append(line)
    return found


def _events(entries: list[Entry]) -> list[Any]:
    """The events in order. How many commits of main one acceptance covers depends on who was quicker: they must
    join without gap or overlap, and are otherwise left out."""
    found: list[Any] = []
    tip: str | None = None
    for entry in entries:
        if entry.run is not None:
            continue
        if entry.kind == "accepted":
            assert tip in (None, entry.detail.previous), "two acceptances overlap or leave a gap"
            tip = entry.detail.tip
        else:
            found.append([entry.kind, entry.predicate.result, getattr(entry.detail, "release", None)])
    return found


def _agents(folders: list[Path], roles: dict[str, dict[str, str]]) -> dict[str, Any]:
    """What all agents did, each target by its part in the run."""
    found: dict[str, list[Any]] = {"orders": [], "executed": [], "stickers": []}
    for folder in folders:
        orders, executed = _each_once(folder)
        found["orders"] += [_order(order, roles) for order in orders]
        found["executed"] += [_order(order, roles) for order in executed]
        sticker = _sticker(folder)
        if sticker is not None:
            said = [str(sticker[key]) for key in ("release", "manifestDigest", "digests")]
            # Which target an earlier run left it on is the hash's choice: its stage is not compared.
            run, *_, action = str(sticker["order"]).split("/")
            found["stickers"].append([*said, _plain(run), action])
    return {name: sorted(items) for name, items in found.items()}


def _order(order: str, roles: dict[str, dict[str, str]]) -> str:
    run, stage, attempt, target, action = order.split("/")
    return f"{_plain(run)}/{stage}/{attempt}/{roles[run].get(target, 'another target')}/{action}"


def _each_once(folder: Path) -> tuple[list[str], list[str]]:
    """The orders in an agent's journal and those it carried out: each once, taken, reported, acknowledged."""
    orders: dict[str, list[str]] = {}
    for raw in (folder / "journal.jsonl").read_bytes().splitlines():
        line = json.loads(raw)
        orders.setdefault(line["order"], []).append(line.get("state", "ran"))
    for order, states in orders.items():
        for state in ("received", "reported", "acknowledged"):
            assert states.count(state) == 1, (order, states)
    path = folder / "executions.log"
    executed = path.read_text().splitlines() if path.exists() else []
    assert len(executed) == len(set(executed)), f"executed twice: {executed}"
    return list(orders), executed


def _sticker(folder: Path) -> dict[str, Any] | None:
    path = folder / "lockgate.version.json"
    return json.loads(path.read_bytes()) if path.exists() else None


def _sticker_is_backed(repo: GitRepo, tip: str, folder: Path) -> None:
    """The commit on a sticker is the one that added the entry which gave the order."""
    sticker = _sticker(folder)
    if sticker is None:
        return
    commit = str(sticker["evidenceCommit"])
    assert repo.is_ancestor(commit, tip)
    added = [c.path for c in repo.changes(repo.commit(commit).parents[0], commit) if c.new is not None]
    entries = [e for e in _entries(repo, commit) if e.kind == "ordered" and e.path in added]
    assert any(sticker["order"] in {line.id for line in e.detail.orders} for e in entries)


def _plain(text: str) -> str:
    return _RUN.sub(r"\1", text)


def _verify_ssh(armored: str, data: bytes, namespace: str) -> str:
    return sshsig.verify(armored.encode(), data, namespace)
