"""A small whole history, and random mutations of it: what attackers with and without the controller's key write.

Each mutation comes from its own seed. What it leaves is a set of branch tips to verify; a mutation that leaves the
tips as they were is none, and is drawn again.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from controller.adapters.git.objects import encode_person
from controller.core.trust import TRUST_NAMESPACE
from controller.errors import LockgateError
from controller.ledger.append import EVIDENCE_REF, Ledger, prepare
from controller.ledger.canonical import canonical
from controller.ledger.dsse import STATEMENT_PAYLOAD, sign, split
from controller.model import entry as e
from controller.model.trustroot import TrustRoot
from controller.ports import Signer
from tests.support.forge import EMPTY, Entry, Forge, Made
from tests.support.home import MAIN, REQUESTS, Home
from tests.support.random_values import leaves, some_bytes, some_json
from tests.support.shop import trust_document

REFS = {"main": MAIN, "requests": REQUESTS, "evidence": EVIDENCE_REF}


@dataclass(frozen=True)
class Mutant:
    """What a mutation did, in words, the branch that it moved to another tip (None: deleted), and the last push of
    evidence that it left as it was."""

    kind: str
    what: str
    branch: str
    tip: str | None
    since: str | None = None


class Scene:
    """A completed run with an approval, a rolled back one, refused and accepted requests, a trust change, and an
    open run that was paused and resumed. The root pins the log as it stood after the second run."""

    def __init__(self, folder: Path) -> None:
        self.home = home = Home(folder)
        home.release("shop-1")
        home.release("shop-2")
        home.batch(home.approve(home.story.run("dev", "shop-1"), "rita"))
        commit, request = home.ask("abort", "dev", None, "ollie")
        who = home.actor("ollie")
        home.batch([home.story.judged(commit, request, who, accepted=False, code="action-out-of-scope")])
        for draft in home.story.run("dev", "shop-2", end="rolled_back"):
            home.batch([draft])
        log = home.ledger.log
        pinned = {"size": log.size, "root": base64.b64encode(log.root).decode()}
        home.root = TrustRoot.model_validate({**home.root.model_dump(by_alias=True), "checkpoint": pinned})
        self.pinned = len(home.passes)
        """How many passes stand below the pinned checkpoint."""
        self._change_trust()
        run = home.story.run("dev", "shop-1", sealed=False)
        home.batch(run[:3])
        for verb, kind in (("pause", "paused"), ("resume", "resumed")):
            self._control(run[2], verb, kind)
        for draft in self._later(run[3:]):
            home.batch([draft])
        self.tips = {name: home.git("rev-parse", ref).strip() for name, ref in REFS.items()}
        home.git("gc", "-q", "--prune=now")
        self.forge = Forge(home.origin)
        self.lines = {name: self.forge.line(tip) for name, tip in self.tips.items()}
        self.pushes = [ledger.commit for ledger, _ in home.passes if ledger.commit is not None]
        """The evidence commits that were tips once: a verification can begin after any of them."""
        self.deltas = {oid: self.forge.delta(oid) for line in self.lines.values() for oid in line}

    def _change_trust(self) -> None:
        home = self.home
        document = trust_document(version=2, **home.trust)  # type: ignore[arg-type]
        data = yaml.safe_dump(document, sort_keys=False).encode()
        files: dict[str, bytes | None] = {"trust/trust.yaml": data}
        for name in ("olga", "otto"):
            files[f"trust/2/{name}.sig"] = home.people[name].sign_ssh(data, TRUST_NAMESPACE).encode()
        tip = home.commit(MAIN, files, "olga", "Trust version 2")
        home.story.version = 2
        home.batch([home.accepting(tip)])

    def _control(self, opened: e.Draft, verb: str, kind: str) -> None:
        home = self.home
        commit, request = home.ask(verb, "dev", opened.run, "dave")
        who = home.actor("dave")
        control = e.Control(verb=kind, request=request.id, by="dave", reason="why", code="requested")
        judged = home.story.judged(commit, request, who)
        home.batch([judged, home.story.draft("control", control, opened.run, "dev", opened.what)])

    def _later(self, drafts: Sequence[e.Draft]) -> list[e.Draft]:
        """Drafts moved behind what was recorded since they were made."""
        later = self.home.story.at - drafts[0].at + timedelta(seconds=1)
        found = []
        for draft in drafts:
            observed = draft.observed.model_copy(update={"requests": self.home.story.requests})
            detail = draft.detail
            if isinstance(detail, e.Evaluated):
                detail = detail.model_copy(update={"since": detail.since + later})
            if isinstance(detail, e.Ordered):
                detail = detail.model_copy(update={"deadline": detail.deadline + later})
            found.append(draft.model_copy(update={"at": draft.at + later, "observed": observed, "detail": detail}))
        return found


# --- evidence, rewritten by whoever holds the controller's key -------------------------------------------

FREE = {
    "summary": "the sentence of a commit's subject: words, which nothing follows from",
    "result": "the label in the commit's trailers; what it labels is in the detail",
    "why": "reasons in words, repeated from the detail",
    "when": "instants that the controller alone knows, beside the entry's own time",
    "who": "names the controller in entries that it makes on its own",
    "detail.templates": "templates of another version, by which nothing here can render artifacts again",
    "observed.requests": "an older tip of requests: which of them were judged is said by their verdicts alone",
    "detail.message": "words beside a code, in verdicts on requests and on a whole verification",
    "request detail.code": "why a request was refused: a refusal grants nothing and needs no second opinion",
}
"""Members of an entry that its author may word as it likes: consistently rewritten by the key's own holder, before
anybody saw them, they contradict nothing. Below a pinned checkpoint every one of them is found."""


def worded(draft: e.Draft, path: tuple[Any, ...]) -> bool:
    """Whether FREE holds a member of a draft."""
    name = ".".join(str(part) for part in path)
    refused = draft.kind == "request" and not draft.detail.accepted
    return (
        path[0] in FREE
        or name.startswith("detail.templates")
        or name in FREE
        or (refused and f"request {name}" in FREE)
    )


def redrafted(scene: Scene, rng: random.Random, first: int, last: int, free: bool) -> Mutant:
    """An entry of a pass in [first, last) is another one, and it and all that follow are made again by the
    controller's own code and key: numbers, chain, seals, state and log agree."""
    home = scene.home
    while True:
        place = rng.randrange(first, last)
        ledger, drafts = home.passes[place]
        number = rng.randrange(len(drafts))
        words = drafts[number].model_dump(mode="json", by_alias=True, exclude={"files", "detail"})
        words["detail"] = drafts[number].detail.wire()
        among = [
            path
            for path in leaves(words)
            if path not in (("at",), ("detail",)) and (free or not worded(drafts[number], path))
        ]
        where, words = some_json(rng, words, among)
        try:
            detail = type(drafts[number].detail).model_validate(words.pop("detail"))
            changed = e.Draft.model_validate({**words, "detail": detail, "files": drafts[number].files})
            passes = [(ledger, [*drafts[:number], changed, *drafts[number + 1 :]]), *home.passes[place + 1 :]]
            tip = remade(scene, ledger, [some for _, some in passes])
        except (LockgateError, ValueError, KeyError, AttributeError, TypeError, AssertionError):
            continue  # no entry that the ledger could write
        if tip != scene.tips["evidence"]:
            what = f"pass {place}: {drafts[number].kind} {where}"
            return Mutant(f"redrafted{' free' if free else ''}", what, "evidence", tip, ledger.commit)


def remade(scene: Scene, ledger: Ledger, passes: Sequence[Sequence[e.Draft]]) -> str | None:
    """Passes recorded on a ledger by the controller's own code; the tip."""
    home, forge = scene.home, scene.forge
    tip = ledger.commit
    tree = forge.root(forge.read(tip).tree if tip is not None else EMPTY)
    for drafts in passes:
        prepared = prepare(ledger, drafts, home.controller, home.origin_line)
        ledger = prepared.ledger
        for commit in prepared.commits:
            person = encode_person("Lockgate", "controller@lockgate.invalid", commit.at)
            made = Made(
                tree.apply(commit.changes, forge.sink),
                (tip,) if tip is not None else (),
                person,
                person,
                commit.message.encode(),
                home.controller,
            )
            tip = forge.write(made)
    return tip


# --- evidence, requests and main, object by object -------------------------------------------------------


class Mutator:
    """Random mutations of a scene's branches by raw objects."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.forge = scene, scene.forge

    def rebuilt(self, branch: str, place: int, onto: str | None, by: Signer | None) -> str | None:
        """What follows a place of a branch, made again on top of another commit."""
        for oid in self.scene.lines[branch][place:]:
            tree = self.forge.read(onto).tree if onto is not None else EMPTY
            tree = self.forge.patched(tree, self.scene.deltas[oid])
            onto = self.forge.again(oid, onto, tree, by)
        return onto

    def mutate(self, rng: random.Random, branch: str, first: int, signers: dict[str, Signer | None]) -> Mutant:
        """One mutation of a branch at or after a place, and what follows it rebuilt by one of the signers."""
        while True:
            line = self.scene.lines[branch]
            place = rng.randrange(first, len(line))
            who = rng.choice(sorted(signers))
            name, kind = rng.choice(KINDS[branch])
            tip = kind(self, rng, branch, place, signers[who])
            if tip is not None and tip[1] != self.scene.tips[branch]:
                what = f"{branch} {place}: {name}{tip[0]}, signed by {who}"
                untouched = line[:place] if branch == "evidence" else []
                since = next((oid for oid in reversed(untouched) if oid in self.scene.pushes), None)
                return Mutant(f"{branch} {name}", what, branch, tip[1], since)

    def onto(self, branch: str, place: int) -> str | None:
        return self.scene.lines[branch][place - 1] if place else None

    def changed(self, branch: str, place: int, tree: str, by: Signer | None) -> str | None:
        """A commit with another tree, and what follows rebuilt."""
        oid = self.scene.lines[branch][place]
        made = self.forge.again(oid, self.onto(branch, place), tree, by)
        return self.rebuilt(branch, place + 1, made, by)

    def files(self, branch: str, place: int) -> list[tuple[str, Entry]]:
        delta = self.scene.deltas[self.scene.lines[branch][place]]
        return [(path, entry) for path, entry in delta if entry is not None]


Tip = tuple[str, str | None] | None
Kind = Callable[[Mutator, random.Random, str, int, Signer | None], Tip]


def _bytes(m: Mutator, rng: random.Random, branch: str, place: int, by: Signer | None) -> Tip:
    path, (mode, oid) = rng.choice(m.files(branch, place))
    how, data = some_bytes(rng, m.forge.raw(oid))
    tree = m.forge.edit(m.forge.read(m.scene.lines[branch][place]).tree, path, (mode, m.forge.put(b"blob", data)))
    return f" {how} {path}", m.changed(branch, place, tree, by)


def _values(m: Mutator, rng: random.Random, branch: str, place: int, by: Signer | None) -> Tip:
    """A value in a JSON file of the commit; envelopes are signed again."""
    path, (mode, oid) = rng.choice(m.files(branch, place))
    data = m.forge.raw(oid)
    try:
        if path.endswith((".dsse.json", ".link")) and by is not None:
            where, value = some_json(rng, json.loads(split(data).payload))
            made = sign(canonical(value), STATEMENT_PAYLOAD, by)
        elif path.endswith(".jsonl"):
            where, value = some_json(rng, json.loads(split(data.splitlines()[0]).payload))
            made = b"\n".join(
                [
                    sign(canonical(value), STATEMENT_PAYLOAD, by or m.scene.home.controller),
                    *data.splitlines()[1:],
                    b"",
                ]
            )
        else:
            where, value = some_json(rng, json.loads(data))
            made = canonical(value)
    except ValueError:
        return None
    tree = m.forge.edit(m.forge.read(m.scene.lines[branch][place]).tree, path, (mode, m.forge.put(b"blob", made)))
    return f" {where} in {path}", m.changed(branch, place, tree, by)


def _tree(m: Mutator, rng: random.Random, branch: str, place: int, by: Signer | None) -> Tip:
    """Modes, doubles, files that go, come, or stand elsewhere."""
    tree = m.forge.read(m.scene.lines[branch][place]).tree
    path, entry = rng.choice(m.files(branch, place))
    other = rng.choice([p for p, _ in m.forge.paths(tree)])
    how = rng.choice(["mode", "double", "gone", "extra", "moved", "another's", "above"])
    if how == "mode":
        tree = m.forge.edit(tree, path, (rng.choice(["100755", "120000", "160000", "100664"]), entry[1]))
    elif how == "double":
        tree = m.forge.edit(tree, path, entry, (entry[0], m.forge.put(b"blob", rng.randbytes(9))))
    elif how == "gone":
        tree = m.forge.edit(tree, rng.choice([path, other]))
    elif how == "extra":
        folder = rng.choice([path, other]).rpartition("/")[0]
        name = rng.choice(["x", "inputs/x.json", "099-gates.dsse.json", "links/x.link", ".gitmodules"])
        tree = m.forge.edit(tree, f"{folder}/{name}".lstrip("/"), ("100644", m.forge.put(b"blob", b"{}")))
    elif how == "moved":
        tree = m.forge.edit(
            m.forge.edit(tree, path), f"{other.rpartition('/')[0]}/{path.rpartition('/')[2]}".lstrip("/"), entry
        )
    elif how == "another's":
        tree = m.forge.edit(tree, path, m.forge.find(tree, other) or entry)
    else:
        tree = m.forge.edit(tree, f"{rng.choice(['notes', 'runs', 'state', 'log', 'trust'])}.txt", entry)
    return f" {how} {path}", m.changed(branch, place, tree, by)


def _commit(m: Mutator, rng: random.Random, branch: str, place: int, by: Signer | None) -> Tip:
    """Headers, signatures, parents, the message."""
    old = m.forge.read(m.scene.lines[branch][place])
    onto = m.onto(branch, place)
    made: Made = replace(old, by=by, parents=(onto, *old.parents[1:]) if onto else ())
    how = rng.choice(["message", "date", "parents", "unsigned", "two", "garbage", "header", "mallory"])
    if how == "message":
        made = replace(made, message=some_bytes(rng, old.message)[1].replace(b"\0", b"?"))
    elif how == "date":
        name, stamp, zone = old.committer.rsplit(b" ", 2)
        made = replace(made, committer=b"%s %d %s" % (name, int(stamp) + rng.choice([-86400, -1, 1, 86400]), zone))
    elif how == "parents":
        # On its own tip it would only be one more commit: nothing is changed by that.
        tips = [tip for name, tip in m.scene.tips.items() if name != branch]
        other = rng.choice([*tips, m.scene.lines[branch][0]])
        made = replace(
            made, parents=rng.choice([(*made.parents, other), (other,), (*made.parents, *made.parents), ()])
        )
    elif how == "unsigned":
        made = replace(made, by=None)
    elif how == "two":
        made = replace(made, extra=b"\ngpgsig -----BEGIN SSH SIGNATURE-----\n AAAA\n -----END SSH SIGNATURE-----")
    elif how == "garbage":
        made = replace(made, by=None, extra=b"\ngpgsig " + base64.b64encode(rng.randbytes(60)))
    elif how == "header":
        made = replace(
            made, extra=rng.choice([b"\nencoding x", b"\nmergetag object x", b"\ngpgsig-sha256 x", b"\nx y"])
        )
    else:
        made = replace(made, by=m.scene.home.people["mallory"])
    if how == "header" and by is m.scene.home.controller:
        return None  # the key's holder may add headers that say nothing
    return f" {how}", m.rebuilt(branch, place + 1, m.forge.write(made), by)


def _order(m: Mutator, rng: random.Random, branch: str, place: int, by: Signer | None) -> Tip:
    """Commits dropped, doubled, swapped, or put in from elsewhere."""
    line = m.scene.lines[branch]
    how = rng.choice(["dropped", "doubled", "swapped", "another's", "empty"])
    before = m.onto(branch, place)
    picked: Sequence[str]
    if how == "dropped":
        if place + 1 >= len(line) or place == 0:
            return None  # a branch cut short is an older one: see the pinned checkpoint
        picked = line[place + 1 :]
    elif how == "doubled":
        picked = [line[place], *line[place:]]
    elif how == "swapped" and place + 1 < len(line):
        picked = [line[place + 1], line[place], *line[place + 2 :]]
    elif how == "another's":
        picked = [rng.choice(line), *line[place:]]
    else:
        tree = m.forge.read(before).tree if before else EMPTY
        made = m.forge.write(
            replace(m.forge.read(line[place]), tree=tree, parents=(before,) if before else (), by=by)
        )
        return f" {how}", m.rebuilt(branch, place, made, by)
    onto = before
    for oid in picked:
        tree = m.forge.patched(m.forge.read(onto).tree if onto else EMPTY, m.scene.deltas[oid])
        onto = m.forge.again(oid, onto, tree, by)
    return f" {how}", onto


KINDS: dict[str, list[tuple[str, Kind]]] = {
    "evidence": [
        ("bytes", _bytes),
        ("bytes", _bytes),
        ("values", _values),
        ("values", _values),
        ("tree", _tree),
        ("commit", _commit),
        ("order", _order),
    ],
    "requests": [("bytes", _bytes), ("values", _values), ("tree", _tree), ("commit", _commit), ("order", _order)],
    "main": [("bytes", _bytes), ("tree", _tree), ("commit", _commit), ("order", _order)],
}
