"""Torch-free inference on an artifact folder: numpy, onnxruntime, tokenizers, nothing else.

    classifier = OnnxClassifier("artifacts/nsmc-lora")
    classifier("영화 정말 재미있어요")  # [{"label": "긍정", "score": 0.98}]
    classifier(["최고", "최악"])        # a list for a list
    classifier(open("reviews.txt"))     # an iterator for an iterator, in bounded memory

The same code stands inside every artifact as one file, ``predict.py``
(``export/runtime/bundle.py``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from export.runtime.arithmetic import executed_arithmetic
from export.runtime.manifest import BATCH_TOKENS, TextError, verify_opened
from export.runtime.processor import available_cores
from export.runtime.session import choose_model, open_again, open_session, warn_of_instructions
from export.runtime.texts import open_encoder, several_texts

TASK = "text-classification"
WINDOW_TEXTS = 4096  # texts tokenised and sorted at once: memory does not grow with the input
WINDOW_CHARACTERS = 4_000_000  # nor with the length of a text, beyond that of one


class OnnxClassifier:
    """A text classifier read from an artifact folder.

    ``precision`` is a key of the manifest's files ("int8", "fp32"); None takes the fastest one
    there is. ``threads`` defaults to the physical cores this process may use. ``verify`` hashes
    every file of the folder; "read" only those that are read here; False none. In fp32 a row's
    answer does not depend on its batch; in dynamic int8 it does, slightly (onnxruntime#8625).
    Raises ArtifactError, never falls back to another provider; TextError for what is no text.

    Any number of threads may call one classifier at a time; an iterator it gave belongs to one
    of them. A process forked from this one opens the file again at its first call (not with
    CUDA); pickled, as ``spawn`` does, it opens the folder again.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        precision: str | None = None,
        *,
        threads: int | None = None,
        provider: str = "cpu",
        verify: bool | str = True,
        allow_failed: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.manifest, self.precision = choose_model(
            self.folder, TASK, precision, provider, allow_failed=allow_failed
        )
        self.provider = provider
        self.labels: list[str] = list(self.manifest.labels)
        self.threads = threads or available_cores()
        self._options = {
            "precision": self.precision,
            "threads": threads,
            "provider": provider,
            "verify": verify,
            "allow_failed": allow_failed,
        }
        entry = self.manifest.files[self.precision]
        verify_opened(self.folder, self.manifest, self.precision, verify, ("tokenizer.json",))
        warn_of_instructions(entry)
        self._pad_id = self.manifest.pad_token_id
        self.encode = open_encoder(self.folder, self.manifest)
        self._session = open_session(self.folder / entry.path, provider, self.threads, entry)
        self.executed = executed_arithmetic(self._session, entry, provider)
        self._segments = "token_type_ids" in {node.name for node in self._session.get_inputs()}
        self._run = self._run_on_cpu if provider == "cpu" else self._run_bound

    def __reduce__(self) -> tuple[Any, ...]:
        return open_again, (type(self), self.folder.absolute(), self._options, self.manifest)

    def __call__(self, texts: str | Iterable[str]) -> list[dict[str, Any]] | Iterator[dict]:
        """A list for one text, as transformers' pipeline gives, or for a sequence of them;
        an iterator for any other iterable."""
        if isinstance(texts, str):
            return self.predict([texts])
        several_texts(texts)  # at once, not when an iterator is first asked
        return self.predict(texts) if hasattr(texts, "__len__") else self.stream(texts)

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The best label of each text and its probability, in input order."""
        return list(self._answers(self.logits(texts)))

    def stream(self, texts: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The same for any number of texts, a window of them in memory at a time."""
        for logits in self.stream_logits(texts):
            yield from self._answers(logits)

    def logits(self, texts: Sequence[str], *, batch_tokens: int | None = None) -> np.ndarray:
        """Logits (n, labels) float32 in input order; ``batch_tokens`` bounds a padded batch."""
        given = several_texts(texts)
        if len(texts) == 1:
            return self._run(*self._pad(self.encode(list(given))))
        windows = list(self.stream_logits(texts, batch_tokens=batch_tokens))
        return np.concatenate(windows) if windows else np.empty((0, len(self.labels)), np.float32)

    def answer_rows(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Logits (1, labels) of each text, run alone."""
        return [self.logits([text]) for text in texts]

    def stream_logits(
        self, texts: Iterable[str], *, batch_tokens: int | None = None
    ) -> Iterator[np.ndarray]:
        """Logits (rows, labels) float32 of one window after the other, in input order."""
        batch_tokens = batch_tokens or BATCH_TOKENS[self.provider]
        for window in take_windows(texts, WINDOW_TEXTS, WINDOW_CHARACTERS):
            ids = self.encode(window)
            result = np.empty((len(window), len(self.labels)), dtype=np.float32)
            for rows in plan_batches([len(one) for one in ids], batch_tokens):
                result[rows] = self._run(*self._pad([ids[row] for row in rows]))
            yield result

    def _answers(self, logits: np.ndarray) -> Iterator[dict[str, Any]]:
        scores = softmax(logits)
        best = scores.argmax(axis=1).tolist()
        for index, score in zip(best, scores.max(axis=1).tolist(), strict=True):
            yield {"label": self.labels[index], "score": score}

    def _pad(self, rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask (rows, longest) int64, padded on the right."""
        if len(rows) == 1:
            ids = np.array(rows, dtype=np.int64)
            return ids, np.ones_like(ids)
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        filled = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(filled.shape, self._pad_id, dtype=np.int64)
        ids[filled] = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=lengths.sum())
        return ids, filled.astype(np.int64)

    def _feed(self, ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        feed = {"input_ids": ids, "attention_mask": mask}
        if self._segments:  # BERT graphs want them; one segment is all zeros
            feed["token_type_ids"] = np.zeros_like(ids)
        return feed

    def _run_on_cpu(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self._session.run(("logits",), self._feed(ids, mask))[0]

    def _run_bound(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """One batch with inputs and logits bound to the device: one copy each way."""
        binding = self._session.io_binding()
        for name, values in self._feed(ids, mask).items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(values, self.provider, 0)
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("logits", self.provider)
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return binding.copy_outputs_to_cpu()[0].astype(np.float32, copy=False)


def take_windows(texts: Iterable[str], count: int, characters: int) -> Iterator[list[str]]:
    """Consecutive lists of at most ``count`` texts that end once they hold ``characters``.

    Raises TextError at the first that is no string, after the texts before it were given.
    """
    source, fault = several_texts(texts), None
    while fault is None:
        window, held = [], 0
        try:
            for text in islice(source, count):
                window.append(text)
                held += len(text)
                if held >= characters:
                    break
        except TextError as found:
            fault = found
        if window:
            yield window
        elif fault is None:
            return
    raise fault


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[np.ndarray]:
    """Row numbers of each batch: longest rows first, rows x longest within ``batch_tokens``.

    Longest first, so that the memory arena reaches its size once and is then reused.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // max(1, lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
