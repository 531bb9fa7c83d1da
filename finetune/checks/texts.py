"""What a tokenizer makes of the texts: unknown tokens, cut texts, empty ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finetune.checks.signs import Sign
from finetune.core.errors import DataError

SAMPLE = 10_000  # texts of a split that are looked at
TOLD_UNKNOWN = 0.02  # shares from which a sign is given
TOLD_TRUNCATED = 0.1


@dataclass(frozen=True)
class TextCounts:
    """Counts over the texts that were looked at; special tokens are none of ``tokens``."""

    texts: int
    tokens: int
    unknown_tokens: int
    truncated_texts: int
    empty_texts: int

    @property
    def unknown_share(self) -> float:
        """Unknown tokens over all tokens, 0 to 1."""
        return self.unknown_tokens / max(self.tokens, 1)

    @property
    def truncated_share(self) -> float:
        """Texts that were cut over all texts."""
        return self.truncated_texts / max(self.texts, 1)

    def as_dict(self) -> dict[str, int]:
        """JSON-ready, for data.json."""
        return asdict(self)


def sample_texts(texts: Sequence[str], size: int = SAMPLE) -> list[str]:
    """At most ``size`` texts, evenly over all of them."""
    step = -(-len(texts) // size) if texts else 1
    return list(texts[::step])


def count_texts(encoded: Any, unknown_id: int | None, max_length: int) -> TextCounts:
    """Counts of transformers' encoding of texts cut at ``max_length``, special tokens marked."""
    tokens = unknown = truncated = empty = 0
    for row, (ids, special) in enumerate(
        zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    ):
        own = [one for one, mark in zip(ids, special, strict=True) if not mark]
        tokens += len(own)
        unknown += sum(one == unknown_id for one in own)
        empty += not own
        truncated += (
            bool(encoded.encodings[row].overflowing)
            if encoded.encodings is not None
            else len(ids) >= max_length
        )
    return TextCounts(len(encoded["input_ids"]), tokens, unknown, truncated, empty)


def text_signs(
    counts: Mapping[str, TextCounts], *, max_length: int, max_unknown_tokens: float
) -> list[Sign]:
    """Signs of each split (``train``, ``validation``, ``test``).

    Raises DataError where more than ``max_unknown_tokens`` of the training tokens are unknown, or
    no text has a token.
    """
    told = counts["train"]
    if told.unknown_share > max_unknown_tokens:
        raise DataError(
            f"the tokenizer does not know the texts: {told.unknown_share:.1%} of their tokens are "
            "unknown",
            received=f"{told.unknown_tokens:,} of {told.tokens:,} tokens of the training texts",
            allowed=f"up to {max_unknown_tokens:.0%}, data.max_unknown_tokens",
            next_step="a base model of this language; or its do_lower_case and strip_accents in "
            "tokenizer_config.json, which take Korean syllables apart",
        )
    if told.tokens == 0:
        raise DataError("no training text has a token", received=f"{told.texts:,} texts")
    signs = []
    for split, one in counts.items():
        if one.unknown_share >= TOLD_UNKNOWN:
            signs.append(
                Sign(
                    "unknown-tokens",
                    f"{one.unknown_share:.1%} of {split}'s tokens are unknown to the tokenizer",
                    {"split": split, "share": one.unknown_share},
                )
            )
        if one.truncated_share >= TOLD_TRUNCATED:
            signs.append(
                Sign(
                    "truncated-texts",
                    f"{one.truncated_share:.1%} of the texts of {split} are cut at "
                    f"model.max_length={max_length}",
                    {"split": split, "share": one.truncated_share},
                )
            )
        if one.empty_texts:
            signs.append(
                Sign(
                    "empty-texts",
                    f"{one.empty_texts:,} texts of {split} have no token beside the special ones",
                    {"split": split, "texts": one.empty_texts},
                )
            )
    return signs


def report_texts(counts: Mapping[str, TextCounts], report: Callable[[str], None]) -> None:
    """One line: shares of unknown tokens and of cut texts, split by split."""
    parts = [
        f"{split} {one.unknown_share:.2%} unknown, {one.truncated_share:.2%} cut"
        for split, one in counts.items()
    ]
    report(f"  tokens: {'; '.join(parts)}")
