"""Time-stamps: checking an RFC 3161 token over some bytes, from pinned certificates. Pure: no clock, no network.

The certificates must have been valid when the token was made, not now: a token outlives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from controller.errors import Invalid, Refused, Unavailable

if TYPE_CHECKING:
    from cryptography import x509


def check_token(token: bytes, message: bytes, certificates: Sequence[str]) -> datetime:
    """When an authority under one of the PEM `certificates` says that `message` existed; `token` is a
    TimeStampResp (DER).

    Raises Refused("time-anchor-invalid"), Invalid("time-certificate-malformed"), and without the library
    Unavailable("time-stamps-missing").
    """
    return check_response(token, message, certificates, None)


def check_response(token: bytes, message: bytes, certificates: Sequence[str], request: Any) -> datetime:
    """As `check_token`; with the `request` just sent, the answer's nonce and policy must be those asked for."""
    client = library()
    roots = [_certificate(pem) for pem in certificates]
    if not roots:
        raise Refused(
            "time-anchor-invalid",
            "no certificate of this time-stamp authority is pinned",
            where="trust/trust.yaml timeAuthorities",
            cure="have the owners pin the authority's certificate in the trust document",
        )
    builder = client.VerifierBuilder() if request is None else client.VerifierBuilder.from_request(request)
    try:
        response = client.decode_timestamp_response(token)
        for root in dict.fromkeys(roots):
            builder = builder.add_root_certificate(root)
        builder.build().verify_message(response, message)
        time: datetime = response.tst_info.gen_time
    except (ValueError, client.VerificationError) as error:
        raise Refused(
            "time-anchor-invalid",
            "the time-stamp does not hold",
            expected="a token over these bytes by the authority that Trust pins",
            got=" ".join(str(error).split())[:200],
        ) from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def library() -> Any:
    """The time-stamp library; raises Unavailable("time-stamps-missing")."""
    try:
        import rfc3161_client
    except ImportError as error:
        raise Unavailable(
            "time-stamps-missing",
            "time-stamps cannot be checked on this machine",
            expected="the library rfc3161-client",
            got="not installed",
            cure="pip install 'lockgate[time]'",
        ) from error
    return rfc3161_client


def _certificate(pem: str) -> x509.Certificate:
    from cryptography import x509  # slow to load, and few histories hold a token

    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise Invalid(
            "time-certificate-malformed",
            "a time authority's certificate does not read",
            where="trust/trust.yaml timeAuthorities",
            expected="one PEM certificate an item",
            got=str(error)[:100],
        ) from error
