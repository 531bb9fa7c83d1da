"""The embedded reviews: counts, balance, uniqueness, nothing near across the split."""

from __future__ import annotations

import pandas as pd
import pytest

from finetune.data.reviews import ASSETS, NSMC_FILES
from finetune.data.tables import read_table


@pytest.fixture(scope="module")
def sample() -> dict[str, pd.DataFrame]:
    names = zip(("train", "test"), NSMC_FILES, strict=True)
    return {
        split: read_table(ASSETS / "sample" / name, "document", "label").frame
        for split, name in names
    }


def letters(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


def trigrams(text: str) -> set[str]:
    bare = letters(text)
    return {bare[start : start + 3] for start in range(len(bare) - 2)}


def test_counts_and_balance(sample: dict[str, pd.DataFrame]) -> None:
    assert len(sample["train"]) >= 900 and len(sample["test"]) >= 300
    for rows in sample.values():
        assert set(rows["raw_label"]) == {"0", "1"}
        assert 0.49 <= (rows["raw_label"] == "1").mean() <= 0.51


def test_no_two_are_alike(sample: dict[str, pd.DataFrame]) -> None:
    texts = pd.concat(sample.values())["text"]
    assert texts.is_unique
    assert texts.map(letters).is_unique


def test_lengths_vary_like_real_ones(sample: dict[str, pd.DataFrame]) -> None:
    lengths = pd.concat(sample.values())["text"].str.len()
    assert lengths.min() <= 4 and lengths.max() >= 90 and lengths.max() <= 150
    assert 15 <= lengths.median() <= 45
    assert (lengths < 10).mean() > 0.03 and (lengths > 50).mean() > 0.05


def test_no_test_review_is_near_a_training_one(sample: dict[str, pd.DataFrame]) -> None:
    train = [(text, trigrams(text)) for text in sample["train"]["text"]]
    for text in sample["test"]["text"]:
        mine = trigrams(text)
        if len(mine) < 4:
            continue
        for other, theirs in train:
            common = len(mine & theirs)
            assert common <= 0.5 * len(mine | theirs), (text, other)
