"""The `lockgate` command."""

from __future__ import annotations

import gc
import os
import sys

_GARBAGE = 50_000
"""New objects between two looks for garbage. At Python's 700 a tenth of a short command goes into looking through
modules that are just being loaded, which hold none."""


def main() -> None:
    """Run the command line and exit as its contract says (docs/reference/commands.md)."""
    # What happens to be installed beside Lockgate has no say in what a document means, and looking takes time.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    gc.set_threshold(_GARBAGE)
    from controller.cli.app import run

    code = run(sys.argv[1:])
    # Nor is what goes with the process looked through once more on the way out.
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
