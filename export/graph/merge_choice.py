"""Which base a QLoRA adapter is merged into: both are measured on validation rows."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from export.graph.merging import merge_adapter
from finetune.metrics.classification import classification_metrics
from finetune.recipes.methods import METHODS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetune.run_folder import Run

BASES = ("dequantized", "original")
Classify = Callable[["PreTrainedModel"], np.ndarray]


@dataclass(frozen=True)
class Merged:
    """The merged model and its logits; ``base`` is None where there was nothing to choose.

    ``measured`` holds the figures of every base that was tried.
    """

    model: PreTrainedModel
    logits: np.ndarray
    base: str | None
    measured: dict[str, dict[str, Any]]


def merge_best(run: Run, wanted: str, classify: Classify, labels: np.ndarray) -> Merged:
    """Merge a run's adapter; QLoRA's into ``wanted``, or with "auto" into the better base.

    Better is the higher accuracy on ``labels``, then the lower cross-entropy. ``classify`` gives
    a model's logits (n, labels) on the validation rows. One model is held at a time.
    """
    if not METHODS[run.method].quantised:
        model = merge_adapter(run)
        return Merged(model, classify(model), None, {})
    if wanted != "auto":
        model = merge_adapter(run, wanted)
        logits = classify(model)
        return Merged(model, logits, wanted, {wanted: _figures(logits, labels)})
    measured: dict[str, dict[str, Any]] = {}
    model = logits = None
    for base in BASES:
        model = None
        gc.collect()
        model = merge_adapter(run, base)
        logits = classify(model)
        measured[base] = _figures(logits, labels)
    best = max(BASES, key=lambda base: (measured[base]["accuracy"], -measured[base]["loss"]))
    if best != BASES[-1]:
        model = None
        gc.collect()
        model = merge_adapter(run, best)
        logits = classify(model)
    for base, figures in measured.items():
        figures["exported"] = base == best
    return Merged(model, logits, best, measured)


def _figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    found = classification_metrics(labels, logits)
    return {
        "rows": found.rows,
        "accuracy": found.accuracy,
        "accuracy_interval": list(found.accuracy_interval),
        "f1_macro": found.f1_macro,
        "loss": found.loss,
        "exported": True,
    }
