"""Tiny base models, runs and artifacts, made once by the real fine-tuning and export; real data.

Real data is used where the environment names it; elsewhere the tests that need it skip, saying so.
"""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

import finetune.core.telemetry  # noqa: F401 - before any test imports onnxruntime

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# a machine that is busy with the other test process is no fault of what is tested
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
logging.raiseExceptions = False  # libraries' handlers keep the stderr of the test that loaded them

POSITIVE = ["재미있다", "최고", "감동", "훌륭한", "좋아요", "추천", "명작"]
NEGATIVE = ["지루하다", "최악", "실망", "별로", "아까운", "졸작", "싫어요"]
NEUTRAL = ["영화", "배우", "연기", "감독", "이야기", "정말", "오늘", "친구", "음악", "화면", "그냥"]
METHODS = ("full", "lora", "qlora")
EXPORTED = "exported/apart"  # where no benchmark looks for the artifact of a run, or its run


def make_review(source: random.Random, label: int) -> str:
    """A review of 3 to 18 words with one to three telling ones."""
    telling = source.choices(POSITIVE if label else NEGATIVE, k=source.randint(1, 3))
    words = source.choices(NEUTRAL, k=source.randint(2, 15)) + telling
    source.shuffle(words)
    return " ".join(words)


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """A function: name, how to make it → its path, made once for all test processes.

    Runs and artifacts that many tests look at take longer to make than to look at.
    """
    place = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        place = place.parent
    place = place / "shared"
    place.mkdir(exist_ok=True)

    def make(name: str, build: Callable[[Path], object]) -> Path:
        path, done = place / name, place / f"{name.replace('/', '-')}.done"
        with FileLock(place / f"{done.stem}.lock"):
            if not done.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                build(path)
                done.touch()
        return path

    return make


@pytest.fixture(scope="session")
def reviews(make_once: MakeOnce) -> Path:
    """400 labelled reviews as CSV, one in ten with the wrong label."""
    return make_once("reviews.csv", _write_reviews)


def _write_reviews(path: Path) -> None:
    source = random.Random(7)
    lines = ["document,label"]
    for row in range(400):
        label = row % 2
        lines.append(f"{make_review(source, label)},{label ^ (source.random() < 0.1)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def make_base(make_once: MakeOnce, reviews: Path) -> Callable[[str], Path]:
    """A function: kind → folder of a tiny base with tokenizer.

    "roberta" and "bert" read WordPiece; "bytes" is a RoBERTa with byte-level BPE, to which every
    space counts, and which is cut on the left.
    """
    return lambda kind: make_once(f"base/{kind}", partial(_write_base, kind, corpus=reviews))


def _write_base(kind: str, folder: Path, *, corpus: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    made, tokenizer = _train_bytes(corpus) if kind == "bytes" else _train_wordpiece(corpus)
    size = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 66,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.1,  # far enough from zero for every matrix to matter
    }
    torch.manual_seed(3)
    if kind == "bert":
        model = BertModel(BertConfig(**size))
    else:
        model = RobertaModel(RobertaConfig(type_vocab_size=1, **size), add_pooling_layer=False)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))  # transformers 5 puts special tokens around it


def _train_wordpiece(corpus: Path) -> tuple[Any, Any]:
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    made = BertWordPieceTokenizer(strip_accents=False, lowercase=False)
    made.train([str(corpus)], vocab_size=300, min_frequency=1, show_progress=False)
    return made, BertTokenizerFast(
        tokenizer_object=made._tokenizer, strip_accents=False, do_lower_case=False
    )


def _train_bytes(corpus: Path) -> tuple[Any, Any]:
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing
    from transformers import RobertaTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made = ByteLevelBPETokenizer()
    made.train([str(corpus)], vocab_size=500, special_tokens=special, show_progress=False)
    made._tokenizer.post_processor = RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return made, RobertaTokenizerFast(tokenizer_object=made._tokenizer, truncation_side="left")


@pytest.fixture(scope="session")
def make_run(
    make_once: MakeOnce, make_base: Callable[[str], Path], reviews: Path
) -> Callable[[str, str], Path]:
    """A function: method, architecture → folder of a run trained for a few steps."""

    def make(method: str, kind: str = "roberta") -> Path:
        base = make_base(kind)
        return make_once(f"runs/{kind}-{method}", lambda at: _train(method, base, reviews, at))

    return make


def _train(method: str, base: Path, reviews: Path, folder: Path) -> Path:
    from finetune.recipes.text import FinetuneRecipe
    from finetune.training import finetune

    recipe = FinetuneRecipe.model_validate(
        {
            "name": folder.name,
            "output": str(folder),
            "model": {"source": str(base), "max_length": 32},
            "data": {"path": str(reviews), "validation_size": 0.4, "test_size": 0.1},
            "adapter": {"method": method, "rank": 8, "alpha": 16},
            "training": {
                "max_steps": 40,
                "batch_size": 16,
                "learning_rate": 5e-3 if method != "full" else 5e-4,
                "device": "cpu",
                "precision": "fp32",
            },
        }
    )
    return finetune(recipe, report=lambda line: None)


@pytest.fixture(scope="session")
def make_artifact(
    make_once: MakeOnce, make_run: Callable[[str, str], Path]
) -> Callable[[str, str], Path]:
    """A function: method, architecture → folder of the exported run."""
    from export.exporting import export_run

    overrides = ["max_accuracy_drop=0.1"]  # of 96 rows one is a point already

    def make(method: str, kind: str = "roberta") -> Path:
        run = make_run(method, kind)
        name = f"{EXPORTED}/{kind}-{method}"
        return make_once(name, lambda folder: export_run(run, folder, overrides=overrides))

    return make


def named_folder(variable: str) -> Path:
    """The folder an environment variable names; skips where it is not set."""
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{variable} is not set to a folder: this test needs the real data")
    return Path(value).resolve()


@pytest.fixture(scope="session")
def nsmc_folder() -> Path:
    """The folder with NSMC's two files (KOTUNE_NSMC)."""
    return named_folder("KOTUNE_NSMC")


@pytest.fixture(scope="session")
def e5_folder(make_once: MakeOnce) -> Path:
    """The unpacked e5-small-ko encoder (KOTUNE_E5, packed or unpacked)."""
    folder = named_folder("KOTUNE_E5")
    if (folder / "model.safetensors").is_file():
        return folder
    command = [sys.executable, folder / "unpack.py"]
    return make_once("e5", lambda target: subprocess.run([*command, target], check=True))


@pytest.fixture(scope="session")
def speech_folder() -> Path:
    """The folder with the spoken digits' train/ and test/ (KOTUNE_SPEECH)."""
    return named_folder("KOTUNE_SPEECH")


@pytest.fixture(scope="session")
def tones_data(make_once: MakeOnce) -> Path:
    """A folder with train/ and test/ of a language of four tones (tests/tones.py)."""
    from tones import write_folder

    def write(folder: Path) -> None:
        write_folder(folder / "train", 240, seed=1)
        write_folder(folder / "test", 24, seed=2)

    return make_once("tones", write)


@pytest.fixture(scope="session")
def tones_run(make_once: MakeOnce, tones_data: Path) -> Path:
    """A run whose small wav2vec2 has learnt the tones from scratch."""
    from tones import tones_recipe

    from finetune.recipes.speech import SpeechRecipe
    from finetune.training import finetune

    def train(folder: Path) -> None:
        recipe = SpeechRecipe.model_validate(tones_recipe(tones_data, folder))
        finetune(recipe, report=lambda line: None)

    return make_once("runs/tones", train)


@pytest.fixture(scope="session")
def tones_artifact(make_once: MakeOnce, tones_run: Path) -> Path:
    """The exported run of the tones."""
    from export.exporting import export_run

    overrides = ["max_wer_increase=0.1"]
    return make_once(
        f"{EXPORTED}/tones", lambda folder: export_run(tones_run, folder, overrides=overrides)
    )
