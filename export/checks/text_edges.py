"""Made-up texts: what reviews and tickets seldom are, and users send all the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from itertools import cycle, islice

from export.checks.edges import Edge

BEYOND = 4  # times as long as the model reads
DECOMPOSED = "가각간 닭고기 café"  # what NFD takes apart, whatever the data's language
SCRIPTS = "Привет مرحبا नमस्ते สวัสดี 你好世界 こんにちは שלום Γειά"
EMOJI = "😀👍🏽👩\u200d👩\u200d👧\u200d👦 🇰🇷 ❤\ufe0f"
UNKNOWN = "\ue000\uf8ff \U000f0000 \U00013000 \u16a0\u16a2"  # private use, hieroglyph, runes
CONTROLS = "\u200b\ufeff\u202e\x07"  # nothing to see, the reading direction, a bell


def make_text_edges(
    texts: Sequence[str], max_length: int, count_tokens: Callable[[str], int]
) -> list[Edge]:
    """Made-up rows out of the data's own words and of what is in no data.

    ``count_tokens`` counts a text's tokens before it is cut at ``max_length``.
    """
    words = " ".join(texts[:64]).split() or ["a"]
    few = " ".join(words[:12])
    made = {
        "empty": "",
        "white space": " \t\u3000 ",
        "one character": words[0][0],
        "longest": _longest(words, max_length, count_tokens),
        "beyond max_length": " ".join(islice(cycle(words), BEYOND * max_length)),
        "line breaks": "\n".join(words[:4]) + "\r\n\n" + "\r".join(words[4:8]) + "\n",
        "NFD": unicodedata.normalize("NFD", f"{few} {DECOMPOSED}"),
        "unknown characters": f"{words[0]} {UNKNOWN}",
        "emoji": f"{few} {EMOJI}",
        "other scripts": SCRIPTS,
        "control characters": CONTROLS.join(words[:4]),
        "one word many times": " ".join([words[0]] * max_length),
        "punctuation": "?!.,;:…" * 8,
    }
    return [Edge(name, text) for name, text in made.items()]


def _longest(words: Sequence[str], max_length: int, count_tokens: Callable[[str], int]) -> str:
    """As many of the words as fit uncut; each is a token at least."""
    low, high = 0, max_length
    while low < high:
        middle = (low + high + 1) // 2
        fits = count_tokens(" ".join(islice(cycle(words), middle))) <= max_length
        low, high = (middle, high) if fits else (low, middle - 1)
    return " ".join(islice(cycle(words), low))
