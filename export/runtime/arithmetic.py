"""The arithmetic that a file is run in, pinned: no library may take a faster one by itself.

OpenVINO takes bf16 or f16 where a processor has it, for the float parts of an int8 file too; ONNX
Runtime takes TF32 on a GPU, may take bf16 on arm64, and sums int8 products in 16 bits that
saturate where an x86 processor has no VNNI. Shipped inside ``predict.py``, so it imports the
standard library only.
"""

from __future__ import annotations

from typing import Any

from export.runtime.manifest import FileEntry

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}  # OpenVINO's INFERENCE_PRECISION_HINT
PRECISIONS = {hint: precision for precision, hint in HINTS.items()}
RT_INFO = ("kotune", "inference_precision")  # where an OpenVINO file says its own


def openvino_options(threads: int, precision: str) -> dict[str, Any]:
    """What OpenVINO's CPU plugin would choose by the processor, chosen here."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # else activations of compressed weights become int8
    }


def onnx_options(entry: FileEntry) -> dict[str, str]:
    """Session options of ONNX Runtime for a file's ``entry`` in the manifest.

    8-bit weights ask for unsigned products, which cannot saturate; where there is VNNI that is
    ignored, and files of 7-bit weights have no need of the slower products.
    """
    wide = "reduce_range" in (entry.instruction_set or {}) and not seven_bits(entry)
    return {
        "mlas.enable_gemm_fastmath_arm64_bfloat16": "0",
        "session.x64quantprecision": "1" if wide else "0",
    }


def seven_bits(entry: FileEntry) -> bool:
    """Whether the int8 weights were limited to 7 bits, so that no sum of pairs overflows."""
    return bool((entry.instruction_set or {}).get("reduce_range"))


# Of ONNX Runtime's CUDA provider; the manifest's ``provider_options`` say so. Its own choices are
# TF32 for fp32, a search of all convolutions at every new length, and memory doubled at each growth
CUDA_OPTIONS = {
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}


def provider_options(provider: str) -> dict[str, str]:
    """Options of ONNX Runtime's execution provider: fp32 on a GPU is fp32, memory what is used."""
    return dict(CUDA_OPTIONS) if provider == "cuda" else {}


def executed_arithmetic(session: Any, entry: FileEntry, provider: str) -> str:
    """What the float parts of an opened file are computed in here: ``fp32``, ``bf16``, ``fp16``.

    ONNX Runtime has no fp16 products on a CPU: it converts them to fp32 and back.
    """
    stated = entry.arithmetic or "fp32"
    return getattr(session, "executed", "fp32" if provider == "cpu" else stated)


def arithmetic_warning(session: Any, entry: FileEntry, provider: str) -> str | None:
    """What to know where a file is not computed as it was checked; None where it is."""
    checked = entry.checked_in or getattr(session, "stated", None)
    executed = executed_arithmetic(session, entry, provider)
    if checked in (None, executed):
        return None
    return f"this file was checked in {checked}, this machine computes it in {executed}"
