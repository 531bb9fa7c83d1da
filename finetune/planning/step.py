"""One optimizer step as transformers.Trainer takes it, without Trainer: for plans and probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from finetune.models.loading import autocast_context
from finetune.recipes.text import TrainingSection

Batch = dict[str, torch.Tensor]
SMALL = 4096  # parameters of a tensor below which bitsandbytes keeps 32-bit states
STATE_BLOCK = 256


def make_batch(rows: int, length: int, labels: int, vocabulary: int) -> Batch:
    """Random token ids (rows, length) without padding, random classes."""
    ids = torch.randint(0, vocabulary, (rows, length))
    mask = torch.ones_like(ids)
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.randint(0, labels, (rows,))}


def vocabulary_of(model: Any) -> int:
    """Token ids to draw from: rows of the embedding; code points of ASCII where ids are hashed."""
    return getattr(model.config, "vocab_size", None) or 128


def make_optimizer(
    model: torch.nn.Module, training: TrainingSection, device: str, *, fake: bool = True
) -> torch.optim.Optimizer:
    """The optimizer Trainer would build; ``device`` is where it would run, fake or not.

    bitsandbytes' has no shape rules: on ``fake`` tensors its states stand for it.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if fake and "8bit" in training.optimizer:
        return _States8bit(trained, {})
    arguments = TrainingArguments(
        output_dir="unused",
        report_to=[],
        use_cpu=True,
        optim=training.optimizer,
        learning_rate=training.learning_rate,
    )
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    if training.optimizer == "adamw_torch" and device == "cuda":
        options["foreach"] = True  # PyTorch's default there; it keeps whole lists of temporaries
    return kind(trained, **options)


def run_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    *,
    device: str,
    precision: str,
    max_grad_norm: float,
) -> None:
    """Forward and backward of each micro-batch, clipping, update, gradients dropped."""
    for batch in batches:
        with autocast_context(device, precision):
            loss = model(**batch).loss
        (loss / len(batches)).backward()
    if max_grad_norm:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        torch.nn.utils.clip_grad_norm_(trained, max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()


class _States8bit(torch.optim.Optimizer):
    """bitsandbytes' 8-bit Adam by its sizes: two bytes a weight, four bytes a block of each.

    Small tensors keep two fp32 states (Dettmers et al. 2022, section 2).
    """

    def step(self, closure: Any = None) -> None:
        """Hold the states; nothing is computed."""
        for parameter in self.param_groups[0]["params"]:
            if self.state[parameter] or parameter.grad is None:
                continue
            small = parameter.numel() < SMALL
            kind = torch.float32 if small else torch.uint8
            state = {f"state{i}": torch.empty_like(parameter, dtype=kind) for i in (1, 2)}
            if not small:
                blocks = -(-parameter.numel() // STATE_BLOCK)
                state |= {f"absmax{i}": torch.empty(blocks) for i in (1, 2)}
            self.state[parameter] = state
