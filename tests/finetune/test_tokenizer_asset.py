"""The embedded tokenizer: KLUE's conventions, and the random-weights sizes read text with it."""

from __future__ import annotations

from finetune.base import resolve_base
from finetune.models import load_base_tokenizer


def test_special_tokens_and_hangul() -> None:
    tokenizer = load_base_tokenizer(resolve_base("klue/roberta-large", random_weights=True))
    names = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
    assert [tokenizer.convert_tokens_to_ids(name) for name in names] == [0, 1, 2, 3, 4]
    assert len(tokenizer) == 8000
    text = "영화 정말 재미있어요 Good"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.unk_token_id not in ids
