"""Whether a run could ever be exported: told before hours of training, without any weights."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from finetune.checks.signs import Sign
from finetune.core.errors import ModelError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PretrainedConfig

CLASSIFICATION = "text-classification"
REQUIRED_INPUTS = frozenset({"input_ids", "attention_mask"})
KNOWN_INPUTS = REQUIRED_INPUTS | {"token_type_ids"}


def onnx_config(config: PretrainedConfig, task: str = CLASSIFICATION) -> Any:
    """Optimum's description of an architecture's graph; raises ModelError where it has none."""
    from optimum.exporters.onnx import model_configs  # noqa: F401  registers the architectures
    from optimum.exporters.tasks import TasksManager

    kind = config.model_type
    try:
        make = TasksManager.get_exporter_config_constructor(
            exporter="onnx",
            model_type=kind,
            model_name=kind,
            task=task,
            library_name="transformers",
        )
        described = make(config)
    except (KeyError, ValueError, AttributeError) as fault:
        raise ModelError(
            f"this architecture has no ONNX export for {task} in Optimum",
            received=kind,
            allowed="an encoder such as bert, roberta, electra, xlm-roberta",
        ) from fault
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
        described = onnx_config(config)
    except ModelError as fault:
        told.append(f"{fault.what}: {fault.received}")
    else:
        inputs = set(described.inputs)
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
