"""Whether a run could ever be exported: told before hours of training, without any weights."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from finetune.checks.signs import Sign
from finetune.core.errors import ModelError, RecipeError
from finetune.core.libraries import has_optimum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PretrainedConfig

CLASSIFICATION = "text-classification"
REQUIRED_INPUTS = frozenset({"input_ids", "attention_mask"})
KNOWN_INPUTS = REQUIRED_INPUTS | {"token_type_ids"}

# Graph inputs by model_type, as Optimum names them (optimum-onnx 0.1, model_configs.py); EuroBERT
# is transformers 5's. Used where Optimum is not installed; a test holds the two against each other.
WITHOUT_SEGMENTS = (
    *("big_bird", "camembert", "data2vec-text", "distilbert", "eurobert", "ibert"),
    *("modernbert", "mpnet", "roberta", "xlm-roberta"),
)
WITH_SEGMENTS = (
    *("albert", "bert", "convbert", "deberta", "deberta-v2", "electra", "flaubert"),
    *("megatron-bert", "mobilebert", "nystromformer", "rembert", "roformer", "squeezebert", "xlm"),
)
WITH_MORE = {"longformer": ("token_type_ids", "global_attention_mask")}


def graph_inputs(config: PretrainedConfig) -> tuple[str, ...]:
    """The inputs of an architecture's classifier graph; raises ModelError where it has none."""
    kind = config.model_type
    if has_optimum() and (described := describe_with_optimum(config)) is not None:
        return tuple(described.inputs)
    more: tuple[str, ...] = WITH_MORE.get(kind, ())
    if kind in WITH_SEGMENTS and getattr(config, "type_vocab_size", None) != 0:
        more = ("token_type_ids",)
    if not more and kind not in (*WITHOUT_SEGMENTS, *WITH_SEGMENTS):
        raise ModelError(
            f"this architecture has no ONNX export for {CLASSIFICATION}",
            received=kind,
            allowed="an encoder such as bert, roberta, electra, xlm-roberta",
        )
    return ("input_ids", "attention_mask", *more)


def describe_with_optimum(config: PretrainedConfig) -> Any | None:
    """Optimum's description of a classifier's graph; None where it does not know the architecture.

    Raises ModelError where the installed transformers is too old for Optimum's.
    """
    from optimum.exporters.onnx import model_configs  # noqa: F401  registers the architectures
    from optimum.exporters.tasks import TasksManager

    kind = config.model_type
    try:
        make = TasksManager.get_exporter_config_constructor(
            exporter="onnx",
            model_type=kind,
            model_name=kind,
            task=CLASSIFICATION,
            library_name="transformers",
        )
        described = make(config)
    except (KeyError, ValueError, AttributeError):
        return None
    if not described.is_transformers_support_available:
        import transformers

        raise ModelError(
            "Optimum does not export this architecture from the installed transformers",
            received=f"{kind} with transformers {transformers.__version__}",
            allowed=f"transformers {described.MIN_TRANSFORMERS_VERSION} or later",
        )
    return described


def export_obstacles(
    config: PretrainedConfig, tokenizer: Any, precisions: Sequence[str] | None = None
) -> list[str]:
    """Why architecture, tokenizer or a precision cannot become an artifact here; [] where they can.

    Nothing is computed: the same facts that ``kotune export`` meets afterwards.
    """
    told = []
    if not tokenizer.is_fast:
        told.append(
            f"{type(tokenizer).__name__} is no fast tokenizer (tokenizer.json), which an artifact "
            "needs to run without transformers"
        )
    try:
        inputs = set(graph_inputs(config))
    except ModelError as fault:
        told.append(f"{fault.what}: {fault.received}")
    else:
        if not inputs >= REQUIRED_INPUTS or not inputs <= KNOWN_INPUTS:
            told.append(
                f"the graph of {config.model_type} would have the inputs "
                f"{', '.join(sorted(inputs))}; the runtime gives {', '.join(sorted(KNOWN_INPUTS))}"
            )
    lacking = [name for name in ("num_attention_heads", "hidden_size") if not hasattr(config, name)]
    if lacking:
        told.append(f"the config of {config.model_type} states no {' and '.join(lacking)}")
    for precision in precisions or ():
        if precision.startswith("openvino") and find_spec("openvino") is None:
            told.append(f"{precision} needs openvino (pip install openvino)")
    return told


def check_exportable(
    config: PretrainedConfig,
    tokenizer: Any,
    *,
    wanted: bool,
    precisions: Sequence[str] | None = None,
) -> list[Sign]:
    """Signs that the run cannot be exported; RecipeError where the recipe wants it exported."""
    told = export_obstacles(config, tokenizer, precisions)
    if told and wanted:
        raise RecipeError(
            "the recipe has an export section, and its run could not be exported\n"
            + "\n".join(f"  - {line}" for line in told),
            next_step="another base model or precision; without `export` it is trained anyway",
        )
    return [Sign("not-exportable", f"this run could not be exported: {line}") for line in told]
