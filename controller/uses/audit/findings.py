"""What verification says: findings, one line each, and the report they add up to."""

from __future__ import annotations

from dataclasses import dataclass

RULES = {
    "genesis-mismatch": "root 1",
    "trust-quorum": "root 2",
    "trust-rollback": "root 2",
    "key-reused": "root 3",
    "history-incomplete": "root 5",
    "object-corrupt": "root 5",
    "tree-malformed": "root 5",
    "commit-malformed": "root 5",
    "main-rewound": "main 6",
    "main-not-first-parent": "main 6",
    "main-not-accepted": "main 6",
    "acknowledgement-unbacked": "main 6",
    "observed-unknown": "main 6",
    "lock-rewritten": "main 9",
    "lock-by-person": "main 9",
    "lock-unbacked": "main 9",
    "lock-mismatch": "main 9",
    "revert-unbacked": "main 9",
    "request-unjudged": "requests 13",
    "request-judged-twice": "requests 13",
    "request-undone": "requests 13",
    "refusal-unfounded": "requests 13",
    "request-unknown": "requests 13",
    "requests-rewound": "requests 13",
    "evidence-missing": "evidence 14",
    "restart-unsigned": "evidence 14",
    "restart-mismatch": "evidence 14",
    "foreign-evidence": "evidence 14",
    "signature-invalid": "evidence 14",
    "envelope-malformed": "evidence 14",
    "envelope-signature": "evidence 14",
    "not-canonical": "evidence 14",
    "clock-rewound": "evidence 15",
    "log-mismatch": "evidence 16",
    "checkpoint-signature": "evidence 16",
    "log-inconsistent": "evidence 16",
    "witness-invalid": "evidence 16",
    "time-anchor-invalid": "evidence 15",
    "time-stamps-missing": "evidence 15",
    "time-certificate-malformed": "evidence 15",
    "clock-skew": "evidence 15",
    "checkpoint-malformed": "evidence 16",
    "rekor-entry-invalid": "evidence 16",
    "rekor-log-key-malformed": "evidence 16",
    "report-signature": "agents 19",
    "report-mismatch": "agents 19",
    "link-missing": "agents 19",
    "link-mismatch": "agents 19",
    "decision-mismatch": "invariant 3",
    "verdict-mismatch": "invariant 3",
    "replay-unasked": "requests 13",
    "replay-mismatch": "invariant 3",
    "pack-damaged": "evidence 25",
    "pack-malformed": "evidence 25",
    "record-missing": "evidence 25",
    "story-mismatch": "evidence 25",
    "checkpoint-mismatch": "root 1",
    "order-without-gates": "invariant 2",
    "transition-illegal": "invariant 2",
    "promotion-unbacked": "main 6",
    "what-mismatch": "invariant 2",
    "slots-mismatch": "main 6",
    "approval-unbacked": "approvals 10",
    "pin-mismatch": "approvals 11",
    "inputs-mismatch": "approvals 11",
    "stage-regate-denied": "approvals 11",
    "control-unbacked": "requests 13",
    "request-mismatch": "requests 13",
    "order-without-approval": "approvals 10",
    "decision-unchecked": "invariant 3",
    "gates-mismatch": "invariant 3",
    "artifact-mismatch": "invariant 6",
    "subject-mismatch": "invariant 1",
    "digest-mismatch": "invariant 1",
    "record-changed": "invariant 8",
    "record-misplaced": "invariant 8",
    "entry-count": "invariant 8",
    "entry-invalid": "invariant 8",
    "index-gap": "invariant 8",
    "sequence-gap": "invariant 8",
    "chain-broken": "invariant 8",
    "seal-mismatch": "invariant 8",
    "trailers-mismatch": "invariant 8",
    "run-not-open": "invariant 8",
    "state-mismatch": "invariant 8",
    "rules-unknown": "evidence 14",
    "rules-rollback": "evidence 14",
}
"""Which rule a code enforces: sections and numbers of the trust page, or an invariant of the project."""


def rule_of(code: str, section: str = "main 7") -> str:
    """The rule that a code enforces; codes of judging main and requests fall under their section."""
    return RULES.get(code, section)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as the rules say. `path` is empty when a commit as a whole is meant."""

    code: str
    commit: str
    path: str
    rule: str
    message: str

    def __str__(self) -> str:
        place = f" {self.path}" if self.path else ""
        return f"{self.code}: {self.commit[:12] or '-'}{place}: {self.message} ({self.rule})"


@dataclass(frozen=True, slots=True)
class RefusedCommit:
    """A commit that was refused, on record, and had no effect. `ref` is the branch it stands on."""

    commit: str
    ref: str
    code: str
    message: str


REMOVED = ("foreign-evidence", "removed again")
"""Code and message of a refused commit of evidence."""


@dataclass(frozen=True, slots=True)
class TimeMark:
    """The entries that a time-stamp covers, and in words until when and by whom."""

    size: int
    text: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`commits` and `entries` count the evidence branch; `verified` means that there is no finding."""

    verified: bool
    commits: int
    entries: int
    runs: int
    refused: tuple[RefusedCommit, ...]
    findings: tuple[Finding, ...]
    time_anchor: str = "not time-anchored"
