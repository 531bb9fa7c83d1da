"""Which validation rows a ladder checks on, which training rows calibrate."""

from __future__ import annotations

import numpy as np
import pandas as pd

from finetune.core.errors import FolderError
from finetune.run_folder import Run, read_predictions, read_rows


def draw_validation(run: Run, count: int) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Rows, stored predictions, and the positions of ``count`` of them, seeded by the recipe.

    Raises FolderError where rows and predictions are not of the same training.
    """
    rows, predictions = read_rows(run, "validation"), read_predictions(run, "validation")
    if not len(rows) or not np.array_equal(rows["row"], predictions["row"]):
        raise FolderError(
            "the run's validation rows and stored predictions do not belong together",
            received=run.folder,
        )
    chosen = np.arange(len(rows))
    if count < len(rows):
        generator = np.random.default_rng(run.recipe.seed)
        chosen = generator.choice(len(rows), size=count, replace=False)
    return rows, predictions, chosen


def draw_calibration(rows: int, count: int, seed: int) -> list[int]:
    """Positions of ``count`` of so many training rows, ascending."""
    generator = np.random.default_rng(seed)
    return sorted(generator.choice(rows, size=min(count, rows), replace=False).tolist())
