"""Whether a row's answer depends on its company: alone, in batches, padded.

Dynamic quantisation scales activations by the largest value of the whole batch, padding
included (onnxruntime#8625, #10111); static files answer alike however a row is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.graph.feeds import make_feed
from export.runtime.manifest import Manifest
from export.runtime.processor import available_cores
from export.runtime.texts import open_encoder
from finetune.metrics.word_errors import count_errors
from finetune.tasks.speech.ctc import SpeechSettings, decode_ids, run_batch, run_many

if TYPE_CHECKING:
    from export.runtime.transcriber import OnnxTranscriber

BATCHES = (8, 32)
WIDTHS = (64, 128)
ONE_BATCH_S = 1e6  # padded seconds: whatever the lengths, a batch is not split


@dataclass(frozen=True)
class Way:
    """How rows are run: in this order, so many at a time, padded to this width at least."""

    name: str
    order: Sequence[int]
    batch: int = 1
    width: int | None = None


@dataclass(frozen=True)
class Stability:
    """``unstable`` of so many (``of`` labels or words, ``what``) depend on a row's company.

    ``figures`` go into the manifest.
    """

    figures: dict[str, Any]
    unstable: int
    of: int
    what: str


def measure_stability(
    folder: Path,
    manifest: Manifest,
    precision: str,
    texts: Sequence[str],
    *,
    seed: int,
) -> Stability:
    """Labels and logits of ``texts`` run in several ways, against each row alone and unpadded.

    ``unstable_labels`` rows got another label in any
    way; ``ways`` holds flips and the largest logit difference of each.
    """
    from export.runtime.session import open_session

    entry = manifest.files[precision]
    session = open_session(folder / entry.path, "cpu", available_cores(), entry)
    inputs = [node.name for node in session.get_inputs()]
    rows = open_encoder(folder, manifest)(texts)
    ways = plan_ways([len(row) for row in rows], manifest.max_length, seed)
    answers = {
        way.name: _run(session, rows, inputs, manifest.pad_token_id, way)
        for way in [Way("alone", range(len(rows))), *ways]
    }
    alone = answers.pop("alone")
    labels = alone.argmax(axis=1)
    flips = {name: logits.argmax(axis=1) != labels for name, logits in answers.items()}
    unstable = int(np.any(list(flips.values()), axis=0).sum())
    figures = {
        "rows": len(rows),
        "unstable_labels": unstable,
        "largest_logit_difference": max(_largest(one, alone) for one in answers.values()),
        "ways": {
            name: {
                "flipped": int(flips[name].sum()),
                "largest_logit_difference": _largest(logits, alone),
            }
            for name, logits in answers.items()
        },
    }
    return Stability(figures, unstable, len(rows), "labels")


def measure_speech_stability(
    runtime: OnnxTranscriber, waves: Sequence[np.ndarray], *, seed: int
) -> Stability:
    """Transcripts and logits of recordings in batches, against each recording alone.

    ``unstable_words``: word errors of the worst way against the transcript alone, summed over
    recordings. Recordings share a batch as the runtime lets them: without a mask only equals in
    length do.
    """
    alone = [run_batch([wave], runtime.settings, runtime.frames)[0] for wave in waves]
    texts = [_decode(one, runtime.settings) for one in alone]
    errors, ways = [], {}
    for way in plan_ways([len(wave) for wave in waves], 0, seed):
        logits = _hear(runtime, waves, way)
        heard = [_decode(one, runtime.settings) for one in logits]
        errors.append(count_errors(texts, heard).word_errors)
        ways[way.name] = {
            "changed": sum(one != two for one, two in zip(heard, texts, strict=True)),
            "largest_logit_difference": max(map(_largest, logits, alone)),
        }
    unstable, words = int(np.max(errors, axis=0).sum()), sum(len(text.split()) for text in texts)
    figures = {
        "rows": len(waves),
        "words": words,
        "unstable_words": unstable,
        "largest_logit_difference": max(one["largest_logit_difference"] for one in ways.values()),
        "ways": ways,
    }
    return Stability(figures, unstable, words, "words")


def plan_ways(lengths: Sequence[int], max_length: int, seed: int) -> list[Way]:
    """Batches of 8 and 32, sorted by length and shuffled; single rows padded to 64 and 128.

    None are padded where ``max_length`` is 0.
    """
    ordered = np.argsort(lengths, kind="stable").tolist()
    shuffled = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    ways = []
    for batch in BATCHES:
        ways += [Way(f"batch-{batch}-sorted", ordered, batch)]
        ways += [Way(f"batch-{batch}-shuffled", shuffled, batch)]
    widths = sorted({min(width, max_length) for width in WIDTHS if max_length})
    return [*ways, *(Way(f"padded-{width}", ordered, 1, width) for width in widths)]


def _run(
    session: Any, rows: list[list[int]], inputs: list[str], pad_id: int, way: Way
) -> np.ndarray:
    result: np.ndarray | None = None
    for start in range(0, len(rows), way.batch):
        chosen = list(way.order[start : start + way.batch])
        feed = make_feed([rows[row] for row in chosen], inputs, pad_id, way.width)
        logits = session.run(["logits"], feed)[0]
        if result is None:
            result = np.empty((len(rows), logits.shape[1]), dtype=np.float32)
        result[chosen] = logits
    return result


def _hear(runtime: OnnxTranscriber, waves: Sequence[np.ndarray], way: Way) -> list[np.ndarray]:
    result: list[Any] = [None] * len(waves)
    for start in range(0, len(waves), way.batch):
        chosen = list(way.order[start : start + way.batch])
        batch = [waves[row] for row in chosen]
        logits = run_many(batch, runtime.settings, runtime.frames, batch_s=ONE_BATCH_S)
        for row, one in zip(chosen, logits, strict=True):
            result[row] = one
    return result


def _decode(logits: np.ndarray, settings: SpeechSettings) -> str:
    return decode_ids(logits.argmax(axis=-1), settings)


def _largest(logits: np.ndarray, alone: np.ndarray) -> float:
    return float(np.abs(logits - alone).max())
