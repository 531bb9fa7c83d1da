"""Texts of an exact length, batches of them, and the figure made of their times."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_factory import make_results

from bench.instruments.scenarios import (
    CALLS_AT_LEAST,
    batch_of_length,
    text_of_length,
    time_batch,
)
from bench.report.pictures.lengths import draw_lengths, grid_medians
from bench.report.summary import summarise
from bench.results.records import Results
from bench.statistics.latency import cell_median_ms
from export.runtime.classifier import OnnxClassifier

WORDS = st.lists(st.text("가나다라마", min_size=1, max_size=9), min_size=1, max_size=40)


def count(text: str, limit: int = 64) -> int:
    """Two special tokens, one token per two letters of a word begun; truncated as models do."""
    return min(limit, 2 + sum((len(word) + 1) // 2 for word in text.split()))


@given(WORDS, st.integers(3, 60))
def test_a_text_has_exactly_so_many_tokens(words: list[str], tokens: int) -> None:
    text = text_of_length(count, words, tokens)
    assert text is not None
    assert count(text) == tokens


@given(WORDS, st.integers(65, 200))
def test_beyond_the_models_length_there_is_none(words: list[str], tokens: int) -> None:
    assert text_of_length(count, words, tokens) is None


def test_a_batch_is_of_different_texts_of_one_length() -> None:
    texts = ["가나 다라마 바사", "아자차카 타파하 가나다라마바", "영화 정말 최고"]
    batch = batch_of_length(count, texts, 4, 8)
    assert [count(text) for text in batch] == [8] * 4
    assert len(set(batch)) > 1
    assert batch_of_length(count, texts, 4, 65) is None


def test_a_real_tokenizer_is_met_exactly(make_artifact) -> None:
    classifier = OnnxClassifier(make_artifact("lora", "roberta"), "fp32", threads=1)

    def tokens(text: str) -> int:
        return len(classifier.encode([text])[0])

    for length in (8, 16, 32):
        batch = batch_of_length(
            tokens, ["정말 재미있다 최고", "영화 배우 지루하다 실망"], 3, length
        )
        assert [tokens(text) for text in batch] == [length] * 3
    assert batch_of_length(tokens, ["정말 재미있다 최고"], 1, 33) is None  # its max_length is 32


def test_a_cell_takes_a_few_calls_at_least_and_ends_in_time() -> None:
    assert len(time_batch(lambda batch: time.sleep(0.3), ["a"])) == CALLS_AT_LEAST
    assert len(time_batch(lambda batch: None, ["a"])) == 20


def test_cells_are_medians_over_processes() -> None:
    assert cell_median_ms([[1, 2, 30], [4, 4, 4], [9, 9, 9]]) == 4


def test_the_figure_has_a_line_per_variant_and_batch() -> None:
    content = make_results(rows=50, variants=3, failed=False, scenarios=True)
    summary = summarise(Results.model_validate(content))
    cells = grid_medians(summary)
    assert set(cells) == {"full-pytorch-fp32", "full-pipeline-fp32", "lora-pytorch-fp32"}
    lengths = [length for length, _ in cells["full-pytorch-fp32"][8]]
    assert lengths == [16, 32, 64, 128]
    first = content["variants"][0]["grid"][0]
    alone = cells["full-pytorch-fp32"][1][0][1]
    assert alone == pytest.approx(first["samples_ms"][0] / first["batch"])
    for width in (1200, 358):
        plot = draw_lengths(summary, width)
        assert plot.body.count('class="curve"') == 9
    without = summarise(Results.model_validate(make_results(rows=50, variants=2)))
    assert draw_lengths(without, 1200) is None
