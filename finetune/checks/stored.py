"""What was stored is what was measured: a run read back from its folder gives the same logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from finetune.core.errors import GateError
from finetune.loop.ledger import is_out_of_memory, shrink_to_memory
from finetune.models.loading import load_tokenizer, load_trained
from finetune.models.predicting import predict_logits
from finetune.run_folder import Run, logits_of, open_run, read_predictions, read_rows

ROWS = 32
LARGEST_DIFFERENCE = 1e-3  # of logits, times the largest of them where that is above 1


def check_stored_run(folder: Path, device: str) -> None:
    """Load a text run afresh and compare its validation logits; raises GateError.

    Where the whole model in fp32 is too much for the GPU it was trained on, the CPU answers.
    """
    run = open_run(folder, verify=False)
    texts = read_rows(run, "validation")["text"].tolist()
    longest = sorted(range(len(texts)), key=lambda row: -len(texts[row]))[: ROWS // 4]
    chosen = sorted({*range(min(ROWS, len(texts))), *longest})
    again = _read_back(run, [texts[row] for row in chosen], device)
    compare_logits(logits_of(read_predictions(run, "validation"))[chosen], again)


def _read_back(run: Run, texts: list[str], device: str) -> np.ndarray:
    """Logits of the run as it is stored."""
    tokenizer = load_tokenizer(run.folder / "model")
    try:
        model = load_trained(run, device=device)
        return shrink_to_memory(
            lambda rows: predict_logits(
                model,
                tokenizer,
                texts,
                preparation=run.preparation,
                max_length=run.max_length,
                batch_size=rows,
                device=device,
            ),
            ROWS,
        )
    except (RuntimeError, MemoryError) as fault:
        if device == "cpu" or not is_out_of_memory(fault):
            raise
    return _read_back(run, texts, "cpu")


def compare_logits(measured: np.ndarray, again: np.ndarray) -> None:
    """Raise GateError where two arrays of one shape differ by more than rounding."""
    limit = LARGEST_DIFFERENCE * max(1.0, float(np.abs(measured).max(initial=0.0)))
    difference = float(np.abs(measured - again).max(initial=0.0))
    if difference <= limit:
        return
    raise GateError(
        "the stored run is not the model that was measured: read back, its logits differ",
        received=f"a largest difference of {difference:.3g} on {len(measured)} validation rows",
        allowed=f"{limit:.3g}",
        next_step="nothing was published. Likely causes: config.json does not build the model "
        "that was trained, the tokenizer does not save what it does, weights that the method "
        "does not store, or a base that changed on disk meanwhile",
    )
