"""Texts as token ids with an artifact's own tokenizer: prepared as in training, cut, not padded.

Shipped inside ``predict.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export.runtime.manifest import ArtifactError, TextError
from finetune.core.preparation import UNPREPARED, Preparation, checked, read_preparation


class TextEncoder:
    """The tokenizer of an artifact's folder, used as the manifest's ``preparation`` says.

    Artifacts of before there was that key read texts as they come, and cut them on the right,
    which is what they were checked with. Raises ArtifactError.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.preparation = manifest_preparation(folder, manifest)
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as fault:  # tokenizers raises plain Exception
            raise ArtifactError(f"{folder}/tokenizer.json cannot be read: {fault}") from fault
        self._nothing = [int(manifest["pad_token_id"])]
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = self.preparation.special_tokens == "split"
        self._tokenizer.enable_truncation(
            max_length=int(manifest["max_length"]),
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


def manifest_preparation(folder: Path, manifest: dict[str, Any]) -> Preparation:
    """How an artifact's texts are prepared; raises ArtifactError where this runtime cannot."""
    try:
        return read_preparation(manifest.get("preparation"), UNPREPARED)
    except ValueError as fault:
        raise ArtifactError(
            f"{folder}/manifest.json: {fault}; it was written by a newer kotune"
        ) from fault
