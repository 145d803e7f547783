"""`pkcs11:` addresses (RFC 7512): which module, token and key, and where the PIN comes from. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, unquote_to_bytes

from controller.errors import Invalid

MODULE_VARIABLE = "LOCKGATE_PKCS11_MODULE"
_TOKEN = frozenset(
    {"token", "serial", "manufacturer", "model", "slot-id", "slot-description", "slot-manufacturer"}
)
_LIBRARY = frozenset({"library-manufacturer", "library-description", "library-version"})
_KEY = frozenset({"object", "id", "type"})
_QUERY = frozenset({"pin-source", "module-path"})


@dataclass(frozen=True, slots=True)
class KeyAddress:
    """What an address says.

    `token` holds the attributes that the token and its slot must have, `library` those of the module, all by their
    names in RFC 7512; `label` and `key_id` name the key (at least one of them, or neither where the token holds
    one key); `pin_source` is None where the address names none.
    """

    module: str
    token: Mapping[str, str]
    library: Mapping[str, str]
    label: str | None
    key_id: bytes | None
    pin_source: str | None

    @property
    def where(self) -> str:
        """The address again, for messages: it never holds a PIN."""
        parts = [f"{name}={value}" for name, value in self.token.items()]
        parts += [f"object={self.label}"] if self.label is not None else []
        parts += [f"id={self.key_id.hex()}"] if self.key_id is not None else []
        return "pkcs11:" + ";".join(parts)


def parse_address(rest: str, environ: Mapping[str, str]) -> KeyAddress:
    """The address whose text after `pkcs11:` is `rest`; LOCKGATE_PKCS11_MODULE stands in for module-path.

    Raises Invalid("pkcs11-address"). An attribute that nobody here understands is refused, as RFC 7512 section
    2.3 asks; so is pin-value, whose text stands in process lists and logs, and is not repeated.
    """
    path, _, query = rest.partition("?")
    attributes, options = _pairs(path, ";"), _pairs(query, "&")
    if "pin-value" in options or "pin-value" in attributes:
        raise _malformed("a PIN in the address", "name a file or variable: pin-source=file:/PATH or env:NAME")
    for name in [*(attributes.keys() - _TOKEN - _LIBRARY - _KEY), *(options.keys() - _QUERY)]:
        raise _malformed(f"the attribute {name[:40]!r}", "leave it out")
    if attributes.get("type", "private") != "private":
        raise _malformed("type=" + attributes["type"][:20], "name the private key, or leave the type out")
    module = unquote(options.get("module-path", "")) or environ.get(MODULE_VARIABLE, "")
    if not module.startswith("/"):
        raise _malformed(
            f"the module {module!r}" if module else "no module",
            f"add ?module-path=/PATH/TO/MODULE.so, or set {MODULE_VARIABLE}",
        )
    plain = {name: unquote(value) for name, value in attributes.items()}
    return KeyAddress(
        module=module,
        token={name: plain[name] for name in plain if name in _TOKEN},
        library={name: plain[name] for name in plain if name in _LIBRARY},
        label=plain.get("object"),
        key_id=unquote_to_bytes(attributes["id"]) if "id" in attributes else None,
        pin_source=unquote(options["pin-source"]) if "pin-source" in options else None,
    )


def _pairs(text: str, separator: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for piece in filter(None, text.split(separator)):
        name, equals, value = piece.partition("=")
        if not equals or name in found:
            raise _malformed("an attribute without a value, or twice", "write name=value once each")
        found[name] = value
    return found


def _malformed(got: str, cure: str) -> Invalid:
    return Invalid(
        "pkcs11-address",
        "the address of a key on a token does not read",
        where="pkcs11:…",
        expected="pkcs11:token=LABEL;object=KEY?module-path=/PATH/MODULE.so&pin-source=file:/PATH (RFC 7512)",
        got=got,
        cure=cure,
    )
