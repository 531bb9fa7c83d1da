"""One plain model out of a run: the adapter multiplied into the weights it was trained on.

QLoRA's adapter has two bases it may be merged into: both are measured on validation rows.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.core.errors import ModelError
from finetune.metrics.classification import classification_metrics
from finetune.recipes.methods import METHODS

if TYPE_CHECKING:
    import torch
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


def merge_adapter(run: Run, base: str = "dequantized") -> PreTrainedModel:
    """The run's classifier in fp32, head included, without adapter or quantisation, in eval mode.

    full, bitfit, head: as trained. Adapters: merged into the full-precision base. qlora: into
    ``base``, which is "dequantized" (NF4's weights, those the adapter was fitted to) or "original"
    (full precision, free of NF4's errors; people argue for both: peft#2105, peft#2321,
    unsloth-zoo#810). The base's weights are checked against the run. Nothing is written, so a
    second merge gives the same model. Raises ModelError where the base is not the run's or merged
    weights are not finite.
    """
    import torch

    from finetune.models.loading import load_base, load_trained, run_base
    from finetune.models.trained_weights import attach_trained

    if METHODS[run.method].quantised:
        below = (
            load_dequantized_base(run)
            if base == "dequantized"
            else load_base(run_base(run), run.labels)
        )
        merged = _merge(attach_trained(below, run.method, run.folder / "model"))
    elif METHODS[run.method].has_adapter:
        merged = _merge(load_trained(run))
    else:
        merged = load_trained(run)
    merged = merged.to(dtype=torch.float32).eval()
    check_finite(merged)
    _describe_plainly(merged, run.labels)
    return merged


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


def chosen_base(exported: str | None, wanted: str) -> str:
    """The base that a QLoRA adapter is merged into: ``exported`` by its artifact's manifest.

    Without one: what the recipe names (``export.merge_base``), and where it leaves the
    choice to an export, the base that the adapter was trained on.
    """
    told = exported or wanted
    return told if told in BASES else BASES[0]


def load_dequantized_base(run: Run) -> PreTrainedModel:
    """The base in fp32 with the weights that NF4 left of it, as a model that never was 4-bit.

    A fresh base takes over the dequantised matrices; a quantised model in place would keep its
    quantiser's flags, hooks and config, which refuse casts, tracing and saving.
    """
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    from finetune.models.loading import load_base, run_base

    base = run_base(run)
    plain = load_base(base, run.labels)
    for name, module in load_base(base, run.labels, quantize_4bit=True).named_modules():
        if isinstance(module, Linear4bit):
            weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
            plain.get_submodule(name).weight.data = weight.to("cpu", plain.dtype)
    return plain


def check_finite(model: torch.nn.Module) -> None:
    """Raise ModelError naming the first weights that are not finite numbers."""
    import torch

    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ModelError(
                "the merged model has weights that are not finite numbers",
                received=name,
                next_step="train again with a lower training.learning_rate",
            )


def _merge(model: Any) -> PreTrainedModel:
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as fault:  # PEFT's safe_merge: "NaNs detected in the merged weights"
        raise ModelError("the adapter cannot be merged", received=fault) from fault


def _describe_plainly(model: PreTrainedModel, labels: tuple[str, ...]) -> None:
    """A config that says what the model now is: labels, and no path of this machine."""
    config = model.config
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config._name_or_path = ""
