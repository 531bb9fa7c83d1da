"""Tiny bases of other architectures than the fixtures' RoBERTa and BERT, with a tokenizer each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
RELATIVE = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {  # name → class prefix, settings
    "deberta": ("Deberta", SIZE | RELATIVE),
    "deberta-v2": (
        "DebertaV2",
        SIZE | RELATIVE | {"position_buckets": 16, "share_att_key": True},
    ),
    "longformer": ("Longformer", SIZE | {"attention_window": 16}),
    "funnel": (
        "FunnelBase",
        {"block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64},
    ),
    "fnet": ("FNet", SIZE),
    "distilbert": ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "canine": (
        "Canine",
        SIZE
        | {
            "max_position_embeddings": 512,
            "num_hash_functions": 2,
            "num_hash_buckets": 512,
            "local_transformer_stride": 16,
        },
    ),
}


@dataclass(frozen=True)
class Family:
    """An encoder family: class prefix, its config, the kind of its tokenizer, what is expected.

    ``fused``: attentions of two layers that ONNX Runtime's patterns find.
    """

    prefix: str
    settings: dict[str, Any]
    tokenizer: str
    fused: int = 2
    exported: bool = True
    vocabulary: int | None = None  # rows of the embedding where the tokenizer's are too few


ENDS = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
MODERN = SIZE | ENDS | {"local_attention": 8, "global_attn_every_n_layers": 2}
FAMILIES = {
    "bert": Family("Bert", SIZE, "wordpiece"),
    "roberta-wordpiece": Family("Roberta", SIZE | {"type_vocab_size": 1}, "wordpiece"),
    "roberta-bpe": Family("Roberta", SIZE | {"type_vocab_size": 1}, "bytes"),
    "xlm-roberta": Family("XLMRoberta", SIZE | {"type_vocab_size": 1}, "unigram"),
    "electra": Family("Electra", SIZE | {"embedding_size": 16}, "wordpiece"),
    "albert": Family("Albert", SIZE | {"embedding_size": 16}, "unigram", fused=1),  # shared layers
    "distilbert": Family(
        "DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}, "wordpiece"
    ),
    "deberta-v2": Family("DebertaV2", OTHERS["deberta-v2"][1], "unigram", fused=0),
    "modernbert": Family("ModernBert", MODERN, "bytes", fused=0),
    "modernbert-256k": Family("ModernBert", MODERN, "bytes", fused=0, vocabulary=256_000),
    "eurobert": Family("EuroBert", SIZE | ENDS | {"num_key_value_heads": 4}, "bytes", fused=0),
    "big_bird": Family("BigBird", SIZE | ENDS, "unigram"),
    "longformer": Family("Longformer", SIZE | {"attention_window": 16}, "bytes", exported=False),
}


def make_classifier(name: str) -> Any:
    """A random classifier of one of FAMILIES whose every weight matters, in eval mode.

    Skips where the installed transformers does not have the family.
    """
    import torch

    family = FAMILIES[name]
    torch.manual_seed(0)
    known = {"vocab_size": family.vocabulary or 100, "pad_token_id": 1, "num_labels": 3}
    model = _of_family(name, "ForSequenceClassification", family.settings | known).eval()
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.05
    return model


def write_family(name: str, folder: Path, corpus: Path) -> Path:
    """A random base of one of FAMILIES in ``folder``, with a tokenizer trained on ``corpus``."""
    import torch

    family = FAMILIES[name]
    tokenizer = TOKENIZERS[family.tokenizer](corpus)
    known = {
        "vocab_size": family.vocabulary or len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.1,
    }
    torch.manual_seed(3)
    _of_family(name, "Model", family.settings | known).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _of_family(name: str, kind: str, settings: dict[str, Any]) -> Any:
    import transformers

    prefix = FAMILIES[name].prefix
    if not hasattr(transformers, f"{prefix}Config"):
        pytest.skip(f"{prefix} is not in transformers {transformers.__version__}")
    config = getattr(transformers, f"{prefix}Config")(**settings)
    return getattr(transformers, f"{prefix}{kind}")(config)


def train_wordpiece(corpus: Path) -> Any:
    """BERT's tokenizer, cased, of some 150 words."""
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import BertProcessing

    made = BertWordPieceTokenizer(strip_accents=False, lowercase=False)
    made.train([str(corpus)], vocab_size=300, min_frequency=1, show_progress=False)
    ends = ((word, made.token_to_id(word)) for word in ("[SEP]", "[CLS]"))
    made._tokenizer.post_processor = BertProcessing(*ends)
    return _fast(made, "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")


def train_bytes(corpus: Path) -> Any:
    """GPT-2's byte-level BPE with RoBERTa's special tokens."""
    from tokenizers import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train([str(corpus)], vocab_size=500, special_tokens=special, show_progress=False)
    return _with_ends(made)


def train_unigram(corpus: Path) -> Any:
    """SentencePiece's unigram model with XLM-R's special tokens."""
    from tokenizers import SentencePieceUnigramTokenizer

    made = SentencePieceUnigramTokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train(
        [str(corpus)],
        vocab_size=300,
        special_tokens=special,
        unk_token="<unk>",
        show_progress=False,
    )
    return _with_ends(made)


def _with_ends(made: Any) -> Any:
    from tokenizers.processors import RobertaProcessing

    made._tokenizer.post_processor = RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return _fast(made, "<s>", "</s>", "<pad>", "<unk>", "<mask>")


def _fast(made: Any, first: str, last: str, pad: str, unknown: str, mask: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer,
        cls_token=first,
        sep_token=last,
        bos_token=first,
        eos_token=last,
        pad_token=pad,
        unk_token=unknown,
        mask_token=mask,
    )


TOKENIZERS = {"wordpiece": train_wordpiece, "bytes": train_bytes, "unigram": train_unigram}


def write_architecture(name: str, folder: Path, like: Path) -> Path:
    """A random model of one of OTHERS in ``folder``, with the tokenizer of the base ``like``."""
    import torch
    import transformers

    prefix, settings = OTHERS[name]
    if name == "canine":
        tokenizer = transformers.CanineTokenizer(model_max_length=512)
        known = {}
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(like)
        known = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    kind = prefix.removesuffix("Base")
    config = getattr(transformers, f"{kind}Config")(**settings, **known)
    torch.manual_seed(3)
    getattr(transformers, f"{prefix}Model")(config).save_pretrained(folder)
    if name == "fnet":
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer._tokenizer,
            model_input_names=["input_ids", "token_type_ids"],
            pad_token=tokenizer.pad_token,
            unk_token=tokenizer.unk_token,
        )
    tokenizer.save_pretrained(folder)
    return folder
