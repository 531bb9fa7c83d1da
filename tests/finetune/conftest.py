"""A made-up corpus that pretraining tests learn in seconds."""

from __future__ import annotations

import numpy as np
import pytest

WORDS = [
    "영화",
    "배우",
    "연기",
    "정말",
    "최고",
    "별로",
    "다시",
    "보고",
    "싶다",
    "The",
    "Movie",
    "재미",
]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """300 short texts of a dozen words, the same every time."""
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, size=generator.integers(2, 9))) for _ in range(300)]
