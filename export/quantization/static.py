"""Static int8: activations' ranges are calibrated on training rows and written into the graph."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from export.graph.feeds import Feed, FeedReader
from export.graph.files import external_data_needed, store_as_one_file
from export.graph.quiet import quiet_libraries
from export.graph.reading import float_nodes, load_graph
from export.quantization.dynamic import InstructionSet, Quantization
from finetune.core.errors import ModelError

CALIBRATIONS = ("minmax", "entropy", "percentile")
BATCHES_AT_ONCE = 1  # histograms of several batches are stacked, which needs equal lengths


def quantize_static(
    source: Path,
    target: Path,
    feeds: Sequence[Feed],
    *,
    calibration: str,
    head_modules: tuple[str, ...],
    instruction_set: InstructionSet,
    keep_float: Sequence[str] = (),
) -> Quantization:
    """Write ``source`` with QDQ pairs around the encoder's products to ``target``.

    Products with constant weights only, per channel, their outputs left in float (a quantised
    output would round twice before the bias is added). ``keep_float`` names further products
    that stay as they are. Raises ModelError where nothing was quantised.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as ort_quantize_static

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    # it asks for a pre-processing that the export has done, and prints its progress
    with quiet_libraries(""), redirect_stdout(io.StringIO()):
        ort_quantize_static(
            source,
            target,
            FeedReader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=instruction_set.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*float_nodes(source, head_modules), *keep_float],
            calibrate_method=methods[calibration],
            use_external_data_format=external_data_needed(source),
            extra_options={
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
                "CalibStridedMinMax": BATCHES_AT_ONCE,
            },
        )
    store_as_one_file(target)
    return Quantization(instruction_set, *count_products(target))


def count_products(path: Path) -> tuple[int, int]:
    """(products with dequantised weights, products with float weights); raises ModelError."""
    graph = load_graph(path, weights=False).graph
    stored = {weights.name for weights in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    integer = left = 0
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        origin = made.get(node.input[1])
        if origin is not None and origin.op_type == "DequantizeLinear":
            integer += origin.input[0] in stored
        else:
            left += node.input[1] in stored
    if not integer:
        raise ModelError(f"{path.name} has no int8 product", received=f"{left} float products")
    return integer, left
