"""Pretraining's parts: tokenizer, token-budget batches, masks, loss at masked positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.recipes.pretraining import ArchitectureSection
from finetune.tasks.pretraining.batches import Masker, TrainBatches, held_out_batches, plan_batches
from finetune.tasks.pretraining.model import build_roberta, masked_head, masked_loss
from finetune.tasks.pretraining.tokenizer import SPECIAL_TOKENS, train_tokenizer

SIZE = {"hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32, "max_positions": 34}


@pytest.fixture(scope="module")
def tokenizer(texts):
    return train_tokenizer(texts, vocabulary_size=200, min_frequency=1, max_length=32)


def test_tokenizer_has_klue_conventions(tokenizer):
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIAL_TOKENS)
    ids = (tokenizer.cls_token_id, tokenizer.pad_token_id, tokenizer.sep_token_id)
    assert ids == (0, 1, 2)
    assert tokenizer("영화", "배우").keys() == {"input_ids", "attention_mask"}


def test_tokenizer_is_cased_and_keeps_hangul_whole(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    for one in (tokenizer, again):
        text = "정말 재미 The Movie"
        assert one.decode(one(text)["input_ids"], skip_special_tokens=True) == text
        assert "[UNK]" in one.tokenize("the movie")  # lower-case letters of it were never seen
        assert one.model_max_length == 32


def test_batches_keep_the_budget_and_cover_each_row_once():
    generator = np.random.default_rng(1)
    lengths = generator.integers(3, 40, size=500)
    plans = [plan_batches(lengths, 256, np.random.default_rng(seed)) for seed in (1, 2)]
    for plan in plans:
        assert sorted(np.concatenate(plan).tolist()) == list(range(500))
        assert all(len(rows) * lengths[rows].max() <= 256 for rows in plan)
        padded = sum(len(rows) * lengths[rows].max() for rows in plan)
        assert padded < 1.05 * lengths.sum()
    assert len(plans[0]) == len(plans[1])
    assert any(set(a) != set(b) for a, b in zip(*plans, strict=True))


def test_epochs_differ_and_a_step_is_always_the_same(tokenizer, texts):
    rows = [np.asarray(ids) for ids in tokenizer(texts)["input_ids"]]
    batches = TrainBatches(rows, Masker(tokenizer, 0.15), tokens_per_batch=256, seed=3, epochs=2.0)
    assert len(batches) == 2 * batches.per_epoch
    late, early = batches[batches.per_epoch], batches[0]
    assert torch.equal(batches[batches.per_epoch]["input_ids"], late["input_ids"])
    assert late["input_ids"].shape != early["input_ids"].shape or not torch.equal(
        late["input_ids"], early["input_ids"]
    )
    assert batches.tokens_before(len(batches)) == 2 * sum(map(len, rows))


def test_special_tokens_are_never_masked_and_15_percent_of_the_rest_is(tokenizer, texts):
    rows = [np.asarray(ids) for ids in tokenizer([*texts, "쀍 영화"])["input_ids"]]
    batch = Masker(tokenizer, 0.15).mask_rows(rows, seed=5)
    asked = batch["labels"] != -100
    assert not torch.isin(batch["labels"][asked], torch.arange(5)).any()
    words = sum(int((row > 4).sum()) for row in rows)
    assert 0.10 < int(asked.sum()) / words < 0.20
    untouched = ~asked & (batch["attention_mask"] == 1)
    original = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, 1)
    assert torch.equal(batch["input_ids"][untouched], original[untouched])


def test_held_out_masks_are_fixed_by_the_seed(tokenizer, texts):
    rows = [np.asarray(ids) for ids in tokenizer(texts[:40])["input_ids"]]
    one, same, other = (
        held_out_batches(rows, Masker(tokenizer, 0.15), tokens_per_batch=256, seed=seed)
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(one, same, strict=True))
    assert any(
        a["input_ids"].shape != b["input_ids"].shape or (a["input_ids"] != b["input_ids"]).any()
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("kind", ["roberta", "bert", "electra", "distilbert"])
def test_masked_positions_only_give_the_loss_of_the_whole_head(kind, tokenizer, texts):
    from transformers import AutoConfig, AutoModelForMaskedLM

    torch.manual_seed(0)
    names = {"vocab_size": len(tokenizer), "pad_token_id": 1, "max_position_embeddings": 64}
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind == "distilbert":
        small = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
    config = AutoConfig.for_model(kind, **names, **small)
    model = AutoModelForMaskedLM.from_config(config).eval()
    rows = [np.asarray(ids) for ids in tokenizer(texts[:20])["input_ids"]]
    batch = Masker(tokenizer, 0.3).mask_rows(rows, seed=1)
    assert (masked_head(model) is None) == (kind == "distilbert")
    assert torch.allclose(masked_loss(model, batch), model(**batch).loss, atol=1e-5)


def test_a_long_text_fits_the_positions(tokenizer):
    model = build_roberta(ArchitectureSection(**SIZE), tokenizer)
    longest = tokenizer("영화 " * 60, truncation=True, return_tensors="pt")
    assert longest["input_ids"].shape == (1, 32)
    assert model(**longest).logits.shape == (1, 32, len(tokenizer))
    assert model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight
