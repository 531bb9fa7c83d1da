"""What a worker measures, whatever the task: something that answers one input, or many."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.variants.added import GROUP, RUNTIMES
from finetune.core.plugins import blame

ONE_BATCH = 1 << 40  # tokens: more than there are
SPIN_S = 0.0005  # a sleep overshoots; the rest is waited out


@dataclass(frozen=True)
class Engine:
    """A loaded variant. ``answer`` one input, ``answer_many`` in batches of so many tokens.

    All runtimes batch alike: longest first, rows x longest within the tokens, padding counted;
    None is the runtime's own number for the device (``export/runtime/manifest.py``).

    Inputs are texts or paths of recordings, answers class ids or transcripts; both are on the
    host, so that tokenisation or decoding, copies and synchronisation are inside what is timed.
    ``answer_batch`` answers all inputs in one padded batch; None where ``answer_many`` does.
    ``count_tokens`` counts those of a text as the model gets it; None where there are none.
    """

    answer: Callable[[str], Any]
    answer_many: Callable[[Sequence[str], int | None], list[Any]]
    peak_vram_bytes: Callable[[], int | None] = lambda: None
    facts: dict[str, Any] = field(default_factory=dict)  # what was found on loading, for the report
    answer_batch: Callable[[Sequence[str]], list[Any]] | None = None
    count_tokens: Callable[[str], int] | None = None

    def in_one_batch(self, inputs: Sequence[str]) -> list[Any]:
        """Answers to all ``inputs``, computed together."""
        if self.answer_batch is not None:
            return self.answer_batch(inputs)
        return self.answer_many(inputs, ONE_BATCH)


def load_added(name: str, folder: Path, file: str, threads: int) -> Engine:
    """A plugin's runtime on a file of an artifact; it has to give a class id for each text."""
    with blame(GROUP, name):
        predict = RUNTIMES[name].load(folder, file, threads)

    def answer_many(texts: Sequence[str], batch_size: int | None) -> list[int]:
        found: list[int] = []
        size = batch_size or len(texts) or 1  # None: as many as the runtime likes
        with blame(GROUP, name):
            for start in range(0, len(texts), size):
                part = list(texts[start : start + size])
                answers = [int(one) for one in predict(part)]
                if len(answers) != len(part):
                    raise ValueError(f"{len(answers)} answers to {len(part)} texts")
                found += answers
        return found

    return Engine(lambda text: answer_many([text], 1)[0], answer_many)


def slow_down(engine: Engine, share: float) -> Engine:
    """The engine with every single call longer by a ``share`` of it.

    For the proof that the benchmark finds a known difference (``bench/comparing/proof.py``).
    """
    if not share:
        return engine

    def answer(given: str) -> Any:
        began = time.perf_counter()
        found = engine.answer(given)
        end = time.perf_counter() + share * (time.perf_counter() - began)
        rest = end - time.perf_counter() - SPIN_S
        if rest > 0:  # a sleep of nothing would hand the core to whoever waits for it
            time.sleep(rest)
        while time.perf_counter() < end:  # sleeping overshoots by more than the effect
            pass
        return found

    return dataclasses.replace(engine, answer=answer)
