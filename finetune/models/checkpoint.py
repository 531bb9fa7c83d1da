"""What was loaded of a checkpoint against what the architecture asks for.

transformers fills with random numbers whatever a checkpoint lacks and passes over whatever it has
too much; outside of a new head both mean that another model is trained than was meant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from finetune.core.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Wrappers and what leaves their name in front of every key.
WRAPPERS = {
    "module": "torch's DistributedDataParallel",
    "_orig_mod": "torch.compile",
    "model": "a module that held the model",
    "base_model": "PEFT",
}
HEADS_INSIDE = ("pooler", "masked_spec_embed")  # of the base model, new in many a pretrained one


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What came from the checkpoint: parameters of the encoder, new modules, tensors left out."""

    encoder_parameters: int
    new_modules: tuple[str, ...]
    unused: tuple[str, ...]

    def describe(self) -> str:
        """One line for the console."""
        new = f"; new: {', '.join(self.new_modules)}" if self.new_modules else ""
        unused = sorted({".".join(name.split(".")[:2]) for name in self.unused})
        told = ", ".join(unused[:4]) + (" …" if len(unused) > 4 else "")
        left = f"; not used: {told}" if unused else ""
        return f"checkpoint: all {self.encoder_parameters:,} encoder parameters loaded{new}{left}"


@dataclass(frozen=True)
class Misfit:
    """Keys of the encoder that are missing, of another shape, too many; all unexpected ones."""

    lost: list[str]
    bent: list[str]
    foreign: list[str]
    unexpected: list[str]


def compare_checkpoint(
    model: PreTrainedModel, info: Mapping[str, Any], source: str, files: Sequence[Path] = ()
) -> LoadedCheckpoint:
    """Hold ``from_pretrained``'s loading info against the model; ModelError beyond the head.

    ``info`` is what ``output_loading_info`` gives, mismatched shapes included
    (``ignore_mismatched_sizes``); ``files`` are asked for the shapes they hold. A pooler counts
    as head.
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    shapes = sorted(one if isinstance(one, str) else one[0] for one in info["mismatched_keys"])
    misfit = Misfit(
        lost=[key for key in missing if _in_encoder(model, key)],
        bent=[key for key in shapes if _in_encoder(model, key)],
        foreign=[key for key in unexpected if _meant_for_encoder(model, key)],
        unexpected=unexpected,
    )
    if misfit.lost or misfit.bent or misfit.foreign:
        raise _refusal(model, misfit, source, files)
    encoder = sum(size for key, size in _sizes(model) if _in_encoder(model, key))
    new = {_outermost(model, key) for key in (*missing, *shapes)}
    return LoadedCheckpoint(encoder, tuple(sorted(new)), tuple(unexpected))


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], source: str) -> None:
    """Raise ModelError naming the first tensor that holds NaN or infinity."""
    for name, value in tensors:
        if value.is_floating_point() and not torch.isfinite(value).all():
            count = int((~torch.isfinite(value)).sum())
            raise ModelError(
                "the checkpoint holds weights that are not finite numbers",
                received=f"{source}: {count:,} of {value.numel():,} values of {name}",
                next_step="an earlier checkpoint of that model: its training had diverged",
            )


def check_finite_files(paths: Sequence[Path], source: str) -> None:
    """The same of stored weights, for a model that keeps none of them as they were (NF4)."""
    from safetensors import safe_open

    for path in paths:
        with safe_open(path, framework="pt") as weights:
            names = weights.keys()
            check_finite(((name, weights.get_tensor(name)) for name in names), source)


def check_adapter(
    expected: Mapping[str, torch.Tensor], stored: Mapping[str, torch.Tensor], what: str
) -> None:
    """Raise ModelError unless a file holds the expected tensors and no other, all finite."""
    missing, foreign = sorted(set(expected) - set(stored)), sorted(set(stored) - set(expected))
    bent = [key for key in expected if key in stored and expected[key].shape != stored[key].shape]
    told = [f"missing {key}" for key in missing[:1]] + [f"unknown {key}" for key in foreign[:1]]
    told += [
        f"{key} of shape {tuple(stored[key].shape)}, not {tuple(expected[key].shape)}"
        for key in bent[:1]
    ]
    if told:
        raise ModelError(f"{what} does not fit the base model", received="; ".join(told))
    check_finite(stored.items(), what)


def _refusal(
    model: PreTrainedModel, misfit: Misfit, source: str, files: Sequence[Path]
) -> ModelError:
    """What is said of a misfit: the share, the first key of each kind, the likely cause."""
    sizes = {key: size for key, size in _sizes(model) if _in_encoder(model, key)}
    total, absent = sum(sizes.values()), {*misfit.lost, *misfit.bent}
    share = 1 - sum(size for key, size in sizes.items() if key in absent) / max(total, 1)
    told = [f"missing {_named(misfit.lost)}"] if misfit.lost else []
    foreign = misfit.foreign or misfit.unexpected
    told += [f"unexpected {_named(foreign)}"] if foreign else []
    for key in misfit.bent[:1]:
        asked = tuple(model.get_parameter(key).shape)
        stored = _stored_shape(files, key, model.base_model_prefix)
        told.append(f"{key} of shape {stored or 'another'}, where config.json asks for {asked}")
    config = model.config
    layers = getattr(config, "num_hidden_layers", None)
    return ModelError(
        "the checkpoint's weights do not belong to the architecture of its config.json: "
        f"{share:.1%} of the encoder's {total:,} parameters would be loaded",
        received=f"{source}: {'; '.join(told)}",
        allowed=f"every weight of {config.model_type}"
        + (f" with {layers} layers" if layers else "")
        + "; only the head may be new",
        next_step=_likely_cause(model, misfit),
    )


def _likely_cause(model: PreTrainedModel, misfit: Misfit) -> str:
    prefix = _foreign_prefix(model, misfit)
    makers = [WRAPPERS[part] for part in prefix.split(".") if part in WRAPPERS]
    if makers:
        return (
            f"the keys begin with `{prefix}.`, which {makers[0]} leaves there: save the model "
            "without its wrapper, or take the prefix off the keys"
        )
    if prefix:
        return (
            f"the keys begin with `{prefix}.`, config.json says {model.config.model_type}: "
            "the config.json that belongs to these weights, or the keys without that prefix"
        )
    if any(".lora_" in key or ".base_layer." in key for key in misfit.unexpected):
        return "an adapter is still beside the weights: merge_and_unload, then save_pretrained"
    if misfit.lost and not misfit.foreign:
        return "the file is not whole: save or download it again, or correct config.json"
    if misfit.foreign and not misfit.lost:
        return "config.json describes a smaller model than the file holds: correct config.json"
    return "the config.json and the weights of one and the same model"


def _foreign_prefix(model: PreTrainedModel, misfit: Misfit) -> str:
    """What stands in front of most unexpected keys and, taken off, makes missing ones of them."""
    base = model.base_model_prefix
    wanted = {key.removeprefix(f"{base}.") for key in misfit.lost}
    for key in misfit.unexpected:
        parts = key.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in wanted:
                front = [
                    *parts[: cut - 1],
                    *(part for part in parts[cut - 1 : cut] if part != base),
                ]
                prefix = ".".join(front)
                same = sum(one.startswith(f"{prefix}.") for one in misfit.unexpected)
                return prefix if 2 * same > len(misfit.unexpected) else ""
    return ""


def _stored_shape(files: Sequence[Path], key: str, base: str) -> tuple[int, ...] | None:
    from safetensors import safe_open

    for path in files:
        with safe_open(path, framework="pt") as weights:
            for name in {key, key.removeprefix(f"{base}.")} & set(weights.keys()):
                return tuple(weights.get_slice(name).get_shape())
    return None


def _in_encoder(model: PreTrainedModel, key: str) -> bool:
    """Whether a key of the model is one of the pretrained encoder, whose pooler may be new."""
    if set(key.split(".")) & set(HEADS_INSIDE) or key.endswith("position_ids"):
        return False
    if model.base_model is model:
        return True
    return key.startswith(f"{model.base_model_prefix}.")


def _meant_for_encoder(model: PreTrainedModel, key: str) -> bool:
    """Whether a key the model lacks was meant for its encoder, not for another head."""
    bare = key.removeprefix(f"{model.base_model_prefix}.")
    if set(bare.split(".")) & set(HEADS_INSIDE):
        return False
    rooms = {name for name, _ in model.base_model.named_children()}
    return bare.split(".")[0] in rooms


def _outermost(model: PreTrainedModel, key: str) -> str:
    return key.removeprefix(f"{model.base_model_prefix}.").split(".")[0]


def _sizes(model: PreTrainedModel) -> Iterable[tuple[str, int]]:
    """Parameters by name; an NF4 matrix counts each of its weights."""
    for name, value in model.named_parameters():
        state = getattr(value, "quant_state", None)
        yield name, math.prod(state.shape) if state is not None else value.numel()


def _named(keys: Sequence[str]) -> str:
    return keys[0] + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
