"""What single methods ask for beyond the usual: before, during and after training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, Trainer

from finetune.adapters.eva import initialize_from_activations
from finetune.core.errors import RecipeError
from finetune.core.preparation import Preparation
from finetune.core.processes import is_sharded
from finetune.models.loading import load_base
from finetune.models.source import BaseModel
from finetune.models.trained_weights import attach_trained
from finetune.recipes.methods import METHODS
from finetune.recipes.text import AdapterSection, FinetuneRecipe

LORA_PLUS_RATIO = 16.0  # Hayou et al. 2024, section 5: around 2^4


def start_method(
    model: Any,
    recipe: FinetuneRecipe,
    tokenizer: PreTrainedTokenizerBase,
    preparation: Preparation,
    texts: Iterable[str],
    device: str,
) -> None:
    """Let eva see the training ``texts``; nothing for the other methods."""
    if recipe.adapter.method == "eva":
        initialize_from_activations(
            model,
            tokenizer,
            preparation,
            list(texts),
            max_length=recipe.model.max_length,
            batch_size=recipe.training.batch_size,
            device=device,
            seed=recipe.seed,
        )


def fit_trainer_to_method(trainer: Trainer, adapter: AdapterSection) -> None:
    """Give lora+ its optimizer and adalora its callback; to be called before ``train``."""
    if is_sharded() and adapter.method in ("lora+", "adalora"):
        raise RecipeError(f"{adapter.method} does not train under FSDP", allowed="DDP, or lora")
    if adapter.method == "lora+":
        ratio = adapter.learning_rate_ratio or LORA_PLUS_RATIO
        trainer.optimizer = loraplus_optimizer(trainer, ratio)
    if METHODS[adapter.method].family == "adalora":
        from finetune.adapters.adalora import AllocateRanks, OrthogonalityLoss

        trainer.add_callback(AllocateRanks())
        trainer.compute_loss_func = OrthogonalityLoss(trainer.model, trainer.compute_loss_func)


def loraplus_optimizer(trainer: Trainer, ratio: float) -> Any:
    """The recipe's optimizer with LoRA+'s groups: B and all biases learn ``ratio`` times faster."""
    from peft.optimizers import create_loraplus_optimizer

    kind, options = Trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    options = dict(options)
    return create_loraplus_optimizer(
        trainer.model,
        kind,
        lr=options.pop("lr"),
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=trainer.args.weight_decay,
        **options,
    )


def as_stored(
    model: Any, method: str, base: BaseModel, labels: Sequence[str], folder: Path, device: str
) -> Any:
    """The model that is measured: read back from ``folder`` where storing has converted it."""
    if not METHODS[method].changes_base:
        return model
    plain = load_base(base, labels, device=device)
    return attach_trained(plain, method, folder).to(device)
