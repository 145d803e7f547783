"""The README of an audit pack: what is in it, and the commands of stock tools that check it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_README = """\
# Audit pack of {run}

{state}

| | |
|---|---|
| project | {project}, from genesis commit `{genesis}` |
| run | {run}, {release} to {environment} |
| ended | {phase} |
| evidence branch at | `{evidence}`, {size} entries in the log |

`story.html` tells the run for people. Everything else is what it rests on:

| path | holds |
|---|---|
| `MANIFEST.sha256` | the sha256 of every file here |
| `manifest.json` | what this pack says it is |
| `evidence/runs/…` | the run's signed entries (DSSE, in-toto statements), inputs, agents' reports, links |
| `evidence/artifacts/…` | what was rendered for the run, by digest |
| `evidence/events/…` | the release's lock, the accepted promotion, and later events that name the run |
| `evidence/log/checkpoint` | the signed checkpoint of the transparency log, with its witnesses |
| `chain/…` | every commit of the evidence branch since the run opened, as Git signs and hashes them |
| `receipts/…` | for each entry that it is in the log (c2sp.org/tlog-proof) |
| `documents/…` | the files of main that the run pinned |
| `trust/…` | the trust document in force with its owners' signatures, and the layout |
| `proof/…` | the trust chain from genesis, and the controller's keys as allowed signers; `keys/` has them as PEM |
{bundle_row}
## With Lockgate

```bash
lockgate verify --trust-root trust-root.json --bundle {file}
```

The trust root must be yours: the one you pinned, not one that came with this file. It names the genesis commit
`{genesis}`.

## By hand

In this folder, with coreutils, Git, Python and OpenSSL. No command needs a network.

Nothing was changed since the export:

```bash
sha256sum --check --quiet --strict MANIFEST.sha256
```

The commits of the evidence branch are the controller's, each linked to the one before it, and each says in its
trailers which entry it brought:

```bash
git init -q --bare commits.git
for file in chain/*.commit; do
    oid=$(git -C commits.git hash-object -t commit -w --stdin < "$file")
    case "$file" in *-"$oid".commit) ;; *) echo "$file is another commit"; exit 1 ;; esac
    git -C commits.git -c gpg.format=ssh -c gpg.ssh.allowedSignersFile="$PWD/proof/allowed_signers" \\
        verify-commit "$oid"
done
```

Every entry of the run is named, by its digest, in one of those commits:

```bash
for file in {folder}/*.dsse.json; do
    grep -lq "^Lockgate-Digest: sha256:$(sha256sum < "$file" | cut -c1-64)$" chain/*.commit || exit 1
done
```

Every entry is signed by a key of the controller (DSSE v1; Ed25519 and ECDSA keys):

```bash
for file in {folder}/*.dsse.json; do
    python3 -c '
import base64, json, sys
envelope = json.load(open(sys.argv[1]))
(signature,) = envelope["signatures"]
kind, payload = envelope["payloadType"], base64.b64decode(envelope["payload"])
open("entry.pae", "wb").write(b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload))
open("entry.sig", "wb").write(base64.b64decode(signature["sig"]))
open("entry.key", "w").write("keys/" + signature["keyid"] + ".pem")
' "$file"
    openssl pkeyutl -verify -pubin -inkey "$(cat entry.key)" -rawin -in entry.pae -sigfile entry.sig > /dev/null
done
rm -f entry.pae entry.sig entry.key
```

What an entry says:

```bash
python3 -c '
import base64, json, sys
print(json.dumps(json.loads(base64.b64decode(json.load(open(sys.argv[1]))["payload"])), indent=2))
' {folder}/001-opened.dsse.json
```
{bundle_text}"""

_BUNDLE = """
The whole history, as a Git bundle: clone it, check every object, and every commit of the evidence branch.

```bash
git clone -q --mirror repository.bundle history.git
git -C history.git fsck --strict --no-dangling
git -C history.git rev-list lockgate/evidence |
    xargs git -C history.git -c gpg.format=ssh \\
        -c gpg.ssh.allowedSignersFile="$PWD/proof/allowed_signers" verify-commit
git -C history.git log --no-renames --diff-filter=a --format=%H lockgate/evidence -- runs events artifacts
```

The last command prints nothing: below these folders nothing was ever changed or removed.
"""
_ROW = "| `repository.bundle` | the branches main, lockgate/requests and lockgate/evidence, whole |\n"
_SEALED = "The run is sealed: its last entry lists all others and their Merkle root."
_UNSEALED = (
    "**UNSEALED.** The run was open when this was exported. What is here is signed and in order, but it is not "
    "the whole story, and nothing says how it ended."
)


def readme(manifest: Mapping[str, Any], folder: str) -> str:
    """The README of a pack; `folder` is the run's on the evidence branch."""
    bundled = "tips" in manifest
    name = f"lockgate-{manifest['run']}" + ("" if manifest["sealed"] else "-unsealed")
    return _README.format(
        **{
            key: manifest[key]
            for key in ("run", "project", "genesis", "release", "environment", "evidence", "size")
        },
        phase=manifest["phase"],
        state=_SEALED if manifest["sealed"] else _UNSEALED,
        folder=f"evidence/{folder}",
        file=f"{name}.tar",
        bundle_row=_ROW if bundled else "",
        bundle_text=_BUNDLE if bundled else "",
    )
