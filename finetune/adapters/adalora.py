"""AdaLoRA's part in the training loop: the rank budget shared out, and its own loss term."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from finetune.core.errors import RecipeError
from finetune.data import IGNORED

WARM_UP, SETTLE = 0.1, 0.5  # shares of all steps: Zhang et al. 2023, table 8 (8k, 50k of 85k)
ALLOCATIONS = 1000  # at most so many in a training


class AllocateRanks(TrainerCallback):
    """Calls ``update_and_allocate`` with a schedule from the Trainer's own number of steps.

    The pattern of ranks is kept here and not in PEFT's config while training: with it there, a
    checkpoint holds pruned matrices, which the unpruned model in memory cannot load again
    (load_best_model_at_end, resuming). Pruned triplets are zero either way.
    """

    def __init__(self) -> None:
        self._pattern: dict[str, list[bool]] | None = None
        self._kept: dict[str, Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Set the schedule; on resuming, take up the importance scores of the checkpoint."""
        config = model.peft_config["default"]
        total = state.max_steps
        if total < 2:
            raise RecipeError("adalora needs at least two steps", received=f"{total} step")
        config.total_step = total
        config.tfinal = min(int(SETTLE * total), total - 2)
        config.tinit = min(int(WARM_UP * total), total - config.tfinal - 1)
        config.deltaT = max(1, total // ALLOCATIONS)
        self._allocator = model.base_model.rankallocator
        if self._kept is not None:
            self._take_up(model)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """After the step and before the gradients are cleared, as PEFT asks."""
        config = model.peft_config["default"]
        config.rank_pattern = self._pattern
        model.base_model.update_and_allocate(state.global_step + 1)
        self._pattern, config.rank_pattern = config.rank_pattern, None

    def training_state(self) -> dict[str, Any]:
        """Importance scores and pattern, which a checkpoint keeps."""
        return {
            "pattern": self._pattern,
            "mean": dict(self._allocator.exp_avg_ipt),
            "spread": dict(self._allocator.exp_avg_unc),
        }

    def load_training_state(self, kept: dict[str, Any]) -> None:
        """What ``training_state`` gave; taken up when training begins."""
        self._kept = kept

    def _take_up(self, model: Any) -> None:
        import torch

        devices = {name: value.device for name, value in model.base_model.model.named_parameters()}
        for name in ("mean", "spread"):
            self._kept[name] = {
                key: value.to(devices[key]) for key, value in self._kept[name].items()
            }
        self._pattern = self._kept["pattern"]
        self._allocator.exp_avg_ipt = self._kept["mean"]
        self._allocator.exp_avg_unc = self._kept["spread"]
        self._allocator.ipt = {
            key: torch.zeros_like(value) for key, value in self._kept["mean"].items()
        }


class OrthogonalityLoss:
    """A Trainer's loss function with AdaLoRA's term in training: P and Q near orthogonal.

    PEFT adds the term to a loss that the model computes itself, which Trainer's loss function
    replaces. A micro-batch carries its share of it, so that a step has the whole once.
    """

    def __init__(self, model: Any, rest: Callable[..., Any]) -> None:
        self.model = model
        self.rest = rest

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        """The loss of ``rest``, and in training the term's share."""
        loss = self.rest(outputs, labels, num_items_in_batch=num_items_in_batch)
        if not self.model.training:
            return loss
        counted = (labels != IGNORED).sum()
        share = 1.0 if num_items_in_batch is None else counted / num_items_in_batch
        weight = self.model.peft_config["default"].orth_reg_weight
        return loss + weight * share * orthogonality(self.model)


def orthogonality(model: Any) -> Any:
    """Mean Frobenius norm of PᵀP - I and QQᵀ - I over all layers (Zhang et al. 2023, eq. 4)."""
    import torch

    norms = []
    for name, value in model.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            gram = value @ value.T if ".lora_A." in name else value.T @ value
            norms.append(torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)))
    return torch.stack(norms).mean()
