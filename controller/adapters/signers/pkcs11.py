"""Keys on PKCS#11 tokens: smart cards, HSMs, SoftHSM. The private key never leaves the token.

PKCS#11 v2.40: CKM_ECDSA over the hash, CKM_EDDSA over the data, CKM_RSA_PKCS over a DigestInfo (RFC 8017 section
9.2), which is what tokens offer most widely. A module is initialised for one thread, so calls are in turn.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from controller.adapters.git.sshformat import ecdsa_blob, sign_by
from controller.adapters.signers.pin import pin_from
from controller.adapters.signers.pkcs11_public import public_key_of
from controller.adapters.signers.pkcs11_uri import KeyAddress, parse_address
from controller.errors import Invalid, Refused, Unavailable
from controller.model.sshwire import string

_DIGEST_INFO: Final = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_HASH_OF: Final = {"nistp256": "sha256", "nistp384": "sha384", "nistp521": "sha512"}
_turn = threading.RLock()
_wrong: set[tuple[str, str]] = set()
"""Tokens, by module and serial number, that refused a PIN nobody typed: it is not tried again."""
_sessions: dict[tuple[str, str], Any] = {}
"""The session that is logged in to each token: PKCS#11 logs in a process, and once."""


class TokenSigner:
    """A Signer over one key of a token. `rest` is its address after `pkcs11:` (see `parse_address`).

    Raises Invalid("pkcs11-address" | "pkcs11-module" | "token-missing" | "key-not-in-token" | "key-unusable" |
    "pin-missing"), Refused("pin-permissions" | "pin-wrong" | "pin-spent" | "token-refused"),
    Unavailable("pkcs11-missing" | "token-unreachable").
    Thread-safe.
    """

    __slots__ = ("_address", "_blob", "_environ", "_key", "_kind", "_public")

    def __init__(self, rest: str, environ: Mapping[str, str]) -> None:
        self._address = parse_address(rest, environ)
        self._environ = environ
        with _turn:
            self._key, self._public = _open(self._address, environ)
        kind, blob = self._public.split()
        self._kind = kind
        self._blob = base64.b64decode(blob)

    @property
    def public_key(self) -> str:
        """OpenSSH public key without comment."""
        return self._public

    def sign_raw(self, data: bytes) -> bytes:
        """The bare signature over `data`, as `sshformat.sign_raw` makes it."""
        if self._kind.startswith("ecdsa-"):
            return encode_dss_signature(*self._ecdsa(data))
        return self._rsa("sha256", data) if self._kind == "ssh-rsa" else self._eddsa(data)

    def sign_ssh(self, data: bytes, namespace: str) -> str:
        """An armored SSHSIG over `data`."""

        def signed(message: bytes) -> bytes:
            if self._kind.startswith("ecdsa-"):
                return ecdsa_blob(self._kind.encode(), *self._ecdsa(message))
            if self._kind == "ssh-rsa":
                return string(b"rsa-sha2-512") + string(self._rsa("sha512", message))
            return string(b"ssh-ed25519") + string(self._eddsa(message))

        return sign_by(signed, self._blob, data, namespace)

    def _eddsa(self, data: bytes) -> bytes:
        return self._sign(data, "EDDSA")

    def _rsa(self, algorithm: str, data: bytes) -> bytes:
        return self._sign(_DIGEST_INFO[algorithm] + hashlib.new(algorithm, data).digest(), "RSA_PKCS")

    def _ecdsa(self, data: bytes) -> tuple[int, int]:
        hashed = hashlib.new(_HASH_OF[self._kind.rpartition("-")[2]], data).digest()
        both = self._sign(hashed, "ECDSA")
        half = len(both) // 2
        return int.from_bytes(both[:half], "big"), int.from_bytes(both[half:], "big")

    def _sign(self, data: bytes, mechanism: str) -> bytes:
        """One signature. A session that the token ended is opened again, once."""
        library = _library()
        with _turn:
            try:
                return _signature(self._key, data, mechanism)
            except (
                library.SessionHandleInvalid,
                library.SessionClosed,
                library.UserNotLoggedIn,
                library.KeyHandleInvalid,
                library.ObjectHandleInvalid,
                library.DeviceRemoved,
                library.TokenNotPresent,
            ):
                again, public = _open(self._address, self._environ)
                if public != self._public:
                    raise _not_in_token(self._address, "another key than before") from None
                self._key = again
            except library.PKCS11Error as error:
                raise _refused(self._address, type(error).__name__) from None
            try:
                return _signature(self._key, data, mechanism)
            except library.PKCS11Error as error:
                raise _refused(self._address, type(error).__name__) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._public!r})"


def _signature(key: Any, data: bytes, mechanism: str) -> bytes:
    return bytes(key.sign(data, mechanism=getattr(_library().Mechanism, mechanism)))


def _library() -> Any:
    try:
        import pkcs11
    except ImportError as error:
        raise Unavailable(
            "pkcs11-missing",
            "keys on tokens cannot be used on this machine",
            where="pkcs11:…",
            expected="the library python-pkcs11",
            got="not installed",
            cure="pip install 'lockgate[pkcs11]', or hold the key in ssh-agent (ssh-add -s MODULE)",
        ) from error
    return pkcs11


def _open(address: KeyAddress, environ: Mapping[str, str]) -> tuple[Any, str]:
    """The private key, in a session that stays open, and its public key in OpenSSH form."""
    library = _library()
    token = _token(address, _module(address))
    try:
        session = _session(address, token, environ)
        keys = [key for key in _objects(session, library.ObjectClass.PRIVATE_KEY) if _is(key, address)]
        if len(keys) != 1:
            listed = keys or _objects(session, library.ObjectClass.PRIVATE_KEY)
            raise _not_in_token(address, ", ".join(map(_named, listed)) or "no keys")
        if not hasattr(keys[0], "sign"):
            raise _refused(address, "a key whose CKA_SIGN is false")
        return keys[0], public_key_of(keys[0], lambda kind: _objects(session, kind), address.where)
    except library.PKCS11Error as error:
        raise _unreachable(address, error) from None


def _module(address: KeyAddress) -> Any:
    library = _library()
    if not Path(address.module).is_file():
        raise _no_module(address, "no such file")
    try:
        module = library.lib(address.module)
    except library.PKCS11Error as error:
        raise _no_module(address, str(error)[:200] or type(error).__name__) from None
    version = ".".join(map(str, module.library_version))
    known = {
        "library-manufacturer": module.manufacturer_id,
        "library-description": module.library_description,
        "library-version": version,
    }
    if any(known[name].strip() != value for name, value in address.library.items()):
        raise _no_module(address, ", ".join(f"{name}={value.strip()}" for name, value in known.items()))
    return module


def _token(address: KeyAddress, module: Any) -> Any:
    library = _library()
    seen: list[str] = []
    found = []
    try:
        slots = module.get_slots(token_present=True)
    except library.PKCS11Error as error:
        raise _unreachable(address, error) from None
    for slot in slots:
        try:
            token = slot.get_token()
        except library.PKCS11Error:
            continue  # taken out just now, or of a kind that the module cannot read
        if not token.flags & library.TokenFlag.TOKEN_INITIALIZED:
            continue
        seen.append(f"token={token.label};serial={_text(token.serial)}")
        known = {
            "token": token.label,
            "serial": _text(token.serial),
            "manufacturer": _text(token.manufacturer_id),
            "model": _text(token.model),
            "slot-id": str(slot.slot_id),
            "slot-description": _text(slot.slot_description),
            "slot-manufacturer": _text(slot.manufacturer_id),
        }
        if all(known[name].strip() == value for name, value in address.token.items()):
            found.append(token)
    if len(found) != 1:
        raise Invalid(
            "token-missing",
            "the module does not show exactly one such token",
            where=address.where,
            expected="one initialised token with these attributes",
            got=", ".join(seen) or "no tokens",
            cure="plug it in, or name it by token=LABEL or serial=NUMBER",
        )
    return found[0]


def _session(address: KeyAddress, token: Any, environ: Mapping[str, str]) -> Any:
    """A session that is logged in, where the token asks for it."""
    library, flags = _library(), token.flags
    if not flags & library.TokenFlag.LOGIN_REQUIRED:
        return token.open()
    mark = (address.module, _text(token.serial))
    if (session := _in_use(mark)) is not None:
        return session
    if flags & (library.TokenFlag.USER_PIN_LOCKED | library.TokenFlag.USER_PIN_FINAL_TRY):
        locked = flags & library.TokenFlag.USER_PIN_LOCKED
        raise _spent(address, "a locked PIN" if locked else "one try before it is locked")
    if flags & library.TokenFlag.PROTECTED_AUTHENTICATION_PATH and address.pin_source is None:
        return _logged_in(address, mark, lambda: token.open(user_pin=library.PROTECTED_AUTH))
    pin = pin_from(address.pin_source, address.where, environ)
    if not pin.typed and (flags & library.TokenFlag.USER_PIN_COUNT_LOW or mark in _wrong):
        # A service that is started again and again would use up every try.
        raise _spent(address, "a wrong PIN since the last right one")
    session = _logged_in(address, mark, lambda: token.open(user_pin=pin.text))
    _wrong.discard(mark)
    return session


def _in_use(mark: tuple[str, str]) -> Any:
    """The session in which another key of this token is in use here, if it still lives: its login is shared."""
    library, session = _library(), _sessions.get(mark)
    if session is not None:
        try:
            _objects(session, library.ObjectClass.PRIVATE_KEY)
        except library.PKCS11Error:
            del _sessions[mark]
            return None
    return session


def _logged_in(address: KeyAddress, mark: tuple[str, str], attempt: Callable[[], Any]) -> Any:
    library = _library()
    try:
        session = _sessions[mark] = attempt()
        return session
    except (library.PinIncorrect, library.PinInvalid, library.PinLenRange):
        _wrong.add(mark)
        raise Refused(
            "pin-wrong",
            "the token refuses the PIN",
            where=address.where,
            expected="the token's user PIN",
            got="another, tried once",
            cure="mend the PIN, then type it once at a terminal: an unattended wrong PIN is not tried again",
        ) from None
    except library.PinLocked:
        raise _spent(address, "a locked PIN") from None


def _objects(session: Any, kind: Any) -> list[Any]:
    """The token's objects of a kind. All at once: a search that is open lets no key sign."""
    return list(session.get_objects({_library().Attribute.CLASS: kind}))


def _is(key: Any, address: KeyAddress) -> bool:
    return (address.label is None or key.label == address.label) and (
        address.key_id is None or key.id == address.key_id
    )


def _named(key: Any) -> str:
    return f"object={key.label};id={key.id.hex()}"


def _text(value: str | bytes) -> str:
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else value).strip("\0 ")


def _not_in_token(address: KeyAddress, got: str) -> Invalid:
    return Invalid(
        "key-not-in-token",
        "the token does not hold exactly one such key",
        where=address.where,
        expected="one private key with this label or id",
        got=got,
        cure="name it by object=LABEL or id=%HEX, as the token's own tool lists it",
    )


def _refused(address: KeyAddress, got: str) -> Refused:
    return Refused(
        "token-refused",
        "the token does not sign",
        where=address.where,
        expected="a signature",
        got=got,
        cure="see whether the key may sign (CKA_SIGN) and what the token's own tool says of it",
    )


def _no_module(address: KeyAddress, got: str) -> Invalid:
    return Invalid(
        "pkcs11-module",
        "the token's PKCS#11 module cannot be loaded",
        where=address.module,
        expected="the path of the shared library that came with the token",
        got=got,
        cure="install the token's software, and name its module: module-path=/PATH/MODULE.so",
    )


def _spent(address: KeyAddress, got: str) -> Refused:
    return Refused(
        "pin-spent",
        "no PIN is tried on this token: a wrong one could lock it",
        where=address.where,
        expected="a token whose last login was right",
        got=got,
        cure="type the right PIN once at a terminal (an address without pin-source), or unlock the token",
    )


def _unreachable(address: KeyAddress, error: Exception) -> Unavailable:
    return Unavailable(
        "token-unreachable",
        "the token does not answer",
        where=address.where,
        expected="a token that is plugged in",
        got=type(error).__name__,
        cure="plug it in; see what the token's own tool says",
    )
