"""Which tag a requirement means."""

from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.patterns import safe_pattern
from controller.core.select import candidates_digest, choose, classify, needs_tags
from controller.errors import Invalid
from controller.model.component import Component
from controller.model.release import ReleaseComponent

RULES = [
    {"pattern": r"^v\d+\.\d+\.\d+$", "channel": "stable"},
    {"pattern": "-(alpha|beta|rc)", "channel": "beta", "prerelease": True},
]
TAGS = [
    "latest", "v1.9.9", "v2.0.0", "v2.1.0", "v2.2.5", "v2.3.0", "v2.3.1", "v2.3.9", "v2.10.0",
    "v2.11.0-rc.1", "v2.11.0-rc.2", "v3.0.0-beta.1", "v3.0.0", "v0.2.3", "v0.2.9", "v0.3.0", "v2.3",
]  # fmt: skip


def component(scheme: str = "semver", **spec: object) -> Component:
    return Component.model_validate(
        {
            "apiVersion": "lockgate.dev/v1",
            "kind": "Component",
            "metadata": {"name": "api"},
            "spec": {
                "repository": "registry.example.com/shop/api",
                "versioning": {"scheme": scheme}
                | ({"tagPattern": spec.pop("tagPattern")} if "tagPattern" in spec else {}),
                **spec,
            },
        }
    )


def wants(**requirement: str) -> ReleaseComponent:
    return ReleaseComponent.model_validate(requirement)


API = component(rules=RULES, defaultChannel="stable")


@pytest.mark.parametrize(
    ("version", "tag"),
    [
        ("2.3.1", "v2.3.1"), ("=2.3.1", "v2.3.1"), ("v2.3.1", "v2.3.1"),
        (">=2.1 <3", "v2.10.0"), (">=2.1, <3", "v2.10.0"), (">= 2.1 < 3", "v2.10.0"),
        ("^2.3", "v2.10.0"), ("^2.3.1", "v2.10.0"), ("~2.3.1", "v2.3.9"), ("~2.3", "v2.3.9"),
        ("~>2.3.0", "v2.3.9"),
        ("2.x", "v2.10.0"), ("2", "v2.10.0"), ("2.3.x", "v2.3.9"), ("2.3", "v2.3.9"), ("*", "v3.0.0"),
        ("~2", "v2.10.0"),
        ("^0.2.3", "v0.2.9"), ("^0.2", "v0.2.9"), ("^0", "v0.3.0"), ("0.x", "v0.3.0"),
        (">2.3", "v3.0.0"), (">2.3 <3.0.0", "v2.10.0"), ("<=2.3", "v2.3.9"), ("<2.3", "v2.2.5"),
        ("<2.3.1", "v2.3.0"),
        ("<=2.3.1", "v2.3.1"), (">2.3.1 <2.4", "v2.3.9"), ("1.x || 2.2.x", "v2.2.5"),
        ("2.11.0-rc.1", "v2.11.0-rc.1"), (">=2.11.0-rc.1 <3", "v2.11.0-rc.2"), ("^2.11.0-rc.1", "v2.11.0-rc.2"),
        ("~2.11.0-rc.1", "v2.11.0-rc.2"), ("<3", "v2.10.0"), ("<3.0.0", "v2.10.0"),
        ("<=3.0.0-beta.1", "v3.0.0-beta.1"),
    ],
)  # fmt: skip
def test_ranges(version: str, tag: str) -> None:
    assert choose(API, wants(version=version), TAGS).tag == tag


@pytest.mark.parametrize(
    "version",
    [
        "",
        " ",
        "abc",
        ">",
        "^",
        "1.2.3.4",
        "01.2.3",
        "1..2",
        ">=2 ||",
        "~x.1",
        "1.x.3",
        ">*",
        "1.2.3 -",
        "2" * 300,
        "é",
    ],
)
def test_what_is_no_range_is_said(version: str) -> None:
    with pytest.raises(Invalid) as caught:
        choose(API, ReleaseComponent.model_construct(version=version, tag=None, digest=None, channel=None), TAGS)
    assert caught.value.code == "version-range"


def test_nothing_fits_lists_near_candidates() -> None:
    with pytest.raises(Invalid) as caught:
        choose(API, wants(version="2.3.4"), TAGS)
    assert caught.value.code == "version-not-found"
    assert "v2.3.1" in caught.value.got
    assert caught.value.expected == "2.3.4"
    with pytest.raises(Invalid) as caught:
        choose(API, wants(version="2.3.4"), [])
    assert caught.value.got == "no tag with a version"
    with pytest.raises(Invalid):
        choose(API, wants(version="^2.11"), TAGS)  # only pre-releases are there


def test_the_choice_says_how_it_was_made() -> None:
    choice = choose(API, wants(version="~2.3"), TAGS)
    assert (choice.semver, choice.channel, choice.rule) == ("2.3.9", "stable", RULES[0]["pattern"])
    assert choice.candidates == ("v2.3.0", "v2.3.1", "v2.3.9")


def test_channels() -> None:
    assert choose(API, wants(channel="stable"), TAGS).tag == "v3.0.0"
    assert choose(API, wants(channel="beta"), TAGS).tag == "v3.0.0-beta.1"
    assert choose(API, wants(version="2.x"), TAGS, channel="beta").tag == "v2.11.0-rc.2"
    with pytest.raises(Invalid) as caught:
        choose(API, wants(channel="nightly"), TAGS)
    assert caught.value.expected == "channel nightly"
    without_rules = component(defaultChannel="stable")
    assert choose(without_rules, wants(channel="stable"), ["1.0.0", "2.0.0"]).tag == "2.0.0"
    assert classify(API.spec, "v1.0.0-debug").channel is None


def test_tags_and_digests_need_no_list() -> None:
    by_tag = choose(API, wants(tag="v2.3.1"), [])
    assert (by_tag.tag, by_tag.semver, by_tag.channel, by_tag.candidates) == (
        "v2.3.1",
        "2.3.1",
        "stable",
        ("v2.3.1",),
    )
    by_digest = choose(API, wants(digest="sha256:" + "a" * 64), [])
    assert (by_digest.tag, by_digest.candidates) == (None, ())
    assert [needs_tags(wants(**one)) for one in ({"tag": "x"}, {"version": "1"}, {"channel": "c"})] == [
        False,
        True,
        True,
    ]


def test_semver_precedence_follows_the_specification() -> None:
    # semver.org 2.0.0, item 11
    order = ["alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1"]
    free = component(rules=[{"pattern": "-", "channel": "pre", "prerelease": True}])
    for below, above in itertools.pairwise(order):
        assert choose(free, wants(channel="pre"), [f"1.0.0-{above}", f"1.0.0-{below}"]).tag == f"1.0.0-{above}"


def test_dates() -> None:
    dated = component("date", tagPattern=r"^release-(?P<version>[\d.-]+)$", defaultChannel="stable")
    tags = [
        "release-2026.02.09",
        "release-2026-02-10",
        "release-2026.02.10.2",
        "release-2025.12.31",
        "release-2026.13.01",
    ]
    assert choose(dated, wants(channel="stable"), tags).tag == "release-2026.02.10.2"
    assert choose(dated, wants(version=">=20251201 <20260101"), tags).tag == "release-2025.12.31"
    assert choose(dated, wants(version="2026-02-09"), tags).tag == "release-2026.02.09"
    assert choose(dated, wants(channel="stable"), tags).semver is None


def test_sequential() -> None:
    numbered = component("sequential", tagPattern=r"^build-(?P<version>\d+)$", defaultChannel="main")
    tags = ["build-9", "build-10", "build-100", "build-1x"]
    assert choose(numbered, wants(channel="main"), tags).tag == "build-100"
    assert choose(numbered, wants(version=">9 <100"), tags).tag == "build-10"


def test_manual_versions_have_no_order() -> None:
    manual = component("manual", defaultChannel="stable")
    assert choose(manual, wants(version="blue"), ["blue", "green"]).tag == "blue"
    with pytest.raises(Invalid) as caught:
        choose(manual, wants(channel="stable"), ["blue", "green"])
    assert caught.value.code == "version-unordered"


def test_the_same_version_twice_is_chosen_by_name() -> None:
    for tags in (["v1.0.0", "1.0.0"], ["1.0.0", "v1.0.0"]):
        assert choose(component(), wants(version="1.0.0"), tags).tag == "1.0.0"


@given(st.randoms(use_true_random=False), st.sampled_from(["^2", "*", ">=0.2 <2.3", "~2.3"]))
@settings(max_examples=50, deadline=None)
def test_order_and_duplicates_do_not_matter(chance: random.Random, version: str) -> None:
    tags = TAGS * 2
    chance.shuffle(tags)
    assert choose(API, wants(version=version), tags) == choose(API, wants(version=version), TAGS)


@given(st.text(max_size=40), st.lists(st.text(max_size=140), max_size=10))
@settings(max_examples=200, deadline=None)
def test_no_text_crashes_it(version: str, tags: list[str]) -> None:
    requirement = ReleaseComponent.model_construct(version=version, tag=None, digest=None, channel=None)
    for scheme in ("semver", "date", "sequential", "manual"):
        try:
            choose(component(scheme), requirement, tags)
        except Invalid as error:
            assert error.code in ("version-range", "version-not-found")


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a|b*)*c", "(.*a){20}", r"(a)\1", "(", "a" * 300, "a{99999999999}", "(?:(?:x+)y?)*z", ".*.*.*a",
     "(a|a)*b", "a?" * 60 + "a" * 60, "(?=a)b", r"\d*\d*\d*\d*x", r"(\d{1,9}){1,9}x", "(?i)(a+A)+b", "(a?)*b",
     r"(?:(?:1(?:(?:a\w)?)?)+)?$"],
)  # fmt: skip
def test_dangerous_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(Invalid) as caught:
        safe_pattern(pattern)
    assert caught.value.code == "pattern-unsafe"


@pytest.mark.parametrize(
    "pattern",
    [
        r"^v(?P<version>\d+\.\d+\.\d+.*)$", r"^v?(?P<version>\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)$",
        "-(alpha|beta|rc)", "^(a|ab)*c$", r"\d*\d*\d*x",
        r"^(\d+\.)*\d+$", r"^release-(?P<version>[\d.-]+)$", r"^\w+-\w+$", r"(?i)^(dev|test)-.*$", ".*",
        r"^\w*\w*$",
        "",
        r"^(?P<version>\d+(?:\.\d+){2})(?:-(?P<pre>[a-z]+)\.(\d+))?$",
    ],
)  # fmt: skip
def test_ordinary_patterns_are_used_and_end_quickly(pattern: str) -> None:
    compiled = safe_pattern(pattern)
    started = time.process_time()
    for text in ("a" * 127 + "!", "1" * 127 + "!", "1." * 63 + "!", "v1.2." + "3" * 120 + "!", "a-" * 63 + "!"):
        compiled.search(text)
    assert time.process_time() - started < 0.5


def test_the_digest_of_candidates_is_canonical() -> None:
    assert candidates_digest(["b", "a"]) == candidates_digest(["a", "b"]) != candidates_digest(["a"])
    # sha256 of ["a","b"]
    assert candidates_digest(["a", "b"]).startswith("sha256:0473ef2dc0d324ab")
