"""The `lockgate` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit as its contract says (docs/reference/commands.md)."""
    from controller.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
