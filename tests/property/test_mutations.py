"""Thousands of random mutations of a whole history: every one is found, and none crashes the verifier.

A failure names its seed. Mutations of evidence are looked for first from the last push that was not touched, which
finds nearly all of them at a fraction of the cost; what that does not find is verified from genesis, and so is one
in twenty of those that it finds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from controller.errors import Invalid
from tests.support.home import named_key
from tests.support.mutants import REFS, Mutant, Mutator, Scene, redrafted

SEED = 20261121
PLAN = {"evidence": 3900, "redrafted": 900, "pinned": 60, "requests": 80, "main": 80}
"""How many mutations of each sort."""
CHUNK = 20


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def mutator(scene: Scene) -> Mutator:
    assert scene.home.verify().findings == ()
    # What is said after an untouched commit is then said of the mutation.
    assert [push for push in scene.pushes if scene.home.verify(since=push).findings] == []
    return Mutator(scene)


def made(mutator: Mutator, sort: str, seed: int) -> Mutant:
    rng, scene = random.Random(f"{SEED}-{sort}-{seed}"), mutator.scene
    if sort == "redrafted":
        first = len(scene.home.passes) - 6 if seed % 4 else scene.pinned
        return redrafted(scene, rng, first, len(scene.home.passes), free=False)
    if sort == "pinned":
        return redrafted(scene, rng, 1, scene.pinned, free=True)
    signers = {"the controller": scene.home.controller, "mallory": named_key("mallory"), "nobody": None}
    # Most near the end, where verifying costs least.
    first = len(scene.lines[sort]) - (8 if seed % 10 else 20) if sort == "evidence" else 1
    return mutator.mutate(rng, sort, first, signers)


def found(scene: Scene, mutant: Mutant, anew: bool) -> bool:
    """Whether verification says so: after what was not touched, and from genesis when that does not or `anew`."""
    if mutant.since is not None:
        try:
            late = bool(scene.home.verify(since=mutant.since).findings)
        except Invalid as error:
            assert error.code == "commit-not-found"
            late = False
        if late and not anew:
            return True
    return bool(scene.home.verify().findings)


def chunks() -> Iterator[tuple[str, int, int]]:
    for sort, count in PLAN.items():
        for start in range(0, count, CHUNK * 5):
            yield sort, start, min(count, start + CHUNK * 5)


@pytest.mark.parametrize(("sort", "first", "last"), list(chunks()))
def test_every_mutation_is_found(mutator: Mutator, sort: str, first: int, last: int) -> None:
    scene = mutator.scene
    missed = []
    for start in range(first, last, CHUNK):
        mutants = {seed: made(mutator, sort, seed) for seed in range(start, min(last, start + CHUNK))}
        with scene.forge.stored():
            for seed, mutant in mutants.items():
                scene.forge.point(REFS[mutant.branch], mutant.tip)
                try:
                    if not found(scene, mutant, anew=seed % CHUNK == 0):
                        missed.append(f"{sort} seed {seed}: {mutant.what}")
                finally:
                    scene.forge.point(REFS[mutant.branch], scene.tips[mutant.branch])
    assert missed == []


def test_there_are_enough_of_them() -> None:
    assert sum(PLAN.values()) >= 5000
    assert sum(last - first for _, first, last in chunks()) == sum(PLAN.values())


def test_both_ways_of_walking_say_the_same(mutator: Mutator) -> None:
    """A repository whose checksums cannot be trusted is walked path by path; nothing else comes out."""
    scene = mutator.scene
    alternates = scene.home.origin / "objects" / "info" / "alternates"
    alternates.parent.mkdir(exist_ok=True)
    for seed in range(24):
        mutant = made(mutator, ("evidence", "redrafted")[seed % 2], seed)
        with scene.forge.stored():
            scene.forge.point(REFS[mutant.branch], mutant.tip)
            quick = scene.home.verify()
            alternates.write_text("")
            slow = scene.home.verify()
            alternates.unlink()
            scene.forge.point(REFS[mutant.branch], scene.tips[mutant.branch])
        assert quick == slow, f"seed {seed}: {mutant.what}"
