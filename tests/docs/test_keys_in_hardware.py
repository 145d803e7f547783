"""The page on keys in hardware, executed with SoftHSM: its token, its key, its address."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.test_tutorial import BLOCK, DOCS
from tests.support.softhsm import module

SIGN = """
import pathlib, sys
from controller.adapters.signers import open_signer
from tests.support.signers import holds
holds(pathlib.Path(sys.argv[1]), open_signer(sys.argv[2]))
"""


def test_the_page_s_token_and_address_sign(tmp_path: Path) -> None:
    text = (DOCS / "how-to" / "keys-in-hardware.md").read_text()
    commands = next(block for kind, block in BLOCK.findall(text) if kind == "bash" and "softhsm2-util" in block)
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\n")
    environ = {**os.environ, "SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf")}
    subprocess.run(["bash", "-euc", commands], cwd=tmp_path, env=environ, check=True, capture_output=True)
    assert not (tmp_path / "key.pem").exists()
    pin = tmp_path / "pin"
    pin.write_text(re.findall(r" --pin (\d+)", commands)[0] + "\n")
    pin.chmod(0o600)
    address = next(block.strip() for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL))
    address = address.replace("/etc/lockgate/pin", str(pin))
    address = address.replace("/usr/lib/softhsm/libsofthsm2.so", str(module()))
    command = [sys.executable, "-c", SIGN, str(tmp_path), address]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
