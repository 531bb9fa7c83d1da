"""Greedy CTC over frames of audio: settings, chunks with strides, text. numpy only.

Imports nothing of kotune, so that it travels beside an exported model. CTC: Graves et al. 2006;
chunks with strides: huggingface.co/blog/asr-chunking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CHUNK_S = 30.0
STRIDE_S = 5.0
SPECIAL = {  # of Wav2Vec2CTCTokenizer, where tokenizer_config.json says nothing
    "pad_token": "<pad>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "word_delimiter_token": "|",
}
BATCH_S = 60.0  # padded seconds a batch: enough to fill the cores, little memory
Frames = Callable[[np.ndarray, np.ndarray | None], np.ndarray]  # values, mask → logits


@dataclass(frozen=True)
class SpeechSettings:
    """What inference must know of a wav2vec2 model.

    ``labels`` are the characters in the order of the logits. ``masked``: the model takes an
    attention mask, and a row of a padded batch gives what it gives alone. Without one (group
    norm: base-960h) padding would change the row, and only equal lengths share a batch.
    """

    rate_hz: int
    normalize: bool
    masked: bool
    labels: tuple[str, ...]
    blank_id: int
    silent_ids: frozenset[int]
    delimiter: str
    lower_case: bool
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    chunk_s: float = CHUNK_S
    stride_s: float = STRIDE_S

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return int(np.prod(self.strides))

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees; shorter audio is padded with silence to this length."""
        field, hop = 1, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            field, hop = field + (kernel - 1) * hop, hop * stride
        return field

    @property
    def frames_lost_at_the_end(self) -> int:
        """Frames that a piece of n hops has less than n: its last ones would need what follows."""
        hops = self.receptive_field // self.hop + 1
        return hops - self.frames_of(hops * self.hop)

    def frames_of(self, samples: int) -> int:
        """Frames that the convolutions make of so many samples."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples


@dataclass(frozen=True)
class Chunk:
    """A piece of a recording; frames ``first`` to ``last`` count (exclusive; None: to its end)."""

    samples: np.ndarray
    first: int
    last: int | None


def read_speech_settings(
    folder: Path, chunk_s: float = CHUNK_S, stride_s: float = STRIDE_S
) -> SpeechSettings:
    """Settings from what the folder says of its model, its features and its tokens.

    Raises OSError, ValueError or KeyError where a file is missing or does not say enough, or
    where the model has outputs that no token names.
    """
    config = _read(folder / "config.json")
    features = _read_features(folder)
    told = _read(folder / "tokenizer_config.json")
    special = _read_optional(folder, "special_tokens_map.json")
    special |= {name: value for name, value in told.items() if value is not None}
    vocabulary = _read_vocabulary(folder, special)
    named = max(vocabulary.values()) + 1
    outputs = int(config.get("vocab_size", named))
    labels = [""] * max(outputs, named)
    for token, index in vocabulary.items():
        labels[index] = token
    if outputs > named:
        raise ValueError(
            f"the model has {outputs} outputs, and its tokens name {named} of them "
            "(vocab.json, added_tokens.json, tokenizer_config.json)"
        )
    delimiter = _word(special, "word_delimiter_token")
    silent = {
        vocabulary[word] for word in _silent_words(special) - {delimiter} if word in vocabulary
    }
    return SpeechSettings(
        rate_hz=int(features["sampling_rate"]),
        normalize=bool(features["do_normalize"]),
        masked=config["feat_extract_norm"] == "layer",
        labels=tuple(labels[:outputs]),  # a tokenizer may add tokens that the head lacks
        blank_id=int(config["pad_token_id"]),
        silent_ids=frozenset(silent | {int(config["pad_token_id"])}),
        delimiter=delimiter,
        lower_case=bool(special.get("do_lower_case", False)),
        kernels=tuple(config["conv_kernel"]),
        strides=tuple(config["conv_stride"]),
        chunk_s=chunk_s,
        stride_s=stride_s,
    )


def normalize(samples: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance, as Wav2Vec2FeatureExtractor; silence stays silence."""
    centred = samples - samples.mean(dtype=np.float64).astype(np.float32)
    return centred / np.float32(np.sqrt(samples.var(dtype=np.float64) + 1e-7))


def decode_ids(ids: np.ndarray, settings: SpeechSettings) -> str:
    """Text of best labels a frame (frames,): repeats joined, blanks dropped."""
    ids = np.asarray(ids)
    kept = ids[np.flatnonzero(np.diff(ids, prepend=-1))]
    characters = [settings.labels[index] for index in kept if index not in settings.silent_ids]
    text = "".join(" " if one == settings.delimiter else one for one in characters)
    text = " ".join(text.split())
    return text.lower() if settings.lower_case else text


def cut_chunks(blocks: Iterable[np.ndarray], settings: SpeechSettings) -> Iterator[Chunk]:
    """Overlapping chunks of a stream, cut at frame borders; every frame counts in one of them.

    Holds one chunk and one block. A recording within ``chunk_s`` is a single chunk.
    """
    lost = settings.frames_lost_at_the_end
    stride = max(round(settings.stride_s * settings.rate_hz / settings.hop), lost)
    frames = max(round(settings.chunk_s * settings.rate_hz / settings.hop), 2 * stride + 1)
    length, step = frames * settings.hop, (frames - 2 * stride) * settings.hop
    buffer, first = np.zeros(0, dtype=np.float32), 0
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while len(buffer) > length:
            yield Chunk(buffer[:length], first, frames - stride)
            buffer, first = buffer[step:], stride
    if len(buffer):
        yield Chunk(buffer, first, None)


def stream_ids(
    blocks: Iterable[np.ndarray], settings: SpeechSettings, frames: Frames
) -> Iterator[np.ndarray]:
    """Best labels of the frames of one recording, chunk after chunk, ``frames`` the model."""
    for chunk in cut_chunks(blocks, settings):
        logits = run_batch([chunk.samples], settings, frames)[0]
        yield logits[chunk.first : chunk.last].argmax(axis=-1)


def run_batch(
    waves: Sequence[np.ndarray], settings: SpeechSettings, frames: Frames
) -> list[np.ndarray]:
    """Logits (frames, labels) of each wave of one batch, padding cut off again."""
    ready = [prepare_wave(wave, settings) for wave in waves]
    lengths = [len(wave) for wave in ready]
    values = np.zeros((len(ready), max(lengths)), dtype=np.float32)
    mask = np.zeros(values.shape, dtype=np.int64) if settings.masked else None
    for row, wave in enumerate(ready):
        values[row, : len(wave)] = wave
        if mask is not None:
            mask[row, : len(wave)] = 1
    logits = frames(values, mask)
    return [row[: settings.frames_of(length)] for row, length in zip(logits, lengths, strict=True)]


def run_many(
    waves: Sequence[np.ndarray],
    settings: SpeechSettings,
    frames: Frames,
    *,
    batch_s: float = BATCH_S,
) -> list[np.ndarray]:
    """Logits of many short recordings in input order, batched by length, longest first."""
    result: list[Any] = [None] * len(waves)
    for rows in plan_speech_batches(
        [len(wave) for wave in waves], int(batch_s * settings.rate_hz), padded=settings.masked
    ):
        logits = run_batch([waves[row] for row in rows], settings, frames)
        for row, one in zip(rows, logits, strict=True):
            result[row] = one
    return result


def plan_speech_batches(
    lengths: Sequence[int], batch_samples: int, *, padded: bool
) -> Iterator[list[int]]:
    """Rows of each batch, longest first, within ``batch_samples`` padded samples.

    ``padded=False`` puts equal lengths together only.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable").tolist()
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        end = start + max(1, batch_samples // longest)
        rows = order[start:end]
        if not padded:
            rows = [row for row in rows if lengths[row] == lengths[rows[0]]]
        yield rows
        start += len(rows)


def prepare_wave(wave: np.ndarray, settings: SpeechSettings) -> np.ndarray:
    """Samples (n,) float32 as the model takes them: long enough for a frame, normalised."""
    wave = np.asarray(wave, dtype=np.float32)
    missing = settings.receptive_field - len(wave)
    if missing > 0:
        wave = np.concatenate([wave, np.zeros(missing, dtype=np.float32)])
    return normalize(wave) if settings.normalize else wave


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_features(folder: Path) -> dict[str, Any]:
    """preprocessor_config.json, or what transformers 5 writes of it into the processor's file."""
    whole = _read_optional(folder, "processor_config.json").get("feature_extractor")
    alone = folder / "preprocessor_config.json"
    return whole if isinstance(whole, dict) and not alone.is_file() else _read(alone)


def _read_optional(folder: Path, name: str) -> dict[str, Any]:
    return _read(folder / name) if (folder / name).is_file() else {}


def _read_vocabulary(folder: Path, special: dict[str, Any]) -> dict[str, int]:
    """Token → id: vocab.json, and tokens added to it, which three generations of files hold."""
    known: dict[str, Any] = _read(folder / "vocab.json")
    if any(isinstance(value, dict) for value in known.values()):  # one vocabulary a language
        language = special.get("target_lang")
        if language not in known:
            languages = ", ".join(sorted(known)[:5])
            raise ValueError(f"vocab.json is of several languages ({languages} …), none is chosen")
        known = known[language]
    added = {
        entry["content"]: int(index)
        for index, entry in special.get("added_tokens_decoder", {}).items()
    }
    found = {**known, **_read_optional(folder, "added_tokens.json"), **added}
    if not found:
        raise ValueError("vocab.json names no token")
    return {token: int(index) for token, index in found.items()}


def _silent_words(special: dict[str, Any]) -> set[str]:
    """Tokens that are no text: those with a role of their own, and those that are marked so."""
    roles = {name for name in special if name.endswith("_token")} | set(SPECIAL)
    words = {_word(special, name) for name in roles if special.get(name) or name in SPECIAL}
    more = special.get("additional_special_tokens") or special.get("extra_special_tokens") or []
    more = more.values() if isinstance(more, dict) else more
    words |= {one["content"] if isinstance(one, dict) else one for one in more}
    marked = special.get("added_tokens_decoder", {}).values()
    return words | {entry["content"] for entry in marked if entry.get("special")}


def _word(special: dict[str, Any], name: str) -> str:
    """A special token, which tokenizer_config.json writes as a string or as an object."""
    value = special.get(name) or SPECIAL[name]
    return value["content"] if isinstance(value, dict) else value
