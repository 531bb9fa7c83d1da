"""A tokenizer's ids are kept beside it, and other ids on opening are an error that tells them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from bench.variants.contenders import find_contenders
from export.exporting import export_run
from finetune.core.errors import FolderError, ModelError
from finetune.core.files import sha256_file
from finetune.core.libraries import transformers_major
from finetune.models.token_ids import TEXTS, TOKEN_IDS, hold_token_ids, read_token_ids
from finetune.models.tokenizer import load_tokenizer, save_tokenizer
from finetune.run_folder import open_run


@pytest.fixture
def wordpiece(make_base, tmp_path: Path) -> Path:
    """klue/roberta's shape: RoBERTa's config, a WordPiece vocabulary, no tokenizer_class."""
    folder = shutil.copytree(make_base("roberta"), tmp_path / "base")
    for name in ("tokenizer_config.json", "config.json"):
        told = json.loads((folder / name).read_text())
        told.pop("tokenizer_class", None)
        (folder / name).write_text(json.dumps(told))
    return folder


def forge(folder: Path) -> None:
    """A fingerprint as other libraries would have left it: one text has other ids."""
    path = folder / TOKEN_IDS
    content = json.loads(path.read_text())
    place = content["texts"].index("영화 😀 최고 🎬")
    content["ids"][place] = "7 " + content["ids"][place]
    content["libraries"] = {"transformers": "4.57.6", "tokenizers": "0.22.2"}
    path.write_text(json.dumps(content))


def test_the_texts_are_about_a_hundred_and_of_every_kind() -> None:
    assert 90 <= len(TEXTS) == len(set(TEXTS)) <= 120
    assert {"", " "} < set(TEXTS) and max(map(len, TEXTS)) > 500
    everything = "".join(TEXTS)
    for kind in ("가", "a", "ㅋ", "\u1112", "😀", "\u00a0", "\t", "ß", "映", "[CLS]", "<s>"):
        assert kind in everything


def test_run_and_artifact_keep_the_ids_of_the_libraries_that_made_them(make_run, make_artifact):
    kept = read_token_ids(make_run("lora") / "model")
    assert kept.texts == TEXTS and kept.libraries["transformers"]
    assert read_token_ids(make_artifact("lora")).ids == kept.ids
    assert f"model/{TOKEN_IDS}" in open_run(make_run("lora")).info.files


def test_other_ids_are_told_with_text_and_libraries(make_run, tmp_path: Path) -> None:
    run = shutil.copytree(make_run("lora"), tmp_path / "run")
    forge(run / "model")
    with pytest.raises(ModelError) as fault:
        load_tokenizer(run / "model")
    told = str(fault.value)
    assert "영화 😀 최고 🎬" in told and "transformers 4.57.6, tokenizers 0.22.2" in told
    assert "pip install transformers==4.57.6 tokenizers==0.22.2" in told


def test_an_export_of_drifted_ids_writes_nothing(make_run, tmp_path: Path) -> None:
    run = shutil.copytree(make_run("lora"), tmp_path / "run")
    forge(run / "model")
    info = json.loads((run / "run.json").read_text())
    info["files"][f"model/{TOKEN_IDS}"] = sha256_file(run / "model" / TOKEN_IDS)
    (run / "run.json").write_text(json.dumps(info))
    with pytest.raises(ModelError, match="other ids"):
        export_run(run, tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_a_benchmark_holds_the_shipped_file_against_the_ids(make_artifact, tmp_path, monkeypatch):
    artifact = shutil.copytree(make_artifact("lora"), tmp_path / "artifact")
    forge(artifact)
    monkeypatch.setattr("export.artifact.folder.verify_files", lambda folder, manifest: None)
    with pytest.raises(ModelError, match="other ids"):
        find_contenders([artifact])


def test_a_resumed_training_holds_its_tokenizer_against_the_first_start(make_base, tmp_path):
    tokenizer = load_tokenizer(make_base("roberta"))
    hold_token_ids(tokenizer, tmp_path)
    hold_token_ids(tokenizer, tmp_path)
    forge(tmp_path)
    with pytest.raises(ModelError, match="other ids"):
        hold_token_ids(tokenizer, tmp_path)


def test_damaged_ids_are_one_message(make_base, tmp_path: Path) -> None:
    save_tokenizer(load_tokenizer(make_base("roberta")), tmp_path)
    content = json.loads((tmp_path / TOKEN_IDS).read_text())
    for damage in ({"ids": content["ids"][1:]}, {"ids": None}, {"texts": 3}):
        (tmp_path / TOKEN_IDS).write_text(json.dumps(content | damage))
        with pytest.raises(FolderError, match="damaged token ids"):
            load_tokenizer(tmp_path)


def test_a_wordpiece_roberta_without_tokenizer_class_reads_its_vocabulary(wordpiece: Path) -> None:
    """transformers 5 alone gives RoBERTa's byte-level BPE, to which nearly every text is unknown.

    transformers#45701, transformers#47706.
    """
    tokenizer = load_tokenizer(wordpiece)
    assert tokenizer.tokenize("영화 정말 재미있다") == ["영화", "정말", "재미있다"]
    assert tokenizer.pad_token_id is not None
    if transformers_major() >= 5:
        alone = AutoTokenizer.from_pretrained(wordpiece)
        assert alone.tokenize("영화 정말 재미있다") != tokenizer.tokenize("영화 정말 재미있다")


def test_a_vocab_txt_alone_is_read_as_wordpiece(wordpiece: Path) -> None:
    """transformers 4 fails with a TypeError, 5 makes a vocabulary of seven special tokens."""
    vocabulary = load_tokenizer(wordpiece).get_vocab()
    (wordpiece / "tokenizer.json").unlink()
    (wordpiece / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
    tokenizer = load_tokenizer(wordpiece)
    assert tokenizer.tokenize("영화 정말 재미있다") == ["영화", "정말", "재미있다"]
    assert len(tokenizer) == len(vocabulary)


def test_what_is_saved_names_classes_that_both_majors_know(wordpiece: Path, tmp_path: Path) -> None:
    save_tokenizer(load_tokenizer(wordpiece), tmp_path / "saved")
    told = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert told["tokenizer_class"] != "TokenizersBackend"
    assert not isinstance(told.get("extra_special_tokens"), list)
    again = load_tokenizer(tmp_path / "saved")
    assert again.all_special_tokens == load_tokenizer(wordpiece).all_special_tokens
