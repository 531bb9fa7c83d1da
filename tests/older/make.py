"""Train the run of tests/older: python tests/older/make.py tests/older/transformers4

Made once with transformers 4.57; every later environment has to open it with the same logits. Its
base has klue/roberta's shape: RoBERTa's config, a WordPiece vocabulary, no tokenizer_class.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import torch
from transformers import BertTokenizerFast, RobertaConfig, RobertaModel

sys.path.insert(0, str(Path(__file__).parents[1]))
from architectures import train_wordpiece
from conftest import make_review

from finetune.recipes.text import FinetuneRecipe
from finetune.training import finetune

NAMED = {"bos_token": "[CLS]", "eos_token": "[SEP]"}  # as klue/roberta-large has them


def write_base(folder: Path, corpus: Path) -> None:
    """A RoBERTa of two layers."""
    tokenizer = BertTokenizerFast(
        tokenizer_object=train_wordpiece(corpus)._tokenizer, strip_accents=False
    )
    torch.manual_seed(3)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        type_vocab_size=1,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
    )
    RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    told = json.loads(path.read_text("utf-8")) | NAMED
    told.pop("tokenizer_class")
    path.write_text(json.dumps(told, indent=2) + "\n", "utf-8")


def main(folder: Path) -> None:
    """Reviews, base and a LoRA run, all named relative to ``folder``."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    source = random.Random(11)
    rows = [
        f"{make_review(source, row % 2)},{row % 2 ^ (source.random() < 0.1)}" for row in range(160)
    ]
    Path("reviews.csv").write_text("\n".join(["document,label", *rows]) + "\n", "utf-8")
    write_base(Path("base"), Path("reviews.csv"))
    recipe = {
        "name": "lora",
        "output": "lora",
        "model": {"source": "base", "max_length": 24},
        "data": {"path": "reviews.csv", "validation_size": 0.3, "test_size": 0.1},
        "adapter": {"method": "lora", "rank": 4, "alpha": 8},
        "training": {
            "max_steps": 30,
            "batch_size": 16,
            "learning_rate": 5e-3,
            "device": "cpu",
            "precision": "fp32",
        },
    }
    finetune(FinetuneRecipe.model_validate(recipe))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
