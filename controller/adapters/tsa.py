"""A time-stamp authority over HTTP (RFC 3161 section 3.4): asks for a token and believes only what verifies."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx

from controller.errors import Refused, Unavailable
from controller.ledger.timestamp import check_response, library
from controller.model.entry import format_time
from controller.model.order import MAX_CLOCK_SKEW
from controller.ports import Clock

TIMEOUT = 10.0
MOST_BYTES = 1 << 20


class TimeStamper:
    """Answers `time-stamp` questions; `timeout` is in seconds, for the whole exchange."""

    def __init__(self, clock: Clock, timeout: float = TIMEOUT) -> None:
        self._clock = clock
        self._timeout = timeout

    def ask(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The token over a checkpoint, checked, and its time.

        Raises Unavailable("tsa-unreachable" | "time-stamps-missing"), Refused("time-anchor-invalid"), and
        Refused("clock-skew") when the authority's time is not this machine's.
        """
        client = library()
        message = payload["checkpoint"].encode()
        builder = client.TimestampRequestBuilder().data(message).hash_algorithm(client.HashAlgorithm.SHA256)
        request = builder.cert_request(cert_request=True).build()
        token = self._exchange(payload["url"], request.as_bytes())
        time = check_response(token, message, payload["certificates"], request)
        ahead = self._clock.now() - time
        if abs(ahead) > timedelta(seconds=MAX_CLOCK_SKEW):
            raise Refused(
                "clock-skew",
                "the controller's clock is not the time-stamp authority's",
                where=payload["authority"],
                expected=f"within {MAX_CLOCK_SKEW:.0f} s of {format_time(time)}",
                got=f"{ahead.total_seconds():.0f} s ahead",
                cure="set the clock of the controller's host",
            )
        return {"token": base64.b64encode(token).decode(), "time": format_time(time)}

    def _exchange(self, url: str, request: bytes) -> bytes:
        end = self._clock.monotonic() + self._timeout
        headers = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
        data = bytearray()
        try:
            with httpx.stream("POST", url, content=request, headers=headers, timeout=self._timeout) as answer:
                answer.raise_for_status()
                for chunk in answer.iter_bytes():
                    data += chunk
                    if len(data) > MOST_BYTES or self._clock.monotonic() > end:
                        raise httpx.ReadTimeout("the answer does not end")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(
                "tsa-unreachable",
                "the time-stamp authority does not answer",
                where=url,
                got=str(error) or type(error).__name__,
                cure="nothing is held up by it: it is asked again until the run is anchored",
            ) from error
        return bytes(data)
