"""Made-up rows that validation data lack, and how far a stage may move them.

They have no truth, so that stages are compared with each other only: every logit finite; float
stages within the float limit. Quantised stages move them more than real rows, which calibration
has seen the like of: there a label may flip unless it was clear, its two best logits further
apart than those of half the real rows, and than real rows' logits move (docs/quantization.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Edge:
    """A made-up row: what it is in words, and what a model is given."""

    name: str
    row: Any


@dataclass(frozen=True)
class EdgeStep:
    """A stage's made-up rows against those of the stage before.

    ``largest_logit_difference`` is of the row named in ``furthest``; ``flipped`` maps a row with
    a flipped label to the largest margin such a label had before. ``broken`` maps a row that
    cannot be compared to the reason.
    """

    rows: int
    largest_logit_difference: float | None = None
    furthest: str | None = None
    flipped: dict[str, float] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def compare_edges(
    edges: Sequence[Edge], logits: Sequence[np.ndarray], earlier: Sequence[np.ndarray] | None
) -> EdgeStep:
    """Figures of a stage's logits (n, labels) a row; n is 1, or the frames of a recording."""
    step = EdgeStep(len(edges), broken=_find_broken(edges, logits, earlier))
    if earlier is None:
        return step
    pairs = {
        edge.name: (now, then)
        for edge, now, then in zip(edges, logits, earlier, strict=True)
        if edge.name not in step.broken
    }
    if not pairs:
        return step
    drifts = {name: float(np.abs(now - then).max()) for name, (now, then) in pairs.items()}
    margins = {name: flipped_margin(now, then) for name, (now, then) in pairs.items()}
    furthest = max(drifts, key=lambda name: drifts[name])
    return replace(
        step,
        largest_logit_difference=drifts[furthest],
        furthest=furthest,
        flipped={name: margin for name, margin in margins.items() if margin is not None},
    )


def _find_broken(
    edges: Sequence[Edge], logits: Sequence[np.ndarray], earlier: Sequence[np.ndarray] | None
) -> dict[str, str]:
    found = {}
    for place, (edge, now) in enumerate(zip(edges, logits, strict=True)):
        if not np.isfinite(now).all():
            found[edge.name] = "logits are not finite numbers"
        elif earlier is not None and now.shape != earlier[place].shape:
            found[edge.name] = f"logits {now.shape}, before {earlier[place].shape}"
    return found


def find_clear_margin(earlier: Sequence[np.ndarray], moved: float | None) -> float:
    """From which margin on a label of the stage before is clear, told from its real rows.

    The median margin of these; or twice what the stage moved a real row's logit, for two that
    move towards each other.
    """
    best = np.concatenate([np.partition(one, -2, axis=-1)[..., -2:] for one in earlier])
    return max(float(np.median(best[:, 1] - best[:, 0])), 2 * (moved or 0.0))


def flipped_margin(logits: np.ndarray, earlier: np.ndarray) -> float | None:
    """The largest margin between the two best logits before, of labels that flipped; else None."""
    best = np.sort(earlier, axis=-1)
    flips = logits.argmax(axis=-1) != earlier.argmax(axis=-1)
    return float((best[..., -1] - best[..., -2])[flips].max()) if flips.any() else None


def find_edge_failure(
    step: EdgeStep, kind: str, *, limit: float, flip_margin: float, clear_margin: float
) -> str | None:
    """Which made-up row crosses which limit; None where none does.

    ``limit`` is that of float stages' logits, ``flip_margin`` of their labels, ``clear_margin``
    of quantised stages' labels.
    """
    for name, reason in step.broken.items():
        return f"made-up row {name!r}: {reason}"
    if kind not in ("float", "quantized") or step.furthest is None:
        return None
    if kind == "float" and step.largest_logit_difference > limit:
        told = f"largest logit difference {step.largest_logit_difference:.3g}, allowed {limit:g}"
        return f"made-up row {step.furthest!r}: {told}"
    allowed = flip_margin if kind == "float" else max(flip_margin, clear_margin)
    for name, margin in step.flipped.items():
        if margin > allowed:
            told = f"a label flipped whose margin was {margin:.3g}, allowed {allowed:.3g}"
            return f"made-up row {name!r}: {told}"
    return None
