"""One forward and backward step before the first: does this model train this way at all?

kotune's kernels and its choice of precision are on for every architecture; some break one of
them (DeBERTa v1 overflows under bf16 autocast). Where the recipe left the choice to ``auto`` the
next way is taken, with a line; where it fixed one, the work is refused before it begins.
"""

from __future__ import annotations

import contextlib
import gc
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from finetune.checks.signs import Sign
from finetune.core.errors import KotuneError, ModelError, RecipeError
from finetune.hardware.host_memory import give_back_free_memory
from finetune.loop.ledger import is_out_of_memory, unrecorded_peak
from finetune.models.loading import autocast_context

Built = TypeVar("Built")
Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Way:
    """How a step is computed: whose kernels ("auto" are kotune's, "library"), which precision."""

    kernels: str
    precision: str

    def describe(self, beside: Way) -> str:
        """What differs from another way, in the recipe's words."""
        told = []
        if self.kernels != beside.kernels:
            told.append(f"training.cpu_kernels={self.kernels}")
        if self.precision != beside.precision:
            told.append(f"training.precision={self.precision}")
        return " ".join(told)


@dataclass(frozen=True)
class Settled:
    """The way that works, what was built for it, and the sign where it is not the first one."""

    way: Way
    built: Any
    signs: tuple[Sign, ...] = ()


def settle_way(
    first: Way,
    build: Callable[[Way], Built],
    step: Callable[[Built, Way], None],
    *,
    kernels: str,
    precision: str,
) -> Settled:
    """The first way whose step works: as planned, the library's kernels, fp32, both.

    ``kernels`` and ``precision`` are what the recipe asks; only what is ``auto`` is changed.
    Raises RecipeError, naming the way out, where another way would work, else ModelError.
    """

    def allowed(way: Way) -> bool:
        return (way.kernels == first.kernels or kernels == "auto") and (
            way.precision == first.precision or precision == "auto"
        )

    failures: list[str] = []
    ways = dict.fromkeys(
        Way(one, two) for two in (first.precision, "fp32") for one in (first.kernels, "library")
    )
    for way in sorted(ways, key=lambda one: not allowed(one)):
        built = build(way)
        fault = _try(lambda built=built, way=way: step(built, way))
        if fault is None and allowed(way):
            return Settled(way, built, _fallback_sign(first, way, failures))
        del built
        gc.collect()
        if fault is None:
            raise _refusal(first, failures, way)
        failures.append(fault)
    raise _refusal(first, failures, None)


def take_step(
    model: torch.nn.Module,
    batch: Batch,
    loss_of: Callable[[Any, Batch], torch.Tensor],
    *,
    device: str,
    precision: str,
) -> None:
    """Forward and backward in training mode; ArithmeticError where no finite numbers come out.

    Weights, gradients, random numbers and the recorded peak of memory are as before. Under fp16
    gradients may overflow: the loss scaler of the training is there for that.
    """
    with untouched(model), torch.enable_grad():
        model.train()
        with autocast_context(device, precision):
            inputs = {name: value.to(device) for name, value in batch.items()}
            loss = loss_of(model, inputs)
        if not torch.isfinite(loss):
            raise ArithmeticError(f"the loss of a trial step is {loss.item()}")
        loss.backward()
        for name, parameter in model.named_parameters():
            gradient = parameter.grad
            if precision != "fp16" and gradient is not None and not gradient.isfinite().all():
                raise ArithmeticError(f"the gradient of {name} is not finite")


@contextlib.contextmanager
def untouched(model: torch.nn.Module) -> Iterator[None]:
    """Leave random states, mode, gradients and the peak of memory as they were before the block."""
    python, array, was_training = random.getstate(), np.random.get_state(), model.training  # noqa: NPY002
    with unrecorded_peak():
        try:
            with torch.random.fork_rng():
                yield
        finally:
            random.setstate(python)
            np.random.set_state(array)  # noqa: NPY002
            model.train(was_training)
            for parameter in model.parameters():
                parameter.grad = None
            gc.collect()
            give_back_free_memory()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _try(step: Callable[[], None]) -> str | None:
    """What went wrong, in one line; None where nothing did, and where only memory ran out."""
    try:
        step()
    except KotuneError:
        raise
    except Exception as fault:  # whatever a model raises of itself: all mean the same here
        if is_out_of_memory(fault):  # the training finds a micro-batch that fits
            return None
        return f"{type(fault).__name__}: {(str(fault).splitlines() or [''])[0][:200]}"
    return None


def _fallback_sign(first: Way, way: Way, failures: Sequence[str]) -> tuple[Sign, ...]:
    if way == first:
        return ()
    message = (
        f"a trial step failed ({failures[0]}): trained with {way.describe(first)}, with which it "
        "works"
    )
    return (Sign("fallback", message, {"cpu_kernels": way.kernels, "precision": way.precision}),)


def _refusal(first: Way, failures: Sequence[str], way: Way | None) -> KotuneError:
    if way is None:
        return ModelError(
            "a trial step of this model fails before training, in every way that was tried",
            received=failures[0],
            next_step="another base model",
        )
    return RecipeError(
        f"{first.describe(way)} does not work with this model: a trial step fails",
        received=failures[0],
        next_step=f"{way.describe(first)}, with which it works",
    )
