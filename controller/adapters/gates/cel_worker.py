"""The process that evaluates CEL: one JSON question a line in, one JSON answer a line out.

The CEL library holds the interpreter's lock and has no limit of its own, so it runs here, under limits of
memory and processor time, where it can be killed.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from typing import Any

MEMORY = 512 << 20
"""Bytes of address space; more is a MemoryError here or the end of this process."""
ROUNDS = 64
"""How often a rule that may walk the keys of a map is evaluated, within `PATIENCE` seconds of processor time."""
PATIENCE = 0.2
_WALKS = re.compile(r"\.\s*(?:map|filter)\s*\(")
_PATH = re.compile(r"(?<![\w.\])])inputs((?:\.[A-Za-z_]\w*)+)\s*$")
"""What stands before a walk, where it is a plain member of the inputs."""
_REBINDS = re.compile(r"\(\s*inputs\s*,|//")
"""A macro's own variable of that name, or a comment: then the text before a walk is not what is walked."""


def answer(config: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """The rule's boolean and the values of the variables. An error is an answer with `error` and `message`.

    The library walks the keys of a map in an order of its own, another one each time. A rule whose answer depends
    on that is no function of its inputs: one that could is evaluated many times, and is an error when the answers
    differ. (One that differs more rarely is found by a replay.)
    """
    rounds = ROUNDS if may_walk_maps(config, inputs) else 1
    given = _evaluate(config, inputs)
    begun = time.process_time()
    for _ in range(rounds - 1):
        if "error" in given or time.process_time() - begun > PATIENCE:
            break
        if _evaluate(config, inputs) == given:
            continue
        what = "the rule's answer depends on the order of a map's keys; ask with `in`, or iterate over a list"
        return {"error": "rule-unstable", "message": what}
    return given


def may_walk_maps(config: dict[str, Any], inputs: dict[str, Any]) -> bool:
    """Whether a rule, or a variable of it, may walk something else than lists of its inputs."""
    variables = config.get("variables", {})
    texts = (config["rule"], *variables.values())
    if "inputs" in variables or any(_REBINDS.search(text) for text in texts):
        return any(_WALKS.search(text) for text in texts)
    return any(not _is_list(text[: walk.start()], inputs) for text in texts for walk in _WALKS.finditer(text))


def _is_list(before: str, inputs: Any) -> bool:
    """Whether the text before a walk ends in a member of the inputs that is a list."""
    path = _PATH.search(before)
    if path is None:
        return False
    value = inputs
    for name in path[1].split(".")[1:]:
        value = value.get(name) if isinstance(value, dict) else None
    return isinstance(value, list)


def _evaluate(config: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    import cel

    context: dict[str, Any] = {"inputs": inputs}
    variables: dict[str, Any] = {}
    try:
        for name, expression in sorted(config.get("variables", {}).items()):
            variables[name] = cel.evaluate(expression, context)
        value = cel.evaluate(config["rule"], {**context, **variables})
        if not isinstance(value, bool):
            return {"error": "cel-error", "message": f"the rule gives {type(value).__name__}, not true or false"}
        return {"value": value, "variables": {name: _shown(value) for name, value in variables.items()}}
    except MemoryError:
        return {"error": "cost-exceeded", "message": "the rule needs more memory than it may have"}
    except Exception as error:  # whatever the library raises is the rule's error, and an answer
        return {"error": "cel-error", "message": f"{type(error).__name__}: {str(error).splitlines()[0]}"[:300]}


def _shown(value: Any) -> str | int | float | bool:
    """A variable's value for a message; the elements of maps and lists sorted, so that equal ones look alike."""
    return value if isinstance(value, str | int | float | bool) else _sorted(value)[:200]


def _sorted(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{_sorted(k)}: {_sorted(v)}" for k, v in value.items())) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(sorted(map(_sorted, value))) + "]"
    return str(value)


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
