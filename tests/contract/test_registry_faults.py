"""What a registry does wrong, and what is made of it: waited for, asked again, refused."""

from __future__ import annotations

import contextlib
import hashlib
import json

import pytest

from controller.adapters.registries import (
    Limits,
    OciRegistry,
)
from controller.adapters.registries.manifests import OCI_INDEX, OCI_MANIFEST, read_manifest
from controller.errors import Invalid, LockgateError, Refused, Unavailable
from tests.support.fault_registry import FaultRegistry
from tests.support.registry import FakePace


def test_busy_is_waited_for_as_long_as_asked(faulty: FaultRegistry, client: OciRegistry, pace: FakePace) -> None:
    faulty.fault(status=429, headers={"Retry-After": "7"})
    faulty.fault(status=503, headers={"Retry-After": "Thu, 19 Feb 2026 02:00:20 GMT"})
    faulty.fault(status=500)
    client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert pace.slept == [7.0, 13.0, 1.0]


def test_patience_ends(faulty: FaultRegistry, client: OciRegistry, pace: FakePace) -> None:
    faulty.fault(status=500, times=100)
    with pytest.raises(Unavailable) as caught:
        client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert caught.value.code == "registry-unavailable"
    assert len(faulty.seen) == Limits().attempts
    assert pace.slept == [0.25, 0.5, 1.0]


def test_a_long_retry_after_is_handed_on(faulty: FaultRegistry, client: OciRegistry, pace: FakePace) -> None:
    faulty.fault(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(Unavailable) as caught:
        client.tags(f"{faulty.host}/shop/api")
    assert (caught.value.code, caught.value.retry_after, pace.slept) == ("registry-busy", 3600.0, [])


@pytest.mark.parametrize(("status", "expected"), [(401, "registry-unauthorized"), (403, "registry-unauthorized")])
def test_refusals_are_not_retried(faulty: FaultRegistry, client: OciRegistry, status: int, expected: str) -> None:
    faulty.fault(status=status, times=100)
    with pytest.raises(Refused) as caught:
        client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert caught.value.code == expected
    assert len(faulty.seen) == 1


def test_one_truncated_answer_is_asked_again(faulty: FaultRegistry, client: OciRegistry) -> None:
    faulty.fault(truncate=True)
    assert client.manifest(f"{faulty.host}/shop/api", "v1.0.0").media_type == OCI_MANIFEST


def test_truncated_answers_are_unavailable(faulty: FaultRegistry, client: OciRegistry) -> None:
    digest = json.loads(client.manifest(f"{faulty.host}/shop/api", "v1.0.0").body)["layers"][0]["digest"]
    faulty.fault(truncate=True, times=100)
    with pytest.raises(Unavailable) as caught:
        client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert caught.value.code == "registry-truncated"
    with pytest.raises(Unavailable) as caught:
        list(client.blob(f"{faulty.host}/shop/api", digest))
    assert caught.value.code == "registry-truncated"


def test_a_server_that_hangs_times_out(faulty: FaultRegistry, pace: FakePace) -> None:
    faulty.fault(hang=True)
    limits = Limits(timeout=0.1, attempts=1)
    with (
        contextlib.closing(OciRegistry(pace=pace, limits=limits)) as registry,
        pytest.raises(Unavailable) as caught,
    ):
        registry.tags(f"{faulty.host}/shop/api")
    assert caught.value.code == "registry-timeout"


def test_nobody_listening_is_unavailable(faulty: FaultRegistry, client: OciRegistry) -> None:
    with pytest.raises(Unavailable) as caught:
        client.tags("127.0.0.1:1/shop/api")
    assert caught.value.code == "registry-unavailable"


def test_wrong_bytes_are_refused(faulty: FaultRegistry, client: OciRegistry) -> None:
    repository = f"{faulty.host}/shop/api"
    good = client.manifest(repository, "v1.0.0")
    other = client.manifest(repository, "v1.0.1")
    faulty.fault(body=other.body, times=2)
    for reference in (good.digest, "v1.0.0"):
        with pytest.raises(Refused) as caught:
            client.manifest(repository, reference)
        assert caught.value.code == "digest-mismatch"
        assert (caught.value.expected, caught.value.got) == (good.digest, other.digest)
    faulty.fault(flip=True)
    with pytest.raises(Refused):
        client.manifest(repository, good.digest)


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ({"mediaType": OCI_INDEX, "manifests": [], "layers": []}, OCI_INDEX, "manifest-ambiguous"),
        ({"mediaType": OCI_INDEX, "manifests": [], "config": {}}, OCI_INDEX, "manifest-ambiguous"),
        ({"mediaType": OCI_MANIFEST, "layers": []}, OCI_INDEX, "manifest-ambiguous"),
        ({"mediaType": OCI_MANIFEST, "layers": []}, "application/json", "manifest-ambiguous"),
        ({"layers": []}, OCI_INDEX, "manifest-ambiguous"),
        ({"schemaVersion": 1, "fsLayers": []}, "application/json", "manifest-unsupported"),
    ],
)
def test_ambiguous_manifests_are_refused(
    faulty: FaultRegistry, client: OciRegistry, body: dict[str, object], kind: str, expected: str
) -> None:
    raw = json.dumps(body).encode()
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    faulty.fault(body=raw, headers={"Content-Type": kind, "Docker-Content-Digest": digest})
    with pytest.raises(LockgateError) as caught:
        client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert caught.value.code == expected


def test_a_key_twice_is_ambiguous() -> None:
    body = b'{"mediaType": "%s", "layers": [], "layers": []}' % OCI_MANIFEST.encode()
    with pytest.raises(Refused) as caught:
        read_manifest(body, OCI_MANIFEST, repository="r", reference="t")
    assert caught.value.code == "manifest-ambiguous"


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 100_000, b"\xff", b"{", b'"x"'])
def test_what_is_no_json_object_is_malformed(body: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_manifest(body, OCI_MANIFEST, repository="r", reference="t")
    assert caught.value.code == "manifest-malformed"


def test_huge_answers_are_cut_off(faulty: FaultRegistry, client: OciRegistry) -> None:
    faulty.fault(body=b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(Refused) as caught:
        client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert caught.value.code == "registry-answer-too-large"


@pytest.mark.parametrize(
    "link",
    [
        '</v2/shop/api/tags/list?n=1000>; rel="next"',
        '<http://other.example.com/v2/shop/api/tags/list?n=1>; rel="next"',
        '</v2/other/tags/list?n=1>; rel="next"',
    ],
)
def test_pages_must_end_within_the_repository(faulty: FaultRegistry, client: OciRegistry, link: str) -> None:
    faulty.fault(headers={"Link": link}, times=100)
    with pytest.raises(Refused) as caught:
        client.tags(f"{faulty.host}/shop/api")
    assert caught.value.code == "registry-pagination"
