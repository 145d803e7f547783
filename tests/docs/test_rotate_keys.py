"""How to rotate keys, executed: every block in order, with a controller's passes in between."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from controller.demo.stage import Stage
from controller.wiring.controller import Controller, ControllerSettings
from tests.support.ssh_agent import ssh_agent

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "rotate-keys.md"
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_command_does_what_it_says(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.build(agents=["dev-1", "prod-eu-1"])
    settings = ControllerSettings(str(stage.origin), stage.trust_root, stage.keys / "controller", stage.state)
    Controller(settings).run_once()
    said = []
    with ssh_agent() as socket:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")} | {
            "LOCKGATE_REPO": str(stage.origin),
            "LOCKGATE_TRUST_ROOT": str(stage.trust_root),
            "SSH_AUTH_SOCK": socket,
        }
        for block in BLOCK.findall(PAGE.read_text()):
            done = subprocess.run(
                ["bash", "-c", f'set -eu\nlockgate() {{ "{sys.executable}" -m controller "$@"; }}\n{block}'],
                cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
            said.append(done.stdout)
            Controller(settings).run_once()
    text = "\n".join(said)
    assert "pending: version 2 on trust-2" in text and "1 more of oscar" in text
    assert text.count("main's rules accept it") == 4
    assert "oscar signed trust version 4" in text
    assert "verified" in said[-1] and "trust version 1 (version 4 is in force)" in said[-1]
    assert 'namespaces="git,lockgate-trust"' in said[-1]
    signers = subprocess.run(
        [sys.executable, "-m", "controller", "trust", "allowed-signers", "--role", "agents"],
        env=environ, capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert (
        len(re.findall(r'^dev-1 namespaces="lockgate-agent",valid-before="\d{14}Z" ', signers, re.MULTILINE)) == 1
    )
