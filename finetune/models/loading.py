"""Base model and tokenizer, loaded: full precision or NF4, and logits from them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from finetune.core.errors import ModelError
from finetune.hardware.gpu import placement
from finetune.hardware.precision import exact_fp32
from finetune.models.checkpoint import check_finite, check_finite_files, compare_checkpoint
from finetune.models.four_bit import (
    finish_4bit,
    halve_around_4bit,
    nf4_config,
    quantize_in_memory,
)
from finetune.models.source import (
    KLUE,
    TOKENIZER,
    BaseModel,
    hash_weights,
    resolve_base,
    stored_files,
)
from finetune.models.tokenizer import load_tokenizer
from finetune.models.trained_weights import attach_trained
from finetune.models.weight_files import check_settings_files, check_weight_files
from finetune.recipes.methods import METHODS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.run_folder import Run


LOAD_FAULTS = (  # of from_pretrained
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    ImportError,
    AttributeError,
    SafetensorError,
)
DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
)


# What a base's config.json may say otherwise, and what is trained, stored and served here.
TRAINED_AS = {
    "problem_type": "single_label_classification",
    "return_dict": True,
    "torchscript": False,
    "output_hidden_states": False,
    "output_attentions": False,
}


def load_base_tokenizer(base: BaseModel) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to ``base``.

    Raises ModelError. The random-weights KLUE sizes use the embedded tokenizer.
    """
    if base.random_weights and base.location in KLUE:
        return load_tokenizer(TOKENIZER)
    return load_tokenizer(base.location, base.revision)


def load_base(
    base: BaseModel,
    labels: Sequence[str],
    *,
    quantize_4bit: bool = False,
    compute_dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
    dropout: float | None = None,
    attention: str | None = None,
) -> PreTrainedModel:
    """A sequence classifier on ``base`` with a new head seeded by ``seed``.

    ``quantize_4bit`` loads encoder matrices as NF4 with double quantisation (QLoRA, Dettmers
    et al. 2023); ``dropout`` and ``attention`` replace the encoder's own. The names of modules
    that had no pretrained weights, the head among them, stand in ``model.kotune_new_modules``.
    Raises ModelError.
    """
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(base.seed if base.random_weights else seed)
    config = _config(base, labels, dropout, attention)
    if base.random_weights:
        with _local_seed(base.seed):
            model = AutoModelForSequenceClassification.from_config(
                config, dtype=torch.float32, trust_remote_code=False
            )
        model.kotune_new_modules = [_head_name(model)]
        return quantize_in_memory(model, compute_dtype, device) if quantize_4bit else model
    options: dict[str, Any] = {
        "config": config,
        "dtype": torch.float32,
        "ignore_mismatched_sizes": True,  # compare_checkpoint refuses those beyond the head
    }
    if quantize_4bit:
        skeleton = _skeleton(config)
        options["quantization_config"] = nf4_config(compute_dtype, _new_modules(base, skeleton))
        options["device_map"] = {"": placement(device)}
    model, info = load_checked(AutoModelForSequenceClassification, base, **options)
    if quantize_4bit:
        check_finite_files(stored_files(base), base.source)
    model.kotune_new_modules = _modules_of(info["missing_keys"], model)
    return finish_4bit(model) if quantize_4bit else model


def load_checked(
    kind: Any, base: BaseModel, allowed: str | None = None, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """``kind.from_pretrained`` of a base whose weights fit and are finite, and its loading info.

    What was loaded stands in ``model.kotune_loaded``. Raises ModelError, which says what is
    ``allowed``.
    """
    try:
        files = stored_files(base)
        model, info = kind.from_pretrained(
            files[0].parent,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
            **options,
        )
    except LOAD_FAULTS as fault:
        raise ModelError(
            "the base model cannot be loaded",
            received=f"{base.source}: {first_line(fault)}",
            allowed=allowed,
        ) from fault
    model.kotune_loaded = compare_checkpoint(model, info, base.source, files)
    check_finite(model.named_parameters(), base.source)
    return model, info


def load_trained(
    run: Run, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    """The model as it was trained, in eval mode: adapter unmerged, QLoRA on its NF4 base.

    Raises ModelError where the base model is not the one the run was trained on.
    """
    from transformers import AutoModelForSequenceClassification

    method = METHODS[run.method]
    if method.family == "full":
        model = load_whole(AutoModelForSequenceClassification, run.folder / "model", dtype)
    else:
        base_model = load_base(
            run_base(run),
            run.labels,
            quantize_4bit=method.quantised,
            compute_dtype=dtype,
            device=device,
        )
        model = attach_trained(base_model, run.method, run.folder / "model")
        model = halve_around_4bit(model, dtype) if method.quantised else model.to(dtype)
    return model.to(device).eval()


def load_whole(kind: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """``kind.from_pretrained`` of a folder that holds every weight, head included; ModelError."""
    check_settings_files(folder, str(folder))
    check_weight_files(folder, str(folder))
    try:
        model, info = kind.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except LOAD_FAULTS as fault:
        raise ModelError(
            "the stored model cannot be loaded", received=f"{folder}: {first_line(fault)}"
        ) from fault
    amiss = sorted({*info["missing_keys"], *info["unexpected_keys"]})
    if amiss:
        raise ModelError(
            "the stored model's weights and its config.json do not belong together",
            received=f"{folder}: {amiss[0]} and {len(amiss) - 1} more",
        )
    return model


def run_base(run: Run) -> BaseModel:
    """The base model a run was trained on, found again and checked; raises ModelError."""
    told = run.base
    base = resolve_base(
        told.source, told.revision, random_weights=told.random_weights, seed=told.seed
    )
    every = sorted(Path(base.location).glob("*.safetensors"))  # what older runs hashed
    known = (None, base.weights_sha256, hash_weights(every))
    if told.weights_sha256 not in known:
        raise ModelError(
            "the base model is not the one this run was trained on",
            received=f"{base.source} with weights {base.weights_sha256}",
            allowed=told.weights_sha256,
        )
    return base


def autocast_context(device: str, precision: str) -> contextlib.AbstractContextManager:
    """``torch.autocast`` for bf16 and fp16; fp32 is exact; tf32 is left as it was set."""
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in dtypes:
        return contextlib.nullcontext() if precision == "tf32" else exact_fp32()
    return torch.autocast(device_type=device.split(":")[0], dtype=dtypes[precision])


def _config(
    base: BaseModel,
    labels: Sequence[str],
    dropout: float | None = None,
    attention: str | None = None,
) -> Any:
    from transformers import AutoConfig, RobertaConfig

    settings: dict[str, Any] = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "attn_implementation": attention,
        **TRAINED_AS,
    }
    if base.location in KLUE and base.random_weights:
        config = RobertaConfig(
            vocab_size=32000,
            intermediate_size=4 * KLUE[base.location]["hidden_size"],
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
            **KLUE[base.location],
            **settings,
        )
    else:
        try:
            config = AutoConfig.from_pretrained(
                base.location,
                revision=base.revision or "main",
                local_files_only=base.local_only,
                trust_remote_code=False,
                **settings,
            )
        except LOAD_FAULTS as fault:
            raise ModelError(
                "the model's config.json is not understood",
                received=f"{base.source}: {first_line(fault)}",
            ) from fault
    for name in DROPOUTS:
        if dropout is not None and hasattr(config, name):
            setattr(config, name, dropout)
    return config


def load_skeleton(
    base: BaseModel, labels: Sequence[str], dropout: float | None, attention: str | None
) -> Any:
    """``load_base``'s architecture on the meta device: shapes and names, no memory."""
    skeleton = _skeleton(_config(base, labels, dropout, attention))
    skeleton.kotune_new_modules = (
        [_head_name(skeleton)] if base.random_weights else _new_modules(base, skeleton)
    )
    return skeleton


def _skeleton(config: Any) -> Any:
    """The architecture without memory, to ask for its module names."""
    from transformers import AutoModelForSequenceClassification

    try:
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(
                config, dtype=torch.float32, trust_remote_code=False
            )
    except LOAD_FAULTS as fault:
        raise ModelError(
            "transformers builds no text classifier of this config.json",
            received=f"{config.model_type}: {first_line(fault)}",
            allowed="an encoder such as bert, roberta, electra, deberta-v2",
        ) from fault


def _new_modules(base: BaseModel, skeleton: Any) -> list[str]:
    """Modules without pretrained weights: what a checkpoint's own keys leave open."""
    if not Path(base.location).is_dir():
        return [_head_name(skeleton)]
    from safetensors import safe_open

    prefix = skeleton.base_model_prefix + "."
    stored: set[str] = set()
    for path in stored_files(base):
        with safe_open(path, framework="pt") as weights:
            stored |= {key.removeprefix(prefix) for key in weights.keys()}  # noqa: SIM118
    wanted = [key for key in skeleton.state_dict() if key.removeprefix(prefix) not in stored]
    return _modules_of(wanted, skeleton)


def _modules_of(missing: Sequence[str], model: Any) -> list[str]:
    """The outermost modules that hold the missing keys, the head always among them."""
    prefix = model.base_model_prefix + "."
    names = {_head_name(model)}
    for key in missing:
        place = key.removeprefix(prefix).split(".")
        if not key.endswith("position_ids"):
            names.add(place[0])
    return sorted(names)


def _head_name(model: Any) -> str:
    for name in ("classifier", "score", "classification_head"):
        if hasattr(model, name):
            return name
    raise ModelError("the model has no classification head that we know", received=type(model))


@contextlib.contextmanager
def _local_seed(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def first_line(fault: BaseException) -> str:
    """The first line of what an exception says, at most 200 characters."""
    return (str(fault).splitlines() or [type(fault).__name__])[0][:200]
