"""Keys changed in the text of documents: nothing else of the text changes, whatever its layout."""

from __future__ import annotations

import base64
import difflib
from datetime import UTC, datetime

import pytest

from controller.core.parse import parse
from controller.core.rotation import rotate_agent, rotate_principal
from controller.core.trust import TrustState
from controller.errors import Invalid, Refused
from controller.model.documents import Agent
from tests.support.history import ssh_key
from tests.support.shop import trust_bytes

UNTIL = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEW = ssh_key("a new key")
BLOCK = f"""\
    dave:   # leaves in spring
      keys:
        # the laptop
        - '{ssh_key("dave")}'   # since 2024
        - "{ssh_key("dave's other")} dave@desk"

      emails: [dave@example.com]
"""
FLOW = f"    dave: {{keys: ['{ssh_key('dave')}'], emails: [dave@example.com]}}  # a comment\n"
FORMER = f"""\
    dave:
      keys:
        - {{publicKey: '{ssh_key("dave")}', validBefore: '2026-02-01T00:00:00Z'}}
        - publicKey: '{ssh_key("dave's other")}'
          validAfter: '2026-01-01T00:00:00Z'
"""
PLAIN = f"    dave:\n      keys: ['{ssh_key('dave')}']\n"
LAYOUTS = {"block": BLOCK, "flow": FLOW, "former": FORMER, "plain": PLAIN}


def document(dave: str) -> bytes:
    text = trust_bytes().decode()
    begin = text.index("    dave:\n")
    return (text[:begin] + dave + text[text.index("    dina:\n") :]).encode()


def added(before: bytes, after: bytes) -> list[str]:
    found = difflib.unified_diff(before.decode().splitlines(), after.decode().splitlines(), n=0, lineterm="")
    return [line for line in found if line[0] in "+-" and line[:3] not in ("+++", "---")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_principal_rotates_with_an_overlap(layout: str) -> None:
    before = document(LAYOUTS[layout])
    after = rotate_principal(before, "dave", NEW, UNTIL)
    state = TrustState.parse(after)
    assert state.version == 2
    spans = dict(state.members["dave"].spans)
    assert spans.pop(" ".join(NEW.split()[:2])) == (None, None)
    assert spans and all(end is not None and end <= UNTIL for _, end in spans.values())
    assert set(spans) == set(TrustState.parse(before).members["dave"].spans)
    for comment in ("# leaves in spring", "# the laptop", "# since 2024", "# a comment", "dave@desk"):
        assert (comment in before.decode()) == (comment in after.decode())
    changed = added(before, after)
    assert all("dave" in line or "version" in line or "ssh-ed25519" in line or "valid" in line for line in changed)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_compromised_principal_keeps_no_old_key(layout: str) -> None:
    after = rotate_principal(document(LAYOUTS[layout]), "dave", NEW, None)
    assert list(TrustState.parse(after).members["dave"].spans) == [" ".join(NEW.split()[:2])]


def test_a_second_rotation_lengthens_no_key() -> None:
    once = rotate_principal(document(PLAIN), "dave", NEW, UNTIL)
    later = datetime(2026, 6, 1, tzinfo=UTC)
    twice = TrustState.parse(rotate_principal(once, "dave", ssh_key("newer"), later))
    ends = {key: end for key, (_, end) in twice.members["dave"].spans.items()}
    assert ends == {ssh_key("dave"): UNTIL, NEW: later, ssh_key("newer"): None}


def test_what_is_refused() -> None:
    with pytest.raises(Refused, match="key-reused"):
        rotate_principal(document(PLAIN), "dave", ssh_key("dina"), UNTIL)
    with pytest.raises(Invalid, match="principal-unknown"):
        rotate_principal(document(PLAIN), "nobody", NEW, UNTIL)
    blob = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x01x").decode()
    with pytest.raises(Invalid):
        rotate_principal(document(PLAIN), "dave", f"ssh-ed25519 {blob}", UNTIL)


AGENT = "apiVersion: lockgate.dev/v1\nkind: Agent\nmetadata: {name: web-1}\n"
KEY = ssh_key("web-1")


@pytest.mark.parametrize(
    "spec",
    [
        f"spec:\n  environment: dev\n  publicKey: '{KEY}'  # the host's\n  driver: process\n",
        f"spec: {{environment: dev, publicKey: '{KEY}', driver: process}}\n",
        f"spec:\n  environment: dev\n  publicKey: {KEY}",
        f"spec:\n  publicKey: '{KEY}'\n  previousKeys:\n  - publicKey: '{ssh_key('older')}'\n  environment: dev\n",
    ],
)
def test_an_agent_rotates(spec: str) -> None:
    before = (AGENT + spec).encode()
    for until in (UNTIL, None):
        after = rotate_agent("agents/web-1.yaml", before, NEW, until)
        found = parse("agents/web-1.yaml", after).document
        assert isinstance(found, Agent) and found.spec.public_key == NEW
        former = [(key.public_key, key.valid_before) for key in found.spec.previous_keys]
        older = [(ssh_key("older"), UNTIL)] if ssh_key("older") in spec else []
        assert former == ([(KEY, UNTIL), *older] if until is not None else [])
        assert ("# the host's" in spec) == (b"# the host's" in after)
