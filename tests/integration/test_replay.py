"""Replay over real runs: the same digests from a bare clone, anywhere and on any day; what differs is said."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.gates.cel import CelWorker
from controller.adapters.git.repo import GitRepo
from controller.errors import Invalid
from controller.uses.replay import figures, replay_run, row_of, undecided
from controller.uses.replay import recorded as recorded_replays
from tests.support.real_run import Recorded, answer, lockgate


@pytest.fixture(scope="module")
def clone(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing but Git objects and refs."""
    target = tmp_path_factory.mktemp("clone") / "bare.git"
    subprocess.run(["git", "clone", "-q", "--mirror", "--no-local", recorded.origin, target], check=True)
    return target


def test_every_decision_of_a_real_run_comes_out_again(recorded: Recorded, clone: Path) -> None:
    found = answer("--repo", clone, "replay", recorded.first)
    assert set(found) == {"run", "decisions", "match"}
    # A gate that waits for its answer is a decision too: silence replays from when it began.
    kinds = [one["kind"] for one in found["decisions"]]
    assert kinds.count("evaluated") == 2 and kinds.count("gates") >= 2
    assert all(one["recorded"] == one["replayed"] and one["message"] == "" for one in found["decisions"])
    assert found["match"] is True
    steps = answer("--repo", clone, "step", recorded.first, found["decisions"][0]["sequence"])
    assert steps["predicate"]["detail"]["decision"] == found["decisions"][0]["recorded"]


@pytest.mark.parametrize(
    "environ",
    [
        {"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "1", "LC_ALL": "C"},
        {"TZ": "America/St_Johns", "PYTHONHASHSEED": "4242", "LC_ALL": "tr_TR.UTF-8", "PYTHONOPTIMIZE": "1"},
    ],
    ids=["east", "west"],
)
def test_no_place_no_locale_and_no_hash_seed_matters(
    recorded: Recorded, clone: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    here = answer("--repo", clone, "replay", recorded.second)
    assert answer("--repo", clone, "replay", recorded.second, HOME=str(tmp_path), **environ) == here
    assert here["match"] is True


def test_all_runs_and_the_figures_with_what_is_on_record(recorded: Recorded, clone: Path) -> None:
    found = answer("--repo", clone, "replay", "--all")
    rows = [(row["run"], row["source"], row["result"]) for row in found["replays"]]
    assert rows == [
        (recorded.first, "recorded", "match"),
        (recorded.first, "now", "match"),
        (recorded.second, "now", "match"),
        (recorded.held, "now", "match"),
    ]
    sums = found["figures"]
    assert (sums["total"], sums["matching"], sums["mismatching"], sums["rate"]) == (4, 4, 0, 1.0)
    assert (found["replays"][0]["by"], found["replays"][0]["reason"]) == ("olga", "the audit asks")
    only = answer("--repo", clone, "replay", "--figures")
    assert only["replays"] == found["replays"][:1]
    text = lockgate("--repo", clone, "replay", "--figures").stdout
    assert "1 completed replay, 1 matching, 0 mismatching: 100.00 % deterministic" in text


def test_a_recorded_replay_is_a_judged_request_and_an_event(recorded: Recorded) -> None:
    assert (recorded.replayed["verdict"], recorded.replayed["code"]) == ("accepted", "request-accepted")
    repo = GitRepo.read_only(recorded.origin)
    try:
        tip = repo.observe().evidence or ""
        (path,) = [path for path, _ in repo.files(tip, "events") if path.endswith("-replayed.dsse.json")]
        message = repo.commit(tip).message
    finally:
        repo.close()
    assert f"Lockgate-About: {recorded.first}" in message
    assert f"Lockgate-Entry: {int(path.rpartition('/')[2].split('-')[0])}\n" in message
    report = answer("--repo", recorded.origin, "verify", "--trust-root", recorded.root)
    assert report["verified"] is True


def test_who_may_not_and_what_is_not_there_is_refused(recorded: Recorded) -> None:
    for arguments, code, text in (
        (("dev-99-00000000",), 1, "run-not-found"),
        (("dev-99-00000000", "--record", "--reason", "x"), 1, "run-not-found"),
        ((recorded.first, "--record"), 2, "reason-missing"),
        ((recorded.first, "--all"), 2, "replay-unclear"),
        ((), 2, "replay-unclear"),
        (("--all", "--record", "--reason", "x"), 2, "replay-unclear"),
    ):
        done = lockgate("--repo", recorded.origin, "replay", *arguments)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert done.stderr.startswith(f"lockgate: {text}: ")


class Altered:
    """A repository that gives some paths of the evidence other bytes."""

    def __init__(self, repo: GitRepo, change: dict[str, Any]) -> None:
        self._repo, self._change = repo, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repo, name)

    def read(self, blob: str) -> bytes:
        data = self._repo.read(blob)
        return self._change.get(blob, lambda same: same)(data)


def blob_of(repo: GitRepo, ending: str, run: str) -> str:
    tip = repo.observe().evidence or ""
    found = [file.blob for path, file in repo.files(tip, "runs") if f"/{run}/" in path and path.endswith(ending)]
    return found[0]


def test_other_inputs_statements_or_documents_give_a_mismatch(recorded: Recorded) -> None:
    repo = GitRepo.read_only(recorded.origin)
    ask = CelWorker().ask
    try:
        tip = repo.observe().evidence or ""

        def differs(change: dict[str, Any]) -> list[str]:
            altered: Any = Altered(repo, change)
            rows = replay_run(altered, tip, recorded.first, ask)["decisions"]
            return [one["message"] for one in rows if not one["match"]]

        def other_names(data: bytes) -> bytes:
            value = json.loads(data)
            value["named"]["environment"]["variables"] = {"b": "b"}
            return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

        assert differs({}) == []
        gates = blob_of(repo, "inputs/gates-01.json", recorded.first)
        assert differs({gates: other_names}) == ["the inputs of gate named are not those of its verdict"]
        samples = blob_of(repo, "stage-1-samples.jsonl", recorded.first)
        (text,) = differs({samples: lambda data: b""})
        assert text == "the stage's statements give no verdict yet, recorded is passed"
        main = repo.observe().main or ""
        policy, environment = repo.file(main, "policies/named.yaml"), repo.file(main, "environments/dev.yaml")
        assert policy is not None and environment is not None
        texts = differs({policy.blob: lambda data: data.replace(b"'a' in names", b"'z' in names")})
        assert texts and set(texts) == {"gate named gives FAIL rule-false, recorded is PASS rule-true"}
        more = differs({environment.blob: lambda data: data.replace(b', "quiet"]', b"]")})
        assert more and all("the run's documents ask for the gates" in text for text in more)
        with pytest.raises(Invalid):
            replay_run(repo, tip, "dev-7-00000000", ask)
    finally:
        repo.close()


def test_what_cannot_be_asked_here_is_undecided_and_counts_nowhere(recorded: Recorded) -> None:
    repo = GitRepo.read_only(recorded.origin)
    try:
        tip = repo.observe().evidence or ""
        slow = replay_run(repo, tip, recorded.first, lambda _: {"error": "cost-exceeded", "message": "slow"})
        unknown = [one for one in slow["decisions"] if one["replayed"] is None]
        assert {one["message"] for one in unknown} == {"gate named could not be decided again here: slow"}
        assert not slow["match"] and undecided(slow)
        sums = figures([*recorded_replays(repo, tip), row_of(slow)])["figures"]
        assert (sums["total"], sums["undecided"], sums["rate"]) == (1, 1, 1.0)
    finally:
        repo.close()


def test_figures_of_nothing_have_no_rate() -> None:
    assert figures([])["figures"] == {
        "total": 0,
        "matching": 0,
        "mismatching": 0,
        "rate": None,
        "undecided": 0,
        "decisions": 0,
    }
