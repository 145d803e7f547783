"""The process that evaluates CEL: one JSON question a line in, one JSON answer a line out.

The CEL library holds the interpreter's lock and has no limit of its own, so it runs here, under limits of
memory and processor time, where it can be killed.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

MEMORY = 512 << 20
"""Bytes of address space; more is a MemoryError here or the end of this process."""


def answer(config: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """The rule's boolean and the values of the variables. An error is an answer with `error` and `message`."""
    import cel

    context: dict[str, Any] = {"inputs": inputs}
    variables: dict[str, Any] = {}
    try:
        for name, expression in sorted(config.get("variables", {}).items()):
            variables[name] = cel.evaluate(expression, context)
        value = cel.evaluate(config["rule"], {**context, **variables})
    except MemoryError:
        return {"error": "cost-exceeded", "message": "the rule needs more memory than it may have"}
    except Exception as error:  # whatever the library raises is the rule's error, and an answer
        return {"error": "cel-error", "message": f"{type(error).__name__}: {str(error).splitlines()[0]}"[:300]}
    if not isinstance(value, bool):
        return {"error": "cel-error", "message": f"the rule gives {type(value).__name__}, not true or false"}
    shown = {n: v if isinstance(v, str | int | float | bool) else str(v)[:200] for n, v in variables.items()}
    return {"value": value, "variables": shown}


def main() -> None:
    """Answer until standard input closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        question = json.loads(line)
        sys.stdout.write(json.dumps(answer(question["config"], question["inputs"])) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
