"""What a GPU adds to the variants: half precisions, TF32, torch.compile, NF4 computed in half.

Of ONNX Runtime the files are measured that the artifact ships, float16 among them: one converted
here would keep other operators in fp32 than the one that was checked.
"""

from __future__ import annotations

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
    unmerged = [("pytorch", f"nf4-{half}") for half in HALVES if METHODS[method].quantised]
    return [*unmerged, *((runtime, half) for half in HALVES)]
