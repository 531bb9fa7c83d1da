"""Texts as token ids with an artifact's own tokenizer: prepared as in training, cut, not padded.

Shipped inside ``predict.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export.runtime.manifest import ArtifactError, Manifest, TextError
from finetune.core.preparation import UNPREPARED, Preparation, checked, read_preparation


class TextEncoder:
    """The tokenizer of an artifact's folder; texts are prepared, and cut at ``max_length`` tokens.

    Raises ArtifactError where the folder's tokenizer.json cannot be read.
    """

    def __init__(
        self, folder: Path, preparation: Preparation, *, max_length: int, pad_token_id: int
    ) -> None:
        self.preparation = preparation
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as fault:  # tokenizers raises plain Exception
            raise ArtifactError(f"{folder}/tokenizer.json cannot be read: {fault}") from fault
        self._nothing = [pad_token_id]
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = self.preparation.special_tokens == "split"
        self._tokenizer.enable_truncation(
            max_length=max_length,
            strategy=self.preparation.truncation_strategy,
            direction=self.preparation.truncation_side,
        )

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included; raises TypeError for no string.

        A text without a token, where the tokenizer adds none of its own, is one padding token.
        """
        prepared = self.preparation.many(texts)
        if len(prepared) == 1:
            return [self._tokenizer.encode(prepared[0]).ids or self._nothing]
        encoded = self._tokenizer.encode_batch_fast(prepared)
        return [encoding.ids or self._nothing for encoding in encoded]


def several_texts(texts: Iterable[Any]) -> Iterator[str]:
    """Each of many texts as it comes; raises TextError naming the first that is no string.

    One string is not many texts, though Python would give its characters; nor are bytes or a
    mapping, though they can be iterated.
    """
    if isinstance(texts, str | bytes | bytearray | Mapping) or not isinstance(texts, Iterable):
        told = f"{type(texts).__name__}: {texts!r:.40}"
        raise TextError(f"texts are a list or an iterator of strings, not {told}")
    return _checked_texts(texts)


def _checked_texts(texts: Iterable[Any]) -> Iterator[str]:
    try:
        yield from checked(texts)
    except TypeError as fault:
        raise TextError(str(fault)) from fault


def open_encoder(folder: Path, manifest: Manifest) -> TextEncoder:
    """The encoder as an artifact's manifest says; raises ArtifactError."""
    if manifest.max_length is None:
        raise ArtifactError(f"{folder}/manifest.json: max_length is null, allowed: a whole number")
    how = manifest_preparation(folder, manifest.preparation)
    size, padding = manifest.max_length, manifest.pad_token_id
    return TextEncoder(folder, how, max_length=size, pad_token_id=padding)


def manifest_preparation(folder: Path, told: Mapping[str, Any] | None) -> Preparation:
    """How an artifact's texts are prepared, as its manifest has it; raises ArtifactError.

    Artifacts of before there was that key read texts as they come, and cut them on the right,
    which is what they were checked with.
    """
    try:
        return read_preparation(told, UNPREPARED)
    except ValueError as fault:
        raise ArtifactError(
            f"{folder}/manifest.json: {fault}; it was written by a newer kotune"
        ) from fault
