"""What a package of one's own can add to kotune, one of each.

Heavy libraries are imported inside the functions: this module is loaded by recipe checks too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bench.variants.added import Runtime
from export.quantization.candidates import Quantization
from finetune.core.errors import RecipeError
from finetune.recipes.methods import Method
from finetune.recipes.metrics import Metric
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.registry import Guest


def configure_orthogonal(
    layers: Mapping[str, Any], *, rank: int, alpha: int, dropout: float
) -> Any:
    """PEFT's LoRA that starts from orthogonal factors; its rank is even."""
    from peft import LoraConfig, TaskType

    if rank % 2:
        raise RecipeError("adapter.rank has to be even with orthogonal", received=rank)
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        init_lora_weights="orthogonal",
        target_modules=list(layers),
        task_type=TaskType.SEQ_CLS,
    )


ORTHOGONAL = Method(
    "peft",
    "LoRA that starts from orthogonal factors",
    "PEFT, init_lora_weights",
    keys=("rank", "alpha", "dropout", "target_modules"),
    configure=configure_orthogonal,
)


def balanced_accuracy(labels: Any, logits: Any) -> float:
    """Mean recall of the classes that occur: labels (n,), logits (n, k)."""
    from sklearn.metrics import recall_score

    return recall_score(labels, logits.argmax(axis=1), average="macro", zero_division=0)


BALANCED_ACCURACY = Metric(balanced_accuracy, greater_is_better=True, form=".2%")


def quantize_per_tensor(workshop: Any, target: Path) -> dict[str, Any]:
    """Dynamic int8 with one scale a matrix instead of one a column; the head stays float."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(str(workshop.plain), load_external_data=False).graph
    heads = tuple(f"/{name}/" for name in workshop.head_modules)
    products = [node.name for node in graph.node if node.op_type == "MatMul"]
    quantize_dynamic(
        workshop.plain,
        target,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=[name for name in products if any(head in name for head in heads)],
        per_channel=False,
        reduce_range=workshop.instruction_set.reduce_range,
        weight_type=QuantType.QInt8,
    )
    return {"quantization": "dynamic", "scales": "tensor"}


INT8_TENSOR = Quantization(quantize_per_tensor)


def load_single(folder: Path, file: str, threads: int) -> Callable[[Sequence[str]], list[int]]:
    """The shipped classifier, each text in a batch of its own."""
    from export.runtime import OnnxClassifier

    classifier = OnnxClassifier(folder, file, threads=threads, verify=False, allow_failed=True)
    return lambda texts: [int(classifier.logits([text]).argmax()) for text in texts]


SINGLE = Runtime(load_single, "ONNX Runtime, one text a batch", precisions=("fp32", "int8-tensor"))


class ReviewsRecipe(FinetuneRecipe):
    """Text classification under a name of its own; a real task has sections of its own."""

    task: Literal["reviews"] = "reviews"


# A task of one's own: a recipe here, a RunTask where the place says; `kotune.tasks.export` and
# `kotune.tasks.bench` take an export Task and a bench Task of the same name.
REVIEWS = Guest(ReviewsRecipe, "finetune.tasks.text.task:TextTask")
