"""A Rekor v2 log over HTTP: submits a checkpoint's digest and signature, and believes only what verifies.

API: rekor-tiles' `POST /api/v2/log/entries`. It answers once the entry is in the tree, after some seconds. An
entry that it has already is 409 with its index; its proof is then made from the log's tiles (`/api/v2/tile/…`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import httpx

from controller.errors import Invalid, LockgateError, Refused, Unavailable
from controller.ledger.log import ROOT, Tree
from controller.ledger.rekor import (
    Logged,
    algorithm_of,
    body_of,
    check_logged,
    log_key,
    open_note,
    read_answer,
    request_of,
)
from controller.model.keys import PublicKey, public_key
from controller.ports import Clock, PrehashSigner, Signer

TIMEOUT = 30.0
"""Seconds: the log answers after its next checkpoint, and asks clients for 20 or more."""
MOST_BYTES = 1 << 20


class RekorSubmitter:
    """Answers `publish` questions by a log; `signer` signs what is submitted, `timeout` is for each request."""

    def __init__(self, signer: Signer, clock: Clock, timeout: float = TIMEOUT) -> None:
        self._signer = signer
        self._clock = clock
        self._timeout = timeout

    def ask(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The entry about a checkpoint with its proof, checked, as `Published` records it.

        Raises Unavailable("rekor-unreachable"), Refused("rekor-refused" | "rekor-entry-invalid"),
        Invalid("rekor-key-unfit" | "rekor-log-key-malformed").
        """
        url, origin, keys = payload["url"].rstrip("/"), payload["origin"], payload["keys"]
        if not keys:
            raise Invalid(
                "rekor-log-key-malformed",
                "no key of this transparency log is pinned",
                where="trust/trust.yaml transparencyLogs",
                expected=f"the log {payload['log']} with its origin and keys",
                cure="have the owners pin the log's key in the trust document",
            )
        for pem in keys:
            log_key(pem)
        message, public = payload["checkpoint"].encode(), self._signer.public_key
        if public not in payload["submitters"]:
            raise Invalid(
                "rekor-key-unfit",
                "the key that signs for the transparency log is not the controller's",
                expected="a key of the role controller in Trust",
                got=public[:60],
                cure="give the public key to a principal of the role controller in trust/trust.yaml",
            )
        signature = self._sign(message)
        request = json.dumps(request_of(public, message, signature)).encode()
        status, headers, data = self._exchange("POST", f"{url}/api/v2/log/entries", request)
        if status == 409:
            body = body_of(public, message, signature)
            logged = self._there_already(url, origin, keys, headers.get("x-log-index", ""), body)
        elif status in (200, 201):
            logged = read_answer(data)
        else:
            raise _refused(url, status, data)
        check_logged(logged, message, [public], origin, keys)
        return {
            "index": logged.index,
            "body": _base64(logged.body),
            "hashes": [_base64(item) for item in logged.hashes],
            "proof": logged.checkpoint,
        }

    def _sign(self, message: bytes) -> bytes:
        key: PublicKey = public_key(self._signer.public_key)
        if algorithm_of(key).details != "PKIX_ED25519_PH":
            return self._signer.sign_raw(message)
        if isinstance(self._signer, PrehashSigner):
            return self._signer.sign_prehashed(message)
        raise Invalid(
            "rekor-key-unfit",
            "ssh-agent and tokens make no Ed25519ph signatures, and Rekor takes no other Ed25519 ones",
            expected="a key file, or an ecdsa or rsa key",
            got="an ed25519 key that is not in a file",
            cure="give the controller an ecdsa key for the log with --log-key, and Trust its public key",
        )

    def _there_already(self, url: str, origin: str, keys: list[str], index: str, body: bytes) -> Logged:
        """The proof of an entry that was submitted before, by a controller that did not live to record it."""
        if not index.isdigit():
            raise _refused(url, 409, b"no index of the entry that it has")
        note = self._get(f"{url}/api/v2/checkpoint").decode("utf-8", "replace")
        size, _ = open_note(note, origin, keys)
        tree = Tree(size, lambda path: self._get(f"{url}/api/v2/{path.removeprefix(ROOT)}"))
        try:
            return Logged(int(index), body, tuple(tree.inclusion(int(index))), note)
        except Refused as error:
            raise Refused(
                "rekor-entry-invalid", "the transparency log's tiles do not hold", got=error.said
            ) from error

    def _get(self, url: str) -> bytes:
        status, _, data = self._exchange("GET", url, None)
        if status != 200:
            raise _refused(url, status, data)
        return data

    def _exchange(self, method: str, url: str, content: bytes | None) -> tuple[int, httpx.Headers, bytes]:
        end = self._clock.monotonic() + self._timeout
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if content else {})
        data = bytearray()
        try:
            with httpx.stream(method, url, content=content, headers=headers, timeout=self._timeout) as answer:
                for chunk in answer.iter_bytes():
                    data += chunk
                    if len(data) > MOST_BYTES or self._clock.monotonic() > end:
                        raise httpx.ReadTimeout("the answer does not end")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unreachable(url, str(error) or type(error).__name__) from error
        if answer.status_code >= 500 or answer.status_code == 429:
            raise _unreachable(url, f"status {answer.status_code}")
        return answer.status_code, answer.headers, bytes(data)


def _unreachable(url: str, got: str) -> Unavailable:
    return Unavailable(
        "rekor-unreachable",
        "the transparency log does not answer",
        where=url,
        got=got,
        cure="nothing is held up by it: it is asked again until the run is published",
    )


def _refused(url: str, status: int, data: bytes) -> LockgateError:
    said = data[:200].decode("utf-8", "replace")
    return Refused(
        "rekor-refused",
        "the transparency log does not take the entry",
        where=url,
        expected="status 201 with the entry's inclusion proof",
        got=f"status {status}: {' '.join(said.split())}",
        cure="see that the url is a Rekor v2 log that takes entries (public ones are replaced every few months)",
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
