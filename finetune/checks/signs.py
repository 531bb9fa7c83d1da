"""Signs that something is wrong though everything ran: typed, told, kept in run.json.

A fault stops the work (KotuneError); a sign is what a reader should know of a result that exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Code = Literal[
    "unknown-tokens",
    "truncated-texts",
    "empty-texts",
    "seen-in-training",
    "one-class-answered",
    "no-better-than-majority",
    "class-never-right",
    "nothing-heard",
    "parts",
    "schedule",
    "not-exportable",
    "fallback",
]


@dataclass(frozen=True)
class Sign:
    """One sign: what kind, a sentence for the reader, the figures behind it."""

    code: Code
    message: str
    figures: dict[str, float | int | str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, as run.json's ``signs`` holds it."""
        return asdict(self)


def report_signs(signs: Sequence[Sign], report: Callable[[str], None]) -> None:
    """One warning line a sign."""
    for sign in signs:
        report(f"  warning: {sign.message}")
