"""Tiny bases of other architectures than the fixtures' RoBERTa and BERT, with a tokenizer each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
