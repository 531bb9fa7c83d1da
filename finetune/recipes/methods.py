"""Every training method by its key: what it trains, how it is stored, where it comes from.

The one list of them, in the order in which reports show them; imports nothing heavy. Plugins add
theirs (docs/plugins.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from finetune.core.plugins import Registry

LORA_KEYS = ("rank", "alpha", "dropout", "target_modules")
UNMERGED = ", adapter unmerged"


@dataclass(frozen=True)
class Method:
    """One value of ``adapter.method``.

    ``family`` says who does the work: ``full`` trains and stores the whole model; ``lora``,
    ``adalora`` and ``ia3`` are PEFT's, stored as an adapter that can be merged; ``subset`` trains
    some of the model's own parameters and stores those. ``keys`` are the keys of the recipe's
    adapter section that mean something to it. ``changes_base``: the start of the adapter is taken
    out of the frozen weights, so that it has to be stored as a difference.

    A plugin's method is of the family ``peft``: ``configure`` gives the configuration of PEFT for
    the linear layers to adapt (name → module), with ``rank``, ``alpha`` and ``dropout``.
    """

    family: Literal["full", "lora", "adalora", "ia3", "peft", "subset"]
    description: str
    source: str
    keys: tuple[str, ...] = ()
    quantised: bool = False
    changes_base: bool = False
    configure: Callable[..., Any] | None = None

    @property
    def has_adapter(self) -> bool:
        """Whether there is something to merge."""
        return self.family in ("lora", "adalora", "ia3", "peft")

    @property
    def as_trained(self) -> str:
        """What a report adds to "PyTorch, as trained"."""
        if self.quantised:
            return f"{UNMERGED} on the 4-bit base"
        return UNMERGED if self.has_adapter else ""


OWN: dict[str, Method] = {
    "full": Method("full", "every parameter", "Howard and Ruder 2018"),
    "lora": Method("lora", "low-rank updates of frozen matrices", "Hu et al. 2021", LORA_KEYS),
    "qlora": Method(
        "lora", "LoRA on a base in NF4", "Dettmers et al. 2023", LORA_KEYS, quantised=True
    ),
    "dora": Method(
        "lora", "LoRA for direction, a vector for magnitude", "Liu et al. 2024", LORA_KEYS
    ),
    "rslora": Method("lora", "LoRA scaled by alpha / √rank", "Kalajdzievski 2023", LORA_KEYS),
    "pissa": Method(
        "lora",
        "LoRA that starts as the principal part of each matrix",
        "Meng et al. 2024",
        LORA_KEYS,
        changes_base=True,
    ),
    "olora": Method(
        "lora",
        "LoRA that starts as the first columns of each matrix's QR",
        "Büyükakyüz 2024",
        LORA_KEYS,
        changes_base=True,
    ),
    "eva": Method(
        "lora",
        "LoRA that starts at, and shares ranks by, the variance of activations",
        "Paischer et al. 2024",
        LORA_KEYS,
    ),
    "lora+": Method(
        "lora",
        "LoRA with a higher learning rate for B",
        "Hayou et al. 2024",
        (*LORA_KEYS, "learning_rate_ratio"),
    ),
    "adalora": Method(
        "adalora", "ranks shared out by importance during training", "Zhang et al. 2023", LORA_KEYS
    ),
    "ia3": Method(
        "ia3",
        "one factor per output (per input where a layer narrows)",
        "Liu et al. 2022",
        ("target_modules",),
    ),
    "bitfit": Method("subset", "biases and head", "Ben Zaken et al. 2022"),
    "head": Method("subset", "the head alone, on frozen features", "baseline"),
}
METHODS: Registry[Method] = Registry("kotune.methods", OWN, Method)
