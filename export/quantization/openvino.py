"""OpenVINO's own files: fp32 and bf16 as they are, int8 calibrated by NNCF.

An extra: pip install "kotune[openvino]".
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from export.graph.feeds import Feed
from export.graph.quiet import quiet_libraries
from export.runtime.arithmetic import HINTS, RT_INFO
from export.runtime.openvino_session import openvino_core
from finetune.core.errors import ModelError

if TYPE_CHECKING:
    import openvino

PACKAGES = ("openvino", "nncf")
WEIGHT_BITS = 7  # of int8 weights: OverflowFix.ENABLE


def openvino_refusal(precision: str) -> str | None:
    """Why a precision (openvino-fp32 | -bf16 | -int8) cannot be made here; None where it can."""
    from finetune.core.provenance import cpu_has_bf16

    wanted = PACKAGES if precision == "openvino-int8" else PACKAGES[:1]
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        return f'{" and ".join(missing)} not installed: pip install "kotune[openvino]"'
    if precision == "openvino-bf16" and not (cpu_has_bf16() and _plugin_has_bf16()):
        return (
            "this CPU has no bf16 products (avx512_bf16, amx_bf16): OpenVINO would compute it in "
            "another precision, and what was checked would not be what runs elsewhere"
        )
    return None


def _plugin_has_bf16() -> bool:
    """Whether OpenVINO itself says so: ONEDNN_MAX_CPU_ISA may forbid what the processor has."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def convert_to_openvino(source: Path, target: Path, *, precision: str) -> int:
    """Write an ONNX file as IR (``target`` .xml and .bin); ``precision`` fp32 or bf16.

    bf16 weights are stored in fp16, as OpenVINO keeps half precision. Returns the products.
    """
    model = _read(source)
    _save(model, target, precision)
    return sum(node.get_type_name() == "MatMul" for node in model.get_ops())


def quantize_openvino(
    source: Path,
    target: Path,
    feeds: Sequence[Feed],
    *,
    head_modules: tuple[str, ...],
    keep_float: Sequence[str] = (),
    float_types: Sequence[str] = (),
) -> int:
    """Write an ONNX file as int8 IR to ``target``; how many weights are int8.

    NNCF's post-training quantisation with its transformer model type: mixed preset, SmoothQuant;
    weights of 7 bits, since OpenVINO sums products of 8 in 16 bits where there is no VNNI, and
    they overflow (NNCF, OverflowFix).
    The head, BERT's pooler, the products named in ``keep_float`` and operators of ``float_types``
    stay float.
    """
    import nncf

    float_modules = [*head_modules, r"\w+/pooler"]
    plain = _read(source)
    # it draws progress bars, and makes OpenVINOs of its own
    with quiet_libraries("nncf"), redirect_stdout(io.StringIO()), same_signal_stack():
        try:
            model = nncf.quantize(
                plain,
                nncf.Dataset(list(feeds)),
                preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(feeds),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    overflow_fix=nncf.OverflowFix.ENABLE
                ),
                ignored_scope=nncf.IgnoredScope(
                    names=list(keep_float),
                    types=list(float_types),
                    patterns=[f"^/{name}/.*" for name in float_modules],
                    validate=False,
                ),
            )
        except nncf.errors.InternalError as fault:  # a graph it cannot follow, as DeBERTa's
            raise ModelError(
                "NNCF cannot quantise this graph to openvino-int8",
                received=" ".join(str(fault).split())[:200],
                next_step="export.precisions without openvino-int8",
            ) from fault
    _save(model, target, "fp32")
    return sum(
        node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"
        for node in model.get_ops()
    )


class _SignalStack(ctypes.Structure):
    """``stack_t`` of sigaltstack(2)."""

    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def same_signal_stack() -> Iterator[None]:
    """The thread's stack for signals stays as it is, whatever is freed within.

    For OpenVINOs that are not ours to keep: ``openvino_core`` says what they leave behind.
    """
    if sys.platform != "linux":
        yield
        return
    before, system = _SignalStack(), ctypes.CDLL(None)
    system.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        gc.collect()
        system.sigaltstack(ctypes.byref(before), None)


def _read(source: Path) -> openvino.Model:
    return openvino_core().read_model(str(source))


def _save(model: openvino.Model, target: Path, precision: str) -> None:
    """Write the IR, in which the precision it is to be run in stands."""
    import openvino

    target.parent.mkdir(parents=True, exist_ok=True)
    model.set_rt_info(HINTS[precision], list(RT_INFO))
    openvino.save_model(model, str(target), compress_to_fp16=precision != "fp32")
