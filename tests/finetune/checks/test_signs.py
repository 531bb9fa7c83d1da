"""Signs that something is wrong: of the texts, of the answers, of the stored run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers.normalizers import BertNormalizer
from transformers import BertTokenizerFast

from finetune.checks.answers import answer_signs, seen_signs
from finetune.checks.stored import check_stored_run, compare_logits
from finetune.checks.texts import count_texts, text_signs
from finetune.core.errors import DataError, GateError
from finetune.data.summary import DataSummary
from finetune.metrics.classification import classification_metrics
from finetune.models.loading import load_tokenizer, load_trained
from finetune.run_folder import open_run
from finetune.training import finetune


def counted(tokenizer, texts: list[str], max_length: int = 32):
    encoded = tokenizer(
        texts, truncation=True, max_length=max_length, return_special_tokens_mask=True
    )
    return count_texts(encoded, tokenizer.unk_token_id, max_length)


@pytest.fixture
def wordpiece(make_base):
    return load_tokenizer(make_base("roberta"))


def test_tokens_are_counted(wordpiece) -> None:
    counts = counted(wordpiece, ["영화 배우", "♞ 영화", "", "영화 " * 40])
    assert (counts.texts, counts.unknown_tokens) == (4, 1)
    assert (counts.truncated_texts, counts.empty_texts) == (1, 1)
    assert counts.tokens == 2 + 2 + 0 + 32


def test_byte_level_tokens_are_never_unknown(make_base) -> None:
    assert counted(load_tokenizer(make_base("bytes")), ["♞ 𝄞 영화"]).unknown_tokens == 0


def test_a_tokenizer_that_takes_syllables_apart_is_refused(make_base, tmp_path: Path) -> None:
    """``do_lower_case`` strips accents by NFD, and no Hangul syllable is left in one piece."""
    tokenizer = load_tokenizer(make_base("roberta"))
    broken = BertTokenizerFast(tokenizer_object=tokenizer._tokenizer)
    broken._tokenizer.normalizer = BertNormalizer(lowercase=True, strip_accents=True)
    counts = {"train": counted(broken, ["영화 배우 연기", "정말 최고"])}
    with pytest.raises(DataError, match=r"100\.0% of their tokens are unknown"):
        text_signs(counts, max_length=32, max_unknown_tokens=0.3)
    signs = text_signs(counts, max_length=32, max_unknown_tokens=1.0)
    assert [one.code for one in signs] == ["unknown-tokens"]


def test_cut_and_empty_texts_are_signs(wordpiece) -> None:
    counts = {"train": counted(wordpiece, ["영화 " * 40, "영화"]), "test": counted(wordpiece, [""])}
    signs = text_signs(counts, max_length=32, max_unknown_tokens=0.3)
    assert [(one.code, one.figures["split"]) for one in signs] == [
        ("truncated-texts", "train"),
        ("empty-texts", "test"),
    ]


def metrics_of(labels: list[int], predicted: list[int], classes: int) -> dict:
    return classification_metrics(np.array(labels), np.eye(classes)[predicted]).as_dict()


@pytest.mark.parametrize(
    ("labels", "predicted", "codes"),
    [
        ([0, 1] * 50, [0, 1] * 50, []),
        ([0, 1] * 50, [1] * 100, ["one-class-answered", "no-better-than-majority"]),
        ([0, 1] * 50, [0, 1, 1, 0] * 25, ["no-better-than-majority"]),
        ([0] * 90 + [1] * 10, [0] * 88 + [1] * 12, []),
        ([0, 1] * 60 + [2] * 5, [0, 1] * 60 + [0] * 5, ["class-never-right"]),
    ],
)
def test_answers_that_say_nothing_are_signs(labels, predicted, codes: list[str]) -> None:
    figures = metrics_of(labels, predicted, 3)
    assert [one.code for one in answer_signs("test", figures, ["a", "b", "c"])] == codes


def test_rows_seen_in_training_are_counted_of_both_splits() -> None:
    summary = DataSummary(
        origin="a table",
        fingerprint="",
        splits={"validation": {"rows": 200}, "test": {"rows": 1000}},
        validation_rows_seen_in_training=20,
        test_rows_seen_in_training=9,
    )
    (sign,) = seen_signs(summary)
    assert sign.message.startswith("20 of 200 validation rows")


def test_another_model_than_the_measured_one_is_noticed() -> None:
    measured = np.array([[1.0, -2.0], [0.5, 0.25]])
    compare_logits(measured, measured + 1e-4)
    for other in (measured + 0.02, np.full_like(measured, np.nan)):
        with pytest.raises(GateError, match="not the model that was measured"):
            compare_logits(measured, other)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_is_what_was_measured_whatever_the_config_pads_with(
    make_base, make_run, tmp_path: Path, method: str
) -> None:
    """RoBERTa's positions begin behind config's pad_token_id; the tokenizer's own is another.

    A base's problem_type does not survive either.
    """
    folder = shutil.copytree(make_base("roberta"), tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    config |= {"pad_token_id": 1, "problem_type": "multi_label_classification"}
    (folder / "config.json").write_text(json.dumps(config))
    recipe = open_run(make_run("full", "roberta")).recipe
    recipe = type(recipe).model_validate(
        recipe.model_dump()
        | {
            "output": str(tmp_path / "run"),
            "model": {"source": str(folder), "max_length": 32},
            "adapter": {"method": method},
            "training": {"max_steps": 3, "device": "cpu", "precision": "fp32"},
        }
    )
    told: list[str] = []
    run = open_run(finetune(recipe, report=told.append))  # which reads it back itself
    assert load_trained(run).config.pad_token_id == 1
    stored = json.loads((run.folder / "model" / "config.json").read_text())
    assert stored["problem_type"] == run.info.problem_type == "single_label_classification"
    assert "parts" in {one.code for one in run.info.signs}
    assert any("warning: the tokenizer pads with id 0" in line for line in told)
    classes = json.loads((run.folder / "metrics.json").read_text())["test"]["all"]["classes"]
    assert [one["label"] for one in classes] == list(run.labels)
    assert json.loads((run.folder / "data.json").read_text())["tokens"]["train"]["texts"] > 100
    stored["pad_token_id"] = 0  # what was written here once
    (run.folder / "model" / "config.json").write_text(json.dumps(stored))
    if method == "full":
        with pytest.raises(GateError, match="not the model that was measured"):
            check_stored_run(run.folder, "cpu")
