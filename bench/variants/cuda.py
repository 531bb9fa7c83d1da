"""What a GPU adds to the variants: half precisions, TF32, torch.compile, ONNX in float16."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.recipes.methods import METHODS

HALVES = ("bf16", "fp16")


def cuda_choices(method: str) -> list[tuple[str, str]]:
    """(runtime, precision) of a run on a GPU, beside what a CPU measures as well.

    Full fine-tuning shows what each precision is worth; of the others, what one would deploy.
    """
    if method == "full":
        return [
            ("pytorch", "tf32"),
            *(("pytorch", half) for half in HALVES),
            ("compiled", "fp32"),
            ("compiled", "fp16"),
        ]
    runtime = "merged" if METHODS[method].has_adapter else "pytorch"
    return [(runtime, half) for half in HALVES]


def onnx_precisions(available: Sequence[str], device: str) -> list[str]:
    """The artifact's own, and float16, which is made of fp32 for a GPU where it is missing.

    int8 stays: it is measured on the CPU of the same machine.
    """
    found = list(available)
    if device == "cuda" and "fp16" not in found and "fp32" in found:
        found.insert(found.index("fp32") + 1, "fp16")
    return found
