"""Owners let a refused commit of main stand, and nobody else does (trust rule 6)."""

from __future__ import annotations

import contextlib
import io
import json
from datetime import timedelta
from pathlib import Path

import pytest

from controller.cli.app import run
from controller.core.requests import COMMIT, read_request, write_request
from controller.uses.acknowledged import ACKNOWLEDGED, UNBACKED
from controller.uses.view import view
from controller.uses.why import Blocker, blockers, standing_text
from controller.wiring.people import Ask, commit_on, now, request
from tests.support.flow import Flow
from tests.support.real_run import lockgate
from tests.support.site import Site, change_trust

README = {"README.md": b"# Shop\n"}


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A project whose first main is accepted."""
    folder = tmp_path_factory.mktemp("origin")
    shop = Flow(folder, {"dev-1": "dev"})
    site = Site(folder)
    assert site.settle() == ""
    shop.people.close()
    return site


@pytest.fixture
def site(origin: Site, tmp_path: Path) -> Site:
    return Site.copy(origin.stage, tmp_path)


def lands(site: Site, files: dict[str, bytes | None], by: str = "bob") -> str:
    """A lone commit on main, which nobody approved, and the controller's pass over it; its id."""
    repo = site.stage.repo()
    try:
        who = site.stage.person(by)
        oid = commit_on(repo, "main", who, files, "In a hurry")
    finally:
        repo.close()
    assert site.settle() == ""
    return oid


def refused(site: Site) -> list[tuple[str, str]]:
    """What main stands still at by the evidence: commits and codes."""
    repo = site.stage.repo()
    try:
        return [(one.commit, one.code) for one in view(repo).state.cursors.refused]
    finally:
        repo.close()


def says(site: Site, *words: str) -> tuple[int, str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = run(["--repo", str(site.stage.origin), *words])
    return code, out.getvalue()


def acknowledges(site: Site, who: str, commit: str) -> tuple[int, str]:
    """`lockgate acknowledge` by somebody, then the controller's pass."""
    key = str(site.stage.keys / who)
    answer = says(site, "acknowledge", commit, "--reason", "the typo was read by both of us", "--key", key)
    assert site.settle() == ""
    return answer


def accepted(site: Site) -> str | None:
    repo = site.stage.repo()
    try:
        return view(repo).state.cursors.main
    finally:
        repo.close()


def verdicts(site: Site) -> list[str]:
    """The codes of the requests that verification lists as refused."""
    report = site.verify()
    assert report.verified, report.findings
    return [one.code for one in report.refused if one.ref.endswith("requests")]


def test_two_owners_let_a_refused_commit_stand_and_main_goes_on(site: Site) -> None:
    oid = lands(site, {"components/api.yaml": None})
    ((commit, code),) = refused(site)
    assert commit == oid

    assert acknowledges(site, "olivia", oid[:10])[0] == 0
    assert refused(site) == [(oid, code)], "one of two owners is not enough"
    status = says(site, "status")[1]
    assert "acknowledged by olivia, 1 of 2 owners needed" in status
    assert f"lockgate acknowledge {oid[:12]}" in says(site, "why", "dev")[1]

    assert acknowledges(site, "oscar", oid)[0] == 0
    assert refused(site) == [] and accepted(site) == oid
    status = says(site, "status")[1]
    assert f"{oid[:8]} ({code}) is let stand by its owners" in status
    assert "olivia: the typo was read by both of us" in status and "oscar:" in status

    for row in json.loads(says(site, "-o", "json", "status")[1]):
        (stands,) = row["letStand"]
        assert (stands["commit"], stands["code"], stands["by"]) == (oid, code, ["olivia", "oscar"])
        assert stands["reasons"][0] == "the typo was read by both of us"

    report = site.verify()
    assert report.verified, report.findings
    listed = {one.commit: one for one in report.refused}
    assert listed[oid].code == ACKNOWLEDGED
    assert "olivia" in listed[oid].message and "oscar" in listed[oid].message

    later = lands(site, {"components/web.yaml": b"not reviewed"})
    assert accepted(site) == oid and refused(site)[0][0] == later, "later commits are judged as usual"


def test_a_refused_commit_that_was_taken_away_by_force_is_still_told(site: Site, tmp_path: Path) -> None:
    before = site.tip("refs/heads/main")
    oid = lands(site, {"components/api.yaml": None})
    assert [commit for commit, _ in refused(site)] == [oid]
    site.git("update-ref", "refs/heads/main", before)
    copy = tmp_path / "copy.git"
    site.git("clone", "-q", "--mirror", "--no-local", str(site.stage.origin), str(copy))
    for words in (["status"], ["why", "dev"]):
        done = lockgate("--repo", copy, *words)
        assert done.returncode == 0, done.stderr
        assert f"main stands still at {oid[:8]}" in done.stdout


def test_several_refused_commits_each_need_their_own(site: Site) -> None:
    first = lands(site, {"components/api.yaml": None})
    second = lands(site, {"strategies/dev.yaml": None})
    for who in ("olivia", "oscar"):
        acknowledges(site, who, second)
    assert accepted(site) != second
    for who in ("olivia", "oscar"):
        acknowledges(site, who, first)
    assert refused(site) == [] and accepted(site) == second
    report = site.verify()
    assert report.verified, report.findings
    assert {first, second} <= {one.commit for one in report.refused if one.code == ACKNOWLEDGED}


@pytest.mark.parametrize("who", ["bob", "alice", "olivia"])
def test_whoever_is_no_further_owner_does_not_count(site: Site, who: str) -> None:
    oid = lands(site, {"components/api.yaml": None})
    acknowledges(site, "olivia", oid)
    acknowledges(site, who, oid)
    assert [one for one, _ in refused(site)] == [oid]
    expected = "already-acknowledged" if who == "olivia" else "action-out-of-scope"
    assert verdicts(site) == [expected]


def signed(site: Site, who: str, project: str, commit: str, code: str, **more: object) -> None:
    """A request that the command would not make."""
    repo = site.stage.repo()
    try:
        ask = Ask("acknowledge", "*", "because", binds=f"{COMMIT}{commit}", code=code)
        request_id, made = request(repo, site.stage.person(who), project, ask)
        if more:
            path = f"requests/{now():%Y}/{now():%m}/{request_id}.json"
            file = repo.file(made, path)
            assert file is not None
            old = read_request(repo.read(file.blob))
            fresh = old.model_copy(update={"id": f"{request_id}-2", **more})
            files = dict([write_request(fresh)])
            commit_on(repo, "lockgate/requests", site.stage.person(who), files, "acknowledge")
    finally:
        repo.close()


def test_requests_for_something_else_are_refused(site: Site) -> None:
    oid = lands(site, {"components/api.yaml": None})
    ((_, code),) = refused(site)
    main = site.tip("refs/heads/main~1")
    acknowledges(site, "olivia", oid)
    signed(site, "oscar", "another", oid, code)
    signed(site, "oscar", "shop", main, code)
    signed(site, "oscar", "shop", oid, "path-unheard-of")
    signed(site, "oscar", "shop", "f" * 40, code, evidence="e" * 40, binds=f"{COMMIT}{oid}")
    signed(site, "oscar", "shop", "f" * 40, code, at=now().replace(year=2020), expires=now().replace(year=2021))
    assert site.settle() == ""
    assert [one for one, _ in refused(site)] == [oid]
    found = verdicts(site)
    assert found[:3] == ["request-foreign", "nothing-refused", "nothing-refused"]
    assert "evidence-unknown" in found and accepted(site) == main


def test_a_request_that_was_acted_on_counts_once(site: Site) -> None:
    """The same file again, and one whose commit is no longer what main stands still at."""
    oid = lands(site, {"components/api.yaml": None})
    ((_, code),) = refused(site)
    acknowledges(site, "olivia", oid)
    tip = site.tip("refs/heads/lockgate/requests")
    tree = site.git("rev-parse", f"{tip}^{{tree}}")
    again = site.git("commit-tree", tree, "-p", tip, "-m", "again", env={"GIT_AUTHOR_NAME": "m", **_NAMES})
    site.git("update-ref", "refs/heads/lockgate/requests", again)
    assert site.settle() == ""
    assert [one for one, _ in refused(site)] == [oid]
    acknowledges(site, "oscar", oid)
    assert accepted(site) == oid
    signed(site, "olivia", "shop", oid, code)
    assert site.settle() == ""
    assert verdicts(site)[-1] == "nothing-refused"


_NAMES = {
    "GIT_AUTHOR_EMAIL": "m@example.com",
    "GIT_COMMITTER_NAME": "m",
    "GIT_COMMITTER_EMAIL": "m@example.com",
}


def test_an_expired_word_does_not_count_any_more(site: Site) -> None:
    oid = lands(site, {"components/api.yaml": None})
    ((_, code),) = refused(site)
    repo = site.stage.repo()
    shortly = timedelta(seconds=3)
    ask = Ask("acknowledge", "*", "soon over", binds=f"{COMMIT}{oid}", code=code, expires_after=shortly)
    request(repo, site.stage.person("olivia"), "shop", ask)
    assert site.settle() == ""
    found = view(repo)
    assert "acknowledged by olivia" in standing_text(found, found.state.cursors.refused[0], now())
    end = found.state.cursors.acknowledging[0].expires
    while now() <= end:
        repo.wait(0.2)
    repo.close()
    acknowledges(site, "oscar", oid)
    assert [one for one, _ in refused(site)] == [oid]
    acknowledges(site, "olivia", oid)
    assert accepted(site) == oid and site.verify().verified


def test_trust_without_its_quorum_and_locks_are_never_let_stand(site: Site) -> None:
    change_trust(site.stage, lambda text: text + "\n# more\n", signers=("olivia",))
    assert site.settle() == ""
    ((oid, code),) = refused(site)
    assert code == "trust-quorum"
    for who in ("olivia", "oscar"):
        answer = acknowledges(site, who, oid)
        assert answer[0] == 1 and "never-acknowledged" in answer[1]
        signed(site, who, "shop", oid, code)
    assert site.settle() == ""
    assert refused(site) == [(oid, code)] and set(verdicts(site)) == {"never-acknowledged"}
    assert not any("lockgate acknowledge" in one.unblock for one in held(site))


def held(site: Site) -> list[Blocker]:
    repo = site.stage.repo()
    try:
        return blockers(view(repo), "dev", now())
    finally:
        repo.close()


def test_what_nobody_acknowledged_is_a_finding(site: Site) -> None:
    """Evidence by the controller's own key that says owners let something stand."""
    from controller.adapters.git.keys import FileSigner
    from controller.ledger import append, log
    from controller.model.entry import Draft, MainAcknowledged, Observed, What, When
    from controller.model.trustroot import TrustRoot

    oid = lands(site, {"components/api.yaml": None})
    ((_, code),) = refused(site)
    root, signer = TrustRoot.load(site.stage.trust_root), FileSigner(site.stage.keys / "controller")
    repo = site.stage.repo()
    ledger = append.load(repo, site.tip())
    draft = Draft(
        kind="main-acknowledged",
        run=None,
        environment=None,
        at=ledger.state.cursors.at,
        observed=Observed(main=ledger.state.cursors.main, requests=None, trust_version=1),
        result="ACKNOWLEDGED",
        summary="let stand",
        who=(),
        what=What(),
        when=When(),
        detail=MainAcknowledged(commit=oid, code=code, acknowledgements=()),
    )
    prepared = append.prepare(ledger, [draft], signer, log.origin_of(root.project, root.genesis))
    append.write(repo, prepared, site.tip(), signer, root.refs.evidence)
    repo.close()
    assert UNBACKED in {finding.code for finding in site.verify().findings}
