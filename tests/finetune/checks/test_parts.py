"""Parts that do not fit are told before training, all at once; parts that fit pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from architectures import write_architecture

from finetune.checks.before import compare_with_model, schedule_signs
from finetune.checks.parts import longest_input
from finetune.core.errors import ModelError, RecipeError
from finetune.models.loading import load_base_tokenizer, load_skeleton, load_tokenizer
from finetune.models.source import resolve_base
from finetune.recipes.text import FinetuneRecipe, TrainingSection

BARE = "the tokenizer adds no special tokens, such as [CLS] and [SEP]"  # the fixtures' WordPiece


@pytest.fixture
def compare(make_base) -> Callable[..., list[str]]:
    """A function: base folder, recipe sections → messages of the signs."""

    def run(folder: Path | None = None, max_length: int = 32, **sections) -> list[str]:
        model = {"source": str(folder or make_base("roberta")), "max_length": max_length}
        recipe = FinetuneRecipe.model_validate(
            {"model": model, "data": {"source": "sample"}, **sections}
        )
        base = resolve_base(recipe.model.source)
        signs = compare_with_model(recipe, base, load_base_tokenizer(base))
        assert all(one.code in ("parts", "not-exportable") for one in signs)
        return [one.message for one in signs if one.message != BARE]

    return run


@pytest.fixture
def copy(make_base, tmp_path: Path) -> Callable[..., Path]:
    """A function: kind, settings → a copy of a tiny base whose config.json says so."""

    def make(kind: str = "roberta", **config) -> Path:
        folder = shutil.copytree(make_base(kind), tmp_path / "base")
        settings = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(settings))
        return folder

    return make


def test_parts_that_fit_give_no_sign(compare) -> None:
    assert compare() == []


@pytest.mark.parametrize(("kind", "longest"), [("roberta", 65), ("bert", 66), ("bytes", 64)])
def test_positions_limit_max_length(compare, make_base, kind: str, longest: int) -> None:
    """66 in the table; RoBERTa's begin behind its padding token's id, 0 or 1."""
    assert compare(make_base(kind), max_length=longest) == []
    with pytest.raises(ModelError, match=f"positions for {longest} tokens") as fault:
        compare(make_base(kind), max_length=longest + 1)
    assert fault.value.next_step == f"model.max_length={longest}"


@pytest.mark.parametrize(
    ("name", "longest"), [("deberta-v2", None), ("longformer", 65), ("distilbert", 512)]
)
def test_positions_of_other_architectures(make_base, tmp_path, name: str, longest) -> None:
    folder = write_architecture(name, tmp_path / name, make_base("roberta"))
    model = load_skeleton(resolve_base(str(folder)), ["a", "b"], None, None)
    assert longest_input(model) == longest


def test_every_fault_is_told_at_once(compare, copy) -> None:
    folder = copy()
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["좋아요좋아요", "싫어요싫어요"])  # the embeddings were not resized
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("pad_token")
    path.write_text(json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "special_tokens_map.json").write_text("{}")
    with pytest.raises(ModelError) as fault:
        compare(folder, max_length=100)
    told = str(fault.value)
    assert "3 faults" in told and "positions for 65" in told
    assert "no padding token" in told
    assert "2 tokens have none ('좋아요좋아요', '싫어요싫어요')" in told


def test_a_model_without_an_attention_mask_is_refused(compare, make_base, tmp_path) -> None:
    with pytest.raises(ModelError, match="fnet takes no attention mask"):
        compare(write_architecture("fnet", tmp_path / "fnet", make_base("roberta")))


def test_a_tokenizer_that_forgot_its_mask_gives_one(copy) -> None:
    folder = copy()
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"model_input_names": ["input_ids"]}
    path.write_text(json.dumps(settings))
    padded = load_tokenizer(folder)(["영화", "영화 배우 연기"], padding=True)
    assert [sum(mask) for mask in padded["attention_mask"]] == [1, 3]


@pytest.mark.parametrize(("name", "told"), [("funnel", "no ONNX export"), ("canine", "no fast")])
def test_what_cannot_be_exported_is_told_before_training(
    compare, make_base, tmp_path, name: str, told: str
) -> None:
    folder = write_architecture(name, tmp_path / name, make_base("roberta"))
    assert any(told in line for line in compare(folder, training={"precision": "fp32"}))
    with pytest.raises(RecipeError, match=told):
        compare(folder, export={"check_rows": 100})


def test_signs_of_parts_that_fit_badly(compare, copy) -> None:
    folder = copy(pad_token_id=1)
    tokenizer = load_tokenizer(folder)
    tokenizer.model_max_length = 16
    tokenizer.save_pretrained(folder)
    told = compare(folder, adapter={"rank": 100})
    assert len(told) == 3
    assert "more than the tokenizer's own model_max_length=16" in told[0]
    assert "pads with id 0, config.json says pad_token_id=1" in told[1]
    assert "adapter.rank=100 is more than the smaller side of the smallest matrix, 64" in told[2]


def test_targets_and_checkpointing_are_checked_before_anything_is_loaded(
    compare, make_base, tmp_path
) -> None:
    with pytest.raises(ModelError, match="names no linear layer"):
        compare(adapter={"target_modules": ["q_projection"]})
    folder = write_architecture("funnel", tmp_path / "funnel", make_base("roberta"))
    with pytest.raises(ModelError, match="supports no gradient checkpointing"):
        compare(folder, training={"gradient_checkpointing": True})


def test_a_warm_up_that_never_ends_is_told() -> None:
    endless = TrainingSection(warmup_steps=300, max_steps=20)
    (sign,) = schedule_signs(endless, 100)
    assert "300 steps and the training 20" in sign.message
    assert schedule_signs(TrainingSection(warmup_steps=300, epochs=50), 1000) == []
    assert schedule_signs(TrainingSection(), 10) == []
