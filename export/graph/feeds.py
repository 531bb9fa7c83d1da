"""Texts as the graph's inputs, with the batch and the padding that a measurement asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

Feed = dict[str, np.ndarray]
CALIBRATION_BATCH = 8


def make_feed(
    rows: Sequence[Sequence[int]], inputs: Sequence[str], pad_id: int, width: int | None = None
) -> Feed:
    """int64 (rows, longest), padded on the right, at least ``width`` wide; one segment."""
    longest = max(max(map(len, rows)), width or 0)
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: feed[name] for name in inputs}


def unpadded_feeds(
    rows: Sequence[Sequence[int]], inputs: Sequence[str], size: int = CALIBRATION_BATCH
) -> list[Feed]:
    """Batches of rows of one length: what padding does to activations must not be calibrated."""
    return [make_feed(batch, inputs, pad_id=0) for batch in _equal_batches(rows, size)]


def _equal_batches(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[Sequence[int]]]:
    for _, same in groupby(sorted(rows, key=len), key=len):
        batch = list(same)
        yield from (batch[start : start + size] for start in range(0, len(batch), size))


class FeedReader:
    """Feeds as ONNX Runtime's calibration reads them (CalibrationDataReader)."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = feeds
        self._left = iter(feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def get_next(self) -> Feed | None:
        """The next feed, None at the end."""
        return next(self._left, None)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Begin at ``start_index`` and end before ``end_index``."""
        self._left = iter(self._feeds[start_index:end_index])
