"""Where memory ends and no smaller micro-batch helps: the reader is told what does.

Adam's two states a weight are made in the first update, after the activations are gone: on 6 GB
that is where full fine-tuning of a large encoder ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

from finetune.core.errors import KotuneError
from finetune.loop.ledger import is_out_of_memory
from finetune.recipes.sections import Recipe

LEANER = {"full": ("lora", "qlora"), "lora": ("qlora",)}


class OutOfMemory(MemoryError):
    """Memory ended at a known place, which is the message; the fault itself is its cause."""


@contextmanager
def told_out_of_memory(recipe: Recipe, where: str) -> Iterator[None]:
    """Lack of memory within the block as a KotuneError: where it was, and what needs less."""
    try:
        yield
    except (RuntimeError, MemoryError) as fault:
        if not is_out_of_memory(fault):
            raise
        place = str(fault) if isinstance(fault, OutOfMemory) else where
        said = str(fault.__cause__ if isinstance(fault, OutOfMemory) else fault)
        raise KotuneError(
            f"out of memory {place}",
            received=(said.splitlines() or ["no more memory"])[0],
            next_step=ways_out(recipe),
        ) from None


def ways_out(recipe: Recipe) -> str:
    """The recipe's keys that need less memory, most of what it trains first; and the plan."""
    training: Any = recipe.training
    ways = [] if "8bit" in training.optimizer else ["training.optimizer=adamw_8bit"]
    adapter = getattr(recipe, "adapter", None)
    known = get_args(type(adapter).model_fields["method"].annotation) if adapter else ()
    family = "full" if recipe.method == "full" else "lora"
    leaner = [one for one in LEANER[family] if one in known and one != recipe.method]
    ways += [f"adapter.method={one}" for one in leaner]
    if not training.gradient_checkpointing:
        ways.append("training.gradient_checkpointing=true")
    if recipe.task == "text-classification":
        ways.append("kotune plan RECIPE --memory free, which finds what fits")
    return "; ".join(ways) or "a smaller model"
