"""What the answers of a finished classifier say of it: nothing learnt, a class never found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune.checks.signs import Sign
from finetune.data.summary import DataSummary

TOLD_SEEN = 0.01  # of a split's rows whose text also stands in training


def answer_signs(split: str, figures: Mapping[str, Any], labels: Sequence[str]) -> list[Sign]:
    """Signs in one split's metrics: rows, accuracy_interval and confusion (true, predicted).

    "No better than the majority" is said where the interval of the accuracy reaches down to the
    share of the most frequent class.
    """
    table = np.asarray(figures["confusion"])
    rows, support, answered = int(table.sum()), table.sum(axis=1), table.sum(axis=0)
    signs = []
    if np.count_nonzero(answered) == 1 and np.count_nonzero(support) > 1:
        label = labels[int(answered.argmax())]
        signs.append(
            Sign(
                "one-class-answered",
                f"the model answers {label} to every row of {split}",
                {"split": split, "label": label},
            )
        )
    majority = float(support.max() / rows)
    low = float(figures["accuracy_interval"][0])
    if low <= majority:
        signs.append(
            Sign(
                "no-better-than-majority",
                f"{split}: an accuracy of {figures['accuracy']:.2%} on {rows:,} rows (from "
                f"{low:.2%}) is no better than always answering "
                f"{labels[int(support.argmax())]} ({majority:.2%})",
                {"split": split, "accuracy": float(figures["accuracy"]), "majority": majority},
            )
        )
    never = [labels[one] for one in np.flatnonzero((support > 0) & (np.diagonal(table) == 0))]
    if never and len(signs) == 0:
        signs.append(
            Sign(
                "class-never-right",
                f"no row of {', '.join(never)} is found in {split}",
                {"split": split, "classes": ", ".join(never)},
            )
        )
    return signs


def seen_signs(summary: DataSummary) -> list[Sign]:
    """Signs of validation and test rows whose text the training has seen, from data.json."""
    signs = []
    for split in ("validation", "test"):
        seen, rows = summary.seen_in_training(split), summary.splits[split].rows
        if rows and seen >= TOLD_SEEN * rows:
            signs.append(
                Sign(
                    "seen-in-training",
                    f"{seen:,} of {rows:,} {split} rows have a text that also stands in training",
                    {"split": split, "rows": seen, "share": seen / rows},
                )
            )
    return signs
