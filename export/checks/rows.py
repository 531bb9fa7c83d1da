"""Which validation rows a ladder checks on, which training rows calibrate."""

from __future__ import annotations

import numpy as np
import pandas as pd

from finetune.core.errors import FolderError
from finetune.run_folder import Run, read_predictions, read_rows


def draw_validation(
    run: Run, count: int, at_most: int
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray, np.ndarray]:
    """Rows, stored predictions, positions of ``count`` of them, and of further ones.

    Both are seeded by the recipe; together they are ``at_most``. Raises FolderError where rows
    and predictions are not of the same training.
    """
    rows, predictions = read_rows(run, "validation"), read_predictions(run, "validation")
    if not len(rows) or not np.array_equal(rows["row"], predictions["row"]):
        raise FolderError(
            "the run's validation rows and stored predictions do not belong together",
            received=run.folder,
        )
    if count >= len(rows):
        return rows, predictions, np.arange(len(rows)), np.arange(0)
    generator = np.random.default_rng(run.recipe.seed)
    chosen = generator.choice(len(rows), size=count, replace=False)
    others = generator.permutation(np.setdiff1d(np.arange(len(rows)), chosen))
    return rows, predictions, chosen, others[: max(0, at_most - count)]


def draw_calibration(rows: int, count: int, seed: int) -> list[int]:
    """Positions of ``count`` of so many training rows, ascending."""
    generator = np.random.default_rng(seed)
    return sorted(generator.choice(rows, size=min(count, rows), replace=False).tolist())
