"""What a training needs, found by running its step on fake tensors: nothing is loaded.

The model is the recipe's own, adapter included, through the code that builds the real one; the
phases are the step (forward, backward, clipping, optimizer) at the micro-batch and length asked
for, the evaluation, and the final predictions in fp32.
"""

from __future__ import annotations

import gc
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from finetune.core.errors import KotuneError, ModelError
from finetune.hardware.frozen_base import HALVES, held_dtype, hold_base, wants_packed
from finetune.hardware.host_memory import allocator_bytes, wants_compact_memory
from finetune.hardware.packed_lora import is_placeholder, pack_lora, unpack_lora
from finetune.hardware.streaming import outgrows_peak
from finetune.models.loading import autocast_context, first_line, load_skeleton
from finetune.models.source import BaseModel
from finetune.planning.fake_model import (
    cuda_rules,
    fill_with_fakes,
    plain_functions,
    quiet_fakes,
    replace_linear_layers,
    storages,
)
from finetune.planning.live_memory import ACTIVATIONS, GRADIENTS, OPTIMIZER, WEIGHTS, LiveMemory
from finetune.planning.step import make_batch, make_optimizer, run_step, vocabulary_of
from finetune.recipes.methods import METHODS
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.text.job import DTYPES, adapt_model, recipe_attention

# cuBLAS keeps a workspace among PyTorch's own bytes: 2 x 4096 KiB + 8 x 16 KiB, 32 MiB on Hopper
CUDA_WORKSPACE_BYTES = 8_519_680


@dataclass(frozen=True)
class StepShape:
    """What of a step decides its memory; lengths in tokens, padding included."""

    rows: int
    length: int
    eval_rows: int
    device: str
    precision: str


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes alive at the peak of the training step, and each other phase's peak."""

    parameters: int
    trainable_parameters: int
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    runtime_bytes: int
    step_bytes: int
    evaluation_bytes: int
    prediction_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The most of all phases."""
        return max(self.step_bytes, self.evaluation_bytes, self.prediction_bytes)

    @property
    def phase(self) -> str:
        """The phase that needs the most."""
        phases = {
            "training step": self.step_bytes,
            "evaluation": self.evaluation_bytes,
            "final predictions": self.prediction_bytes,
        }
        return max(phases, key=phases.__getitem__)

    def as_dict(self) -> dict[str, Any]:
        """Every figure, JSON-ready."""
        return {**asdict(self), "peak_bytes": self.peak_bytes, "phase": self.phase}


def estimate_memory(recipe: FinetuneRecipe, base: BaseModel, shape: StepShape) -> MemoryNeed:
    """Run the recipe's step on fake tensors and report what was alive.

    Raises ModelError, also where the architecture computes what fake tensors cannot.
    """
    try:
        with quiet_fakes():
            return _estimate(recipe, base, shape)
    except KotuneError:
        raise
    except Exception as fault:  # whatever a model's forward makes of tensors without values
        raise ModelError(
            "this architecture cannot be planned: its step does not run on tensors without values",
            received=f"{base.source}: {type(fault).__name__}: {first_line(fault)}",
            next_step="kotune finetune with training.max_steps=5 training.eval_steps=5 measures a "
            "short run; run.json then holds its peak",
        ) from fault


def _estimate(recipe: FinetuneRecipe, base: BaseModel, shape: StepShape) -> MemoryNeed:
    model = build_meta_model(recipe, base, shape)
    parameters = sum(one.numel() for one in model.parameters())
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    mode = FakeTensorMode()
    fill_with_fakes(model, mode)
    trainable = [one for one in model.parameters() if one.requires_grad]
    assert len(trainable) == len(trained)
    memory = LiveMemory()
    for tensor in storages(model):
        memory.count(tensor, WEIGHTS)
    rules = cuda_rules(shape.precision) if shape.device == "cuda" else nullcontext()
    with mode, rules, plain_functions(model):
        _run_training(model, recipe, shape, memory)
        step = dict(memory.at_peak)
        compact = wants_compact_memory(recipe)
        holed = memory.small_at_peak if compact else step[ACTIVATIONS]
        evaluation = _run_forward(model, shape, memory, shape.precision)
        widen_weights(model, memory)
        prediction = _run_forward(model, shape, memory, "fp32")
    held = held_dtype(recipe, shape.precision) and not METHODS[recipe.method].quantised
    whole = sum(step.values())
    if shape.device == "cuda" and held and outgrows_peak(parameters, whole):
        prediction = min(prediction, whole)  # layer by layer from the host
    runtime = _runtime_bytes(holed, recipe, shape)
    others = _runtime_bytes(0, recipe, shape)
    return MemoryNeed(
        parameters=parameters,
        trainable_parameters=sum(one.numel() for one in trainable),
        weights_bytes=step[WEIGHTS],
        gradients_bytes=step[GRADIENTS],
        optimizer_bytes=step[OPTIMIZER],
        activations_bytes=step[ACTIVATIONS],
        runtime_bytes=runtime,
        step_bytes=sum(step.values()) + runtime,
        evaluation_bytes=evaluation + others,
        prediction_bytes=prediction + others,
    )


def _runtime_bytes(activations_bytes: int, recipe: FinetuneRecipe, shape: StepShape) -> int:
    """What is needed beside the tensors: CUDA's workspace, or what the CPU's malloc makes of it."""
    if shape.device == "cuda":
        return CUDA_WORKSPACE_BYTES
    packed = wants_packed(recipe, shape.precision, shape.device)
    plain_adapters = recipe.adapter.method != "full" and not packed
    return allocator_bytes(
        activations_bytes, plain_adapters=plain_adapters, precision=shape.precision
    )


def build_meta_model(recipe: FinetuneRecipe, base: BaseModel, shape: StepShape) -> Any:
    """The model as ``training.build_model`` makes it, on the meta device."""
    with torch.device("meta"):
        model = load_skeleton(
            base,
            list(recipe.data.labels.values()),
            recipe.model.dropout,
            recipe_attention(recipe, shape.device, shape.precision),
        )
        if METHODS[recipe.adapter.method].quantised:
            model = replace_linear_layers(model, DTYPES[shape.precision])
        adapted = adapt_model(model, recipe, shape.device)
    held = held_dtype(recipe, shape.precision)
    if held:
        hold_base(adapted, held)
    if wants_packed(recipe, shape.precision, shape.device):
        pack_lora(adapted)
    if recipe.training.gradient_checkpointing:
        adapted.gradient_checkpointing_enable({"use_reentrant": False})
    return adapted


def widen_weights(model: torch.nn.Module, memory: LiveMemory) -> None:
    """Frozen weights back in fp32, as the final predictions are made."""
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.float32
    unpack_lora(model)
    for parameter in model.parameters():
        if parameter.dtype in HALVES.values() or is_placeholder(parameter):
            parameter.data = torch.empty(parameter.shape)
            memory.count(parameter, WEIGHTS)


def _run_training(model: Any, recipe: FinetuneRecipe, shape: StepShape, memory: LiveMemory) -> None:
    """Two optimizer steps: the first makes the optimizer's states, the second is measured."""
    training = recipe.training
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(lambda one: memory.count(one.grad, GRADIENTS))
    optimizer = make_optimizer(model, training, shape.device)
    with memory:
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    memory.count(value, OPTIMIZER)
        micro = min(2, training.gradient_accumulation_steps)
        batches = [_fake_batch(model, shape.rows, shape.length) for _ in range(micro)]
        gc.collect()
        memory.forget_peak()
        model.train()
        run_step(
            model,
            optimizer,
            batches,
            device="cpu",
            precision=shape.precision,
            max_grad_norm=training.max_grad_norm,
        )
    memory.optimizer = optimizer  # its states stay alive through the other phases


def _run_forward(model: Any, shape: StepShape, memory: LiveMemory, precision: str) -> int:
    """The peak of one forward pass without gradients."""
    model.eval()
    gc.collect()
    with memory, torch.no_grad(), autocast_context("cpu", precision):
        memory.forget_peak()
        model(**_fake_batch(model, shape.eval_rows, shape.length))
    return memory.peak_bytes


def _fake_batch(model: Any, rows: int, length: int) -> dict[str, torch.Tensor]:
    return make_batch(rows, length, model.config.num_labels, vocabulary_of(model))
