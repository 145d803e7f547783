"""The JSON Schemas of what the commands answer with `-o json`, generated from their types."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from controller.model.schema import DIALECT, schema_id
from controller.uses import replay, shapes, story
from controller.uses.exports import export

ANSWERS: dict[str, Any] = {
    "init": shapes.MadeShape,
    "validate": list[shapes.DiagnosticShape],
    "resolve": shapes.ResolveShape | list[shapes.ResolveShape],
    "status": list[shapes.StatusShape],
    "why": shapes.WhyShape,
    "runs": list[story.RunRow],
    "timeline": story.Timeline,
    "step": shapes.StepShape,
    "targets": list[story.TargetRow],
    "evidence": list[story.EvidenceRow],
    "verify": shapes.VerifyShape,
    "receipt-make": list[shapes.ReceiptShape],
    "receipt-check": shapes.ReceiptCheckShape,
    "guard-install": shapes.GuardShape,
    "replay": replay.ReplayAnswer,
    "replay-figures": replay.FiguresAnswer,
    "export": export.ExportAnswer,
    "request": shapes.AskedShape,
    "rollback-preview": shapes.PreviewShape,
    "promote": shapes.PromotedShape,
    "merge": shapes.LandedShape,
    "trust-show": shapes.TrustShape,
    "trust-sign": shapes.TrustSignedShape,
    "trust-rotate": shapes.RotatedShape,
    "trust-restart": shapes.RestartShape,
    "trust-layout": shapes.LayoutShape,
    "trust-allowed-signers": list[shapes.SignerShape],
}
"""Answer → its type. `request` is that of every signed request, `merge` also that of `restore-main`."""


def answer_schemas() -> dict[str, dict[str, Any]]:
    """{file below schemas/: schema} for every answer."""
    return {f"cli/{name}.schema.json": _schema(name, shape) for name, shape in ANSWERS.items()}


def _schema(name: str, shape: Any) -> dict[str, Any]:
    made = _untitled(TypeAdapter(shape).json_schema())
    return {"$schema": DIALECT, "$id": schema_id(f"cli/{name}"), "title": f"lockgate {name} -o json", **made}


def _untitled(node: Any) -> Any:
    """Without the titles that generated classes and fields bring."""
    if isinstance(node, list):
        return [_untitled(item) for item in node]
    if isinstance(node, dict):
        return {k: _untitled(v) for k, v in node.items() if not (k == "title" and isinstance(v, str))}
    return node
