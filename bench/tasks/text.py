"""The reviews a benchmark measures on: the test rows that its runs have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.instruments.timing import choose_rows
from bench.settings import BenchSection
from finetune.core.errors import FolderError
from finetune.core.preparation import FOLDED
from finetune.run_folder import Run, logits_of, read_predictions, read_rows

if TYPE_CHECKING:
    import pandas as pd

    from bench.variants.text import Contender


@dataclass(frozen=True)
class TestRows:
    """``latency`` and ``throughput`` are positions in ``texts``; ``positions`` those of the
    chosen rows in the runs' test split."""

    texts: list[str]
    truth: list[int]
    seen_in_training: list[int]
    positions: np.ndarray
    latency: np.ndarray
    throughput: np.ndarray
    accuracy: bool

    __test__ = False  # pytest takes the name for one of its own

    def texts_at(self, positions: np.ndarray) -> list[str]:
        """The texts at positions in ``texts``."""
        return [self.texts[position] for position in positions]


def choose_test_rows(contenders: Sequence[Contender], settings: BenchSection) -> TestRows:
    """Draw the rows with ``settings.seed``; FolderError where the runs were tested on others.

    Where a base model has random weights, accuracy is claimed only if ``settings`` asks for it.
    """
    runs = [one.run for one in contenders if one.run is not None]
    if not runs:
        raise FolderError(
            "no test rows: none of these folders is a run, nor are the artifacts' runs found",
            received=", ".join(str(one.folder) for one in contenders),
            next_step="give the run folder as well",
        )
    frame = _common_rows(runs)
    positions = choose_rows(len(frame), settings.test_rows, settings.seed)
    frame = frame.iloc[positions]
    texts = frame["text"].tolist()
    random_weights = any(run.base.get("random_weights") for run in runs)
    return TestRows(
        texts=texts,
        truth=frame["label"].astype(int).tolist(),
        seen_in_training=frame["seen_in_training"].astype(int).tolist(),
        positions=positions,
        latency=choose_rows(len(texts), settings.latency_rows, settings.seed + 1),
        throughput=choose_rows(len(texts), settings.throughput_rows, settings.seed + 2),
        accuracy=not random_weights if settings.accuracy is None else settings.accuracy,
    )


def stored_predictions(run: Run, positions: np.ndarray) -> list[int] | None:
    """Class ids the run itself predicted in fp32 for these test rows; None where it did not."""
    if run.info.get("evaluation_precision") != "fp32":
        return None
    logits = logits_of(read_predictions(run, "test"))
    return logits[positions].argmax(axis=1).tolist()


def data_facts(contenders: Sequence[Contender], rows: TestRows) -> dict[str, Any]:
    """What the report says of the data, from the first run."""
    from finetune.run_folder import read_document

    run = next(one.run for one in contenders if one.run is not None)
    summary = read_document(run, "data.json")
    splits = {name: part["rows"] for name, part in summary["splits"].items()}
    described = summary["origin"]
    if len(rows.texts) < splits["test"]:
        described += f"; {len(rows.texts):,} of {splits['test']:,} test rows, drawn at random"
    return {
        "description": described,
        "fingerprint": run.info["data_fingerprint"],
        "train_rows": splits["train"],
        "validation_rows": splits["validation"],
        "test_rows": len(rows.texts),
        "latency_rows": len(rows.latency),
        "summary": summary,
    }


def _common_rows(runs: Sequence[Run]) -> pd.DataFrame:
    """The test split of the first run, checked to be that of every other."""
    first = read_rows(runs[0], "test")
    for run in runs[1:]:
        rows = read_rows(run, "test")
        same = len(rows) == len(first) and all(
            (rows[name].to_numpy() == first[name].to_numpy()).all() for name in ("row", "label")
        )
        # folded: runs of before preparations were kept with the run hold their texts so
        same = same and list(map(FOLDED, rows["text"])) == list(map(FOLDED, first["text"]))
        if not same or run.labels != runs[0].labels:
            raise FolderError(
                "the runs were tested on different rows",
                received=f"{runs[0].folder}: {len(first)} rows; {run.folder}: {len(rows)} rows",
                next_step="train them on the same data; for several seeds, data.seed=42 in all",
            )
    return first
