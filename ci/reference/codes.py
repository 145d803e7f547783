"""Every stable code in the sources, with its words: read from the syntax trees, so that none is forgotten.

A code is the text given for a parameter or field named `code` (of an error class, a diagnostic, a gate's answer, a
finding, or a helper that passes it on), or the first of a pair that a function returns as (code, message).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ERRORS = ("Invalid", "Refused", "Stalled", "Conflict", "Unavailable", "UsageError")
KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_WORDS = ("what", "message", "reason")
_CURES = ("cure", "unblock")


@dataclass(frozen=True, slots=True)
class Use:
    """One place that gives a code: which class it ends in, and the words where they are literal."""

    code: str
    via: str
    module: str
    what: str = ""
    cure: str = ""


@dataclass(slots=True)
class Callee:
    """Something called with a code: the names of its parameters, and the classes it passes the code on to."""

    parameters: tuple[str, ...]
    passes: tuple[str, ...] = ()


@dataclass(slots=True)
class Module:
    """One source file."""

    name: str
    tree: ast.Module
    callees: dict[str, Callee] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)


def uses(root: Path = ROOT) -> list[Use]:
    """Every use of a code below controller/, sorted."""
    modules = {module.name: module for module in map(_module, sorted((root / "controller").rglob("*.py")))}
    found = {use for module in modules.values() for use in _uses(module, modules)}
    return sorted(found, key=lambda use: (use.code, use.via, use.module, use.what, use.cure))


def _module(path: Path) -> Module:
    name = ".".join(path.relative_to(path.parents[len(path.parts) - len(ROOT.parts) - 1]).with_suffix("").parts)
    module = Module(name, ast.parse(path.read_text(encoding="utf-8")))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if arguments[:1] in (["self"], ["cls"]):
                del arguments[0]
            if "code" in arguments and node.name != "__init__":
                module.callees[node.name] = Callee(tuple(arguments), tuple(_passes(node)))
        elif isinstance(node, ast.ClassDef):
            fields = [
                n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
            ]
            if "code" in fields:
                module.callees[node.name] = Callee(tuple(fields))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("controller"):
            for alias in node.names:
                module.imported[alias.asname or alias.name] = (str(node.module), alias.name)
    return module


def _passes(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            values = (*node.args, *(keyword.value for keyword in node.keywords))
            if any(isinstance(value, ast.Name) and value.id == "code" for value in values):
                yield _called(node)


def _called(call: ast.Call) -> str:
    function = call.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _find(name: str, module: Module, modules: dict[str, Module]) -> tuple[Callee, Module] | None:
    if name in module.callees:
        return module.callees[name], module
    if name in module.imported:
        home, original = module.imported[name]
        if home in modules and original in modules[home].callees:
            return modules[home].callees[original], modules[home]
        return None
    homes = [other for other in modules.values() if name in other.callees]
    return (homes[0].callees[name], homes[0]) if len(homes) == 1 else None


def _ends(name: str, module: Module, modules: dict[str, Module], depth: int = 4) -> str:
    """The class a code given to `name` ends in."""
    if name in ERRORS:
        return name
    found = _find(name, module, modules)
    if found is None or depth == 0:
        return name
    callee, home = found
    if not callee.passes:
        return f"{home.name.split('.')[1]}.{name}"
    ends = [_ends(passed, home, modules, depth - 1) for passed in callee.passes if passed != name]
    return next((end for end in ends if end in ERRORS or "." in end), name)


def _uses(module: Module, modules: dict[str, Module]) -> Iterator[Use]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            yield from _of_call(node, module, modules)
        elif isinstance(node, ast.Return | ast.Yield) and isinstance(node.value, ast.Tuple):
            pair = node.value.elts
            if len(pair) == 2 and _code(pair[0]) and "-" in _code(pair[0])[0] and _text(pair[1]):
                yield Use(_code(pair[0])[0], "pair", module.name, _text(pair[1]))


def _of_call(call: ast.Call, module: Module, modules: dict[str, Module]) -> Iterator[Use]:
    name = _called(call)
    if name in ERRORS:
        parameters: tuple[str, ...] = ("code", "what")
    elif (found := _find(name, module, modules)) is not None:
        parameters = found[0].parameters
    else:
        return
    given = dict(zip(parameters, call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    if "code" not in given:
        return
    what = next((_text(given[word]) for word in _WORDS if word in given), "")
    cure = next((_text(given[word]) for word in _CURES if word in given), "")
    for code in _code(given["code"]):
        yield Use(code, _ends(name, module, modules), module.name, what, cure)


def _code(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and KEBAB.fullmatch(node.value):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return [*_code(node.body), *_code(node.orelse)]
    return []


def _text(node: ast.expr) -> str:
    """The words as they stand, with names in angle brackets where a value is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else _hole(part) for part in node.values)
    if isinstance(node, ast.IfExp):
        return " / ".join(filter(None, (_text(node.body), _text(node.orelse))))
    return ""


def _hole(part: ast.expr) -> str:
    names = [
        n.attr if isinstance(n, ast.Attribute) else n.id
        for n in ast.walk(part)
        if isinstance(n, ast.Attribute | ast.Name)
    ]
    return f"<{names[0].strip('_').replace('_', ' ')}>" if names else "…"
