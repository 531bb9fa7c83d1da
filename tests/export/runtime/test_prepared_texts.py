"""A run, its artifact, predict.py and the calibration see the same tokens of the same text."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from export.checks.tokens import check_tokens
from export.exporting import export_run
from export.predict import predict_texts
from export.runtime.classifier import OnnxClassifier
from export.runtime.manifest import ArtifactError, read_manifest
from export.runtime.texts import TextEncoder, open_encoder
from finetune.core.errors import FolderError, ModelError
from finetune.core.files import sha256_file
from finetune.core.preparation import DEFAULT, FOLDED, UNPREPARED, Preparation
from finetune.models.loading import load_tokenizer
from finetune.run_folder import open_run, read_rows

ROOT = Path(__file__).parents[3]
REVIEW = "영화 정말 재미있다 최고 배우"


@pytest.fixture(scope="module")
def run(make_run):
    return open_run(make_run("lora", "bytes"))


@pytest.fixture(scope="module")
def artifact(make_artifact):
    return make_artifact("lora", "bytes")


def scores(folder: Path, texts: list[str], precision: str | None = None) -> np.ndarray:
    return np.array(
        [list(one.scores.values()) for one in predict_texts(folder, texts, precision=precision)]
    )


def test_run_and_manifest_say_how_texts_are_prepared(run, artifact) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text("utf-8"))
    told = manifest["preparation"]
    assert told == run.info.preparation == run.preparation.as_dict()
    assert (told["unicode"], told["whitespace"], told["truncation_side"]) == ("NFC", "fold", "left")
    config = json.loads((artifact / "tokenizer_config.json").read_text("utf-8"))
    assert config["truncation_side"] == "left"  # for clients that read no manifest


@pytest.mark.parametrize("space", ["\n", "  ", "\t", "\u00a0", "\r\n", "\u3000"])
def test_white_space_and_unicode_form_change_nothing(run, artifact, space) -> None:
    texts = read_rows(run, "validation")["text"].tolist()[:20]
    others = [f" {text}\n".replace(" ", space) for text in texts]
    others += [unicodedata.normalize("NFD", text) for text in texts]
    for folder, precision in ((artifact, "fp32"), (artifact, "int8"), (run.folder, None)):
        expected = scores(folder, [*texts, *texts], precision)
        assert np.array_equal(scores(folder, others, precision), expected), (folder, precision)
    raw = TextEncoder(artifact, UNPREPARED, max_length=32, pad_token_id=0)
    assert all(raw([text]) != raw([other]) for text, other in zip(texts, others, strict=False))


def test_a_long_text_is_cut_on_the_side_that_training_cut(run, artifact) -> None:
    long = ["별로 " * 90 + "최고 감동 명작 추천 훌륭한", "최고 " * 90 + "최악 실망 졸작 별로"]
    assert np.allclose(scores(artifact, long, "fp32"), scores(run.folder, long), atol=1e-4)
    encode = OnnxClassifier(artifact, "fp32").encode
    (cut, whole) = encode(long[:1]), encode([long[0].split("별로 ")[-1]])
    assert len(cut[0]) == 32
    assert cut[0][-4:] == whole[0][-4:]  # the end stands, and its </s>


def test_every_door_sees_the_same_tokens(run, artifact, tmp_path) -> None:
    broken = "\udcff"  # as a byte that is no UTF-8 comes from the command line
    odd = f"\u00a0{unicodedata.normalize('NFD', REVIEW)}\n\n끝 {broken}"
    (expected,) = OnnxClassifier(artifact, "fp32")([odd])
    command = [sys.executable, artifact / "predict.py", "--precision", "fp32", "--json", odd]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["text"] == odd.replace(broken, "\ufffd")
    assert json.loads(done.stdout)["score"] == pytest.approx(expected["score"], abs=1e-6)
    document = (ROOT / "docs" / "DEPLOY.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(import json.*?)```", document, re.S)
    (tmp_path / "plain.py").write_text(code.replace('["int8"]', '["fp32"]'), "utf-8")
    for text in (odd.replace(broken, ""), "별로 " * 90 + "최고 감동 명작"):
        (answer,) = OnnxClassifier(artifact, "fp32")([text])
        plain = [sys.executable, tmp_path / "plain.py", artifact, text]
        done = subprocess.run(plain, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [answer["label"], f"{answer['score']:.4f}"]


def test_what_is_no_text_is_named_by_its_number(artifact) -> None:
    classify = OnnxClassifier(artifact, "fp32")
    for texts, told in (([REVIEW, None], "text 2 .* NoneType"), ([3], "text 1 .* int")):
        with pytest.raises(TypeError, match=told):
            classify(texts)


def test_folders_of_before_keep_what_they_were_checked_with(run, artifact, tmp_path) -> None:
    old = shutil.copytree(artifact, tmp_path / "artifact")
    manifest = json.loads((old / "manifest.json").read_text("utf-8"))
    del manifest["preparation"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    encode = OnnxClassifier(old, "fp32", verify=False).encode
    assert encode.preparation == UNPREPARED
    assert encode(["가 나"]) != encode(["가  나"])
    before = shutil.copytree(run.folder, tmp_path / "run")
    info = json.loads((before / "run.json").read_text("utf-8"))
    del info["preparation"]
    (before / "run.json").write_text(json.dumps(info))
    assert open_run(before).preparation == Preparation(unicode="none", truncation_side="left")
    assert open_run(before).preparation.whitespace == FOLDED.whitespace == "fold"


def test_a_preparation_of_a_newer_kotune_is_refused(run, artifact, tmp_path) -> None:
    manifest = read_manifest(artifact)
    told = {**DEFAULT.as_dict(), "unicode": "NFD"}
    with pytest.raises(ArtifactError, match=r"unicode 'NFD'; known: NFC, NFKC, none"):
        open_encoder(artifact, dataclasses.replace(manifest, preparation=told))
    newer = shutil.copytree(run.folder, tmp_path / "run")
    info = json.loads((newer / "run.json").read_text("utf-8"))
    (newer / "run.json").write_text(json.dumps({**info, "preparation": {"stemming": "yes"}}))
    with pytest.raises(FolderError, match="unknown preparation of texts: stemming"):
        _ = open_run(newer).preparation


def test_a_tokenizer_that_says_more_than_its_file_is_not_exported(run, artifact, tmp_path) -> None:
    """Any switch that transformers applies outside tokenizer.json: here one of its own."""
    tokenizer = load_tokenizer(run.folder / "model")
    check_tokens(tokenizer, artifact, run.preparation, 32)
    shutil.copytree(artifact, tmp_path / "other", ignore=shutil.ignore_patterns("onnx"))
    content = json.loads((artifact / "tokenizer.json").read_text("utf-8"))
    content["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(ModelError, match="gives other tokens than transformers gave in training"):
        check_tokens(tokenizer, tmp_path / "other", run.preparation, 32)


def test_the_recipe_may_ask_for_another_side_and_form(make_base, reviews, tmp_path) -> None:
    from finetune.recipes.text import FinetuneRecipe
    from finetune.tasks.text.job import prepare_job
    from finetune.tasks.text.trainer import tokenize_rows

    recipe = FinetuneRecipe.model_validate(
        {
            "output": str(tmp_path),
            "model": {
                "source": str(make_base("bytes")),
                "max_length": 8,
                "preparation": {
                    "unicode": "none",
                    "whitespace": "keep",
                    "truncation_side": "right",
                },
            },
            "data": {"path": str(reviews)},
        }
    )
    job = prepare_job(recipe)
    assert job.preparation == UNPREPARED
    rows = tokenize_rows(job.corpus.train, job.tokenizer, 8, "dynamic", preparation=UNPREPARED)
    first = job.tokenizer.decode(rows[0]["input_ids"], skip_special_tokens=True)
    assert job.corpus.train["text"].iloc[0].startswith(first)


def test_split_special_tokens_are_split_in_the_runtime_too(make_run, tmp_path) -> None:
    """A switch of tokenizer_config.json that tokenizer.json does not hold."""
    folder = shutil.copytree(make_run("lora", "bytes"), tmp_path / "run")
    config = json.loads((folder / "model" / "tokenizer_config.json").read_text("utf-8"))
    config["split_special_tokens"] = True
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps(config))
    info = json.loads((folder / "run.json").read_text("utf-8"))
    del info["preparation"]
    changed = "model/tokenizer_config.json"
    info["files"][changed] = sha256_file(folder / changed)
    (folder / "model" / "token_ids.json").unlink()  # of a run that was trained like this
    del info["files"]["model/token_ids.json"]
    (folder / "run.json").write_text(json.dumps(info))
    options = ["max_accuracy_drop=0.2", "precisions=[fp32]"]
    made = export_run(folder, tmp_path / "artifact", overrides=options)
    assert made.manifest.preparation["special_tokens"] == "split"
    ids = OnnxClassifier(made.folder, "fp32").encode(["앞 </s> 뒤"])[0]
    assert ids.count(2) == 1
