"""A model folder cannot lead anywhere: what is loaded lies inside it, and is no pickle or code."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.core.errors import ModelError
from finetune.models.loading import load_base, load_tokenizer, load_whole, stored_files
from finetune.models.source import resolve_base

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def base(make_base: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the tiny RoBERTa, to be changed."""
    return Path(shutil.copytree(make_base("roberta"), tmp_path / "base"))


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | keys), "utf-8")


def index(folder: Path, name: str) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"x.weight": name}}))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as fault:
        load_base(resolve_base(str(folder)), ["a", "b"])
    return str(fault.value)


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../other/model.safetensors", "/x", "a/b"])
def test_an_index_names_shards_of_its_folder(base: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    shutil.move(base / WHOLE, tmp_path / "other" / WHOLE)
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    shutil.copy(tmp_path / "other" / WHOLE, base / "unused.safetensors")
    index(base, name)
    assert "names a file that is no shard of this folder" in refusal(base)
    assert not (tmp_path / "sprung").exists()


def test_weights_are_no_link_out_of_their_folder(base: Path, tmp_path: Path) -> None:
    shutil.move(base / WHOLE, tmp_path / "elsewhere.safetensors")
    (base / WHOLE).symlink_to(tmp_path / "elsewhere.safetensors")
    assert "outside the model's folder" in refusal(base)


def test_the_hubs_cache_links_to_its_blobs(base: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0", tmp_path / "models--a--b/blobs"
    shutil.copytree(base, snapshot)
    blobs.mkdir()
    shutil.move(snapshot / WHOLE, blobs / "1")
    (snapshot / WHOLE).symlink_to("../../blobs/1")
    assert [path.name for path in stored_files(resolve_base(str(snapshot)))] == [WHOLE]


def test_config_names_no_other_weights(base: Path, tmp_path: Path) -> None:
    (base / "other.safetensors").write_bytes((base / WHOLE).read_bytes())
    change(base / "config.json", transformers_weights="other.safetensors")
    assert "names another file of weights" in refusal(base)


def test_a_tokenizers_config_leads_nowhere(base: Path, tmp_path: Path) -> None:
    shutil.copy(base / "tokenizer.json", tmp_path / "tokenizer.json")
    change(base / "tokenizer_config.json", tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert "outside the model's folder (tokenizer_file)" in refusal(base)


def test_only_what_is_loaded_is_hashed(base: Path) -> None:
    before = resolve_base(str(base)).weights_sha256
    (base / "training_args.safetensors").write_bytes((base / WHOLE).read_bytes())
    assert resolve_base(str(base)).weights_sha256 == before


@pytest.mark.parametrize("content", ["[]", "null", "{", "[" * 100_000, ""])
def test_settings_that_are_no_object_are_told(base: Path, content: str) -> None:
    (base / "config.json").write_text(content)
    assert "config.json is not" in refusal(base)


CODE = """
import pathlib
pathlib.Path({place!r}).mkdir()
from transformers import RobertaConfig, RobertaForSequenceClassification, RobertaTokenizerFast
class Config(RobertaConfig): model_type = "stranger"
class Model(RobertaForSequenceClassification): config_class = Config
class Tokenizer(RobertaTokenizerFast): pass
"""


@pytest.mark.parametrize("model_type", ["stranger", "roberta"])
def test_a_models_own_code_never_runs(
    base: Path, tmp_path: Path, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sprung = tmp_path / "sprung"
    (base / "code.py").write_text(CODE.format(place=str(sprung)))
    auto = {"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"}
    change(base / "config.json", model_type=model_type, auto_map=auto)
    tokenizer = {"AutoTokenizer": [None, "code.Tokenizer"]}
    change(base / "tokenizer_config.json", auto_map=tokenizer, tokenizer_class="Stranger")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    if model_type == "stranger":
        assert "config.json is not understood" in refusal(base)
        with pytest.raises(ModelError):
            load_whole(_auto(), base)
    else:
        load_base(resolve_base(str(base)), ["a", "b"])  # transformers' own class
    with pytest.raises(ModelError):
        load_tokenizer(base)
    assert not sprung.exists()


def _auto() -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification


def test_an_adapter_is_no_pickle(make_run: Callable[[str], Path], tmp_path: Path) -> None:
    from finetune.models.trained_weights import load_adapter

    folder = Path(shutil.copytree(make_run("lora") / "model", tmp_path / "model"))
    (folder / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="is missing"):
        load_adapter(torch.nn.Linear(1, 1), folder)
