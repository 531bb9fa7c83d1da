"""The export that Optimum makes, without Optimum: TorchScript's trace with eager attention.

Fused attention (``scaled_dot_product_attention``) has no operator that ONNX Runtime's patterns
find again (onnxruntime#23864), and the exporters of torch 2.9 and transformers 5 that go through
``torch.export`` write graphs in which they find nothing either.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.graph.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ROWS, TOKENS, SAMPLES = 2, 16, 16_000  # of the example that is traced; the axes are dynamic
AXES = {0: "batch_size", 1: "sequence_length"}
LOGITS = "logits"
SMALL_BYTES = 100  # what stays in the graph where weights lie beside it; Optimum's threshold


def text_example(model: PreTrainedModel, inputs: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Token ids (rows, tokens), the second row padded; any ids do, none is the padding's."""
    import torch

    shape, pad = (ROWS, TOKENS), model.config.pad_token_id
    ids = torch.arange(ROWS * TOKENS).reshape(shape) % (model.config.vocab_size - 1)
    ids[ids == pad] += 1
    mask = torch.ones(shape, dtype=torch.int64)
    mask[1, TOKENS // 2 :] = 0
    zeros = torch.zeros(shape, dtype=torch.int64)
    return {name: {"input_ids": ids, "attention_mask": mask}.get(name, zeros) for name in inputs}


def speech_example(*, masked: bool) -> dict[str, torch.Tensor]:
    """A second of noise (rows, samples), with a mask of ones where the graph takes one."""
    import torch

    noise = torch.rand(ROWS, SAMPLES, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.ones(ROWS, SAMPLES, dtype=torch.int64)
    return {"input_values": noise, "attention_mask": mask} if masked else {"input_values": noise}


def trace_onnx(
    model: PreTrainedModel, example: Mapping[str, torch.Tensor], path: Path, *, opset: int
) -> None:
    """Write ``model`` to ``path``: inputs named as the example's, in the order of ``forward``.

    Batch and length are dynamic. Weights beyond protobuf's 2 GB lie in ``<name>_data`` beside it.
    The model is left as it was.
    """
    import inspect

    import torch

    names = [name for name in inspect.signature(model.forward).parameters if name in example]
    outputs = {0: "batch_size"} if "input_ids" in example else AXES
    with (
        torch.no_grad(),
        quiet_libraries("transformers", "transformers.modeling_utils"),
        plainly_traced(model),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".trace.") as scratch,
    ):
        shape = tuple(model(**example)[LOGITS].shape)
        traced = Path(scratch) / path.name
        torch.onnx.export(
            model,
            (dict(example),),
            str(traced),
            input_names=names,
            output_names=[LOGITS],
            dynamic_axes={**dict.fromkeys(names, AXES), LOGITS: outputs},
            opset_version=opset,
            dynamo=False,
        )
        write_in_one(traced, path, shape, outputs)


@contextmanager
def plainly_traced(model: PreTrainedModel) -> Iterator[None]:
    """Eager attention, and a ``forward`` whose only answer is the logits; undone afterwards."""
    attention, training = model.config._attn_implementation, model.training
    forward = model.forward

    @functools.wraps(forward)
    def logits_only(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return {LOGITS: forward(*args, **kwargs)[LOGITS]}

    model.set_attn_implementation("eager")
    model.eval()
    model.forward = logits_only
    try:
        yield
    finally:
        del model.forward
        model.train(training)
        model.set_attn_implementation(attention)


def write_in_one(
    traced: Path, path: Path, shape: tuple[int, ...], dynamic: Mapping[int, str]
) -> None:
    """The traced graph as ``path``, all large weights in one file, fixed sizes of the output told.

    TorchScript gives every output axis a name of its own that it did not follow to the end.
    """
    import onnx
    from onnx.external_data_helper import uses_external_data

    model = onnx.load(str(traced))
    for axis, dimension in enumerate(model.graph.output[0].type.tensor_type.shape.dim):
        if axis not in dynamic:
            dimension.dim_value = shape[axis]
    light = onnx.load(str(traced), load_external_data=False)
    beside: dict[str, Any] = {}
    if any(uses_external_data(weights) for weights in light.graph.initializer):
        beside = {
            "save_as_external_data": True,
            "location": f"{path.name}_data",
            "size_threshold": SMALL_BYTES,
            "convert_attribute": True,
        }
        path.with_name(beside["location"]).unlink(missing_ok=True)  # onnx would append to it
    onnx.save_model(model, str(path), **beside)
