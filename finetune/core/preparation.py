"""The same text in training and in serving: what is done to a text before it becomes tokens.

One step, described by a few words that lie in run.json and manifest.json. Imports the standard
library only: it stands inside an artifact's ``predict.py`` too, and ``examples/browser/prepare.js``
does the same in a page.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

CHOICES = {
    "unicode": ("NFC", "NFKC", "none"),
    "casing": ("keep", "lower"),
    "whitespace": ("fold", "keep"),
    "truncation_side": ("right", "left"),
    "truncation_strategy": ("longest_first",),
    "segments": ("zeros",),
    "special_tokens": ("parsed", "split"),
}
SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Preparation:
    """How a text becomes what the tokenizer reads, and how the tokenizer cuts it.

    ``unicode``: the form it is normalised to; ``whitespace``: ``fold`` makes one space of every
    run of it and drops it at both ends; ``casing``: ``keep`` leaves it to the tokenizer;
    ``segments``: token_type_ids are zeros where the model has them; ``special_tokens`` spelt out
    in a text are ``parsed`` as such or ``split`` like any word. Surrogates without a partner
    become U+FFFD always: no tokenizer takes them. Raises ValueError for a value not in CHOICES.
    """

    unicode: str = "NFC"
    casing: str = "keep"
    whitespace: str = "fold"
    truncation_side: str = "right"
    truncation_strategy: str = "longest_first"
    segments: str = "zeros"
    special_tokens: str = "parsed"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                told = f"{name} {getattr(self, name)!r}; known: {', '.join(allowed)}"
                raise ValueError(f"unknown preparation of texts: {told}")

    def __call__(self, text: str) -> str:
        """The text as the tokenizer is to read it."""
        if not text.isascii():
            text = well_formed(text)
            if self.unicode != "none":
                text = unicodedata.normalize(self.unicode, text)
        if self.casing == "lower":
            text = text.lower()
        return " ".join(text.split()) if self.whitespace == "fold" else text

    def many(self, texts: Iterable[str]) -> list[str]:
        """Each text prepared; raises TypeError naming the first that is no string."""
        return [self(text) for text in checked(texts)]

    def as_dict(self) -> dict[str, str]:
        """What run.json and manifest.json hold."""
        return asdict(self)


DEFAULT = Preparation()
UNPREPARED = Preparation(unicode="none", whitespace="keep")  # artifacts of before there was this
FOLDED = Preparation(unicode="none")  # runs of before: white space was folded on reading


def read_preparation(told: Any, absent: Preparation) -> Preparation:
    """A preparation as a document holds it, ``absent`` where it holds none; raises ValueError."""
    if told is None:
        return absent
    if not isinstance(told, dict):
        raise ValueError(f"preparation of texts is {told!r}, not an object")
    unknown = sorted(set(told) - {field.name for field in fields(Preparation)})
    if unknown:
        raise ValueError(f"unknown preparation of texts: {', '.join(unknown)}")
    return Preparation(**told)


def well_formed(text: str) -> str:
    """The text with surrogate pairs joined and single surrogates replaced by U+FFFD."""
    if SURROGATES.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def checked(texts: Iterable[Any]) -> Iterator[str]:
    """The texts as they come; raises TypeError with the number of the first that is no string."""
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise TypeError(f"text {number} is no string but {type(text).__name__}: {text!r:.40}")
        yield text
