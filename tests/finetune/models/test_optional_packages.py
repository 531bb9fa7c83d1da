"""A tokenizer that needs a package nobody installed: one message, never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.core.errors import ModelError
from finetune.models.loading import load_tokenizer
from finetune.models.optional_packages import explain_tokenizer, is_installed


@pytest.fixture
def sentencepiece_only(make_base: Callable[[str], Path], tmp_path: Path) -> Path:
    """A DeBERTa-v3's folder as published: spm.model and no tokenizer.json."""
    folder = tmp_path / "deberta"
    folder.mkdir()
    shutil.copyfile(make_base("bert") / "model.safetensors", folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "deberta-v2"}))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    (folder / "spm.model").write_bytes(b"no SentencePiece model")
    return folder


def test_spm_model_alone_says_what_to_install(sentencepiece_only: Path) -> None:
    with pytest.raises(ModelError) as told:
        load_tokenizer(sentencepiece_only)
    if is_installed("sentencepiece"):
        assert "spm.model cannot be converted" in str(told.value)
    else:
        assert "pip install sentencepiece" in str(told.value)


def test_spm_model_is_a_tokenizer_where_the_package_is_there(
    sentencepiece_only: Path, reviews: Path
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        input=str(reviews),
        model_prefix=str(sentencepiece_only / "spm"),
        vocab_size=100,
        hard_vocab_limit=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        user_defined_symbols="[CLS],[SEP],[MASK]",
        minloglevel=2,
    )
    tokenizer = load_tokenizer(sentencepiece_only)
    assert tokenizer.is_fast
    assert tokenizer.unk_token_id not in tokenizer("최고 영화")["input_ids"]


def test_a_folder_without_any_tokenizer_says_so(sentencepiece_only: Path) -> None:
    (sentencepiece_only / "spm.model").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer(?s:.*)tokenizer\.json"):
        load_tokenizer(sentencepiece_only)


@pytest.mark.parametrize(
    "fault",
    [
        ModuleNotFoundError("No module named 'absent_package'", name="absent_package"),
        ImportError("You need to install absent_package to use MecabTokenizer"),
        ValueError("requires the absent_package library; `pip install absent_package`"),
        AttributeError("'NoneType' object has no attribute 'endswith'"),
    ],
)
def test_any_exception_of_a_missing_package_is_one_message(tmp_path: Path, fault) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]")
    told = explain_tokenizer(fault, "klue/some-model", tmp_path)
    if isinstance(fault, AttributeError):
        assert "AttributeError" in str(told) and told.next_step is None
    else:
        assert told.next_step == "pip install absent_package"


def test_a_broken_tokenizer_json_is_one_message(
    make_base: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(make_base("bert"), tmp_path / "base")
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded"):
        load_tokenizer(folder)
