"""The embedded model: KLUE's conventions, its size, and that it was pretrained."""

from __future__ import annotations

import json

import pytest
import torch

from finetune.models.loading import load_base, load_base_tokenizer
from finetune.models.source import TINY, resolve_base
from finetune.tasks.pretraining.model import load_masked_model


@pytest.mark.parametrize(("source", "random"), [("tiny", False), ("klue/roberta-large", True)])
def test_special_tokens_and_hangul(source: str, random: bool) -> None:
    tokenizer = load_base_tokenizer(resolve_base(source, random_weights=random))
    names = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
    assert [tokenizer.convert_tokens_to_ids(name) for name in names] == [0, 1, 2, 3, 4]
    assert len(tokenizer) == 8000
    text = "영화 정말 재미있어요 Good"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.unk_token_id not in ids


def test_fits_in_a_package() -> None:
    assert sum(path.stat().st_size for path in TINY.iterdir()) <= 12 * 2**20
    weights = json.loads((TINY / "metrics.json").read_text("utf-8"))["parameters"]
    assert 3e6 <= weights <= 6e6
    provenance = json.loads((TINY / "provenance.json").read_text("utf-8"))
    assert provenance["git"]["dirty"] is False
    assert "ratings_test" not in (TINY / "recipe.yaml").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "word"),
    [("정말 재미있는 [MASK]였어요", "영화"), ("배우들의 [MASK]가 훌륭했다", "연기")],
)
def test_knows_reviews(text: str, word: str) -> None:
    base = resolve_base("tiny")
    tokenizer, model = load_base_tokenizer(base), load_masked_model(base).eval()
    inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    place = int((inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0])
    best = tokenizer.convert_ids_to_tokens(logits[place].topk(5).indices.tolist())
    assert word in best


def test_is_an_ordinary_model_folder() -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        TINY, num_labels=2, dtype=torch.float32, use_safetensors=True
    )
    assert all(torch.isfinite(weights).all() for weights in model.parameters())


def test_random_weights_are_drawn_in_float32() -> None:
    model = load_base(resolve_base("tiny", random_weights=True), ["부정", "긍정"])
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}
