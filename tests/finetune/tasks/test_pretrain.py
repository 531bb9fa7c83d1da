"""Domain pretraining from recipe to model folder: corpus, resuming, cooling down, mistakes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from finetune.core.errors import DataError, FolderError, KotuneError, ModelError, RecipeError
from finetune.core.files import sha256_file
from finetune.data.plain_texts import load_texts
from finetune.loop.checkpoints import last_checkpoint
from finetune.loop.work_folder import work_root
from finetune.recipes.files import load_recipe
from finetune.recipes.pretraining import PretrainCorpus, PretrainRecipe
from finetune.tasks.pretraining.batches import TrainBatches
from finetune.tasks.pretraining.folder import embed_model
from finetune.tasks.pretraining.task import PretrainTask
from finetune.training import finetune
from kotune import app

SIZE = {"hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32, "max_positions": 34}


@pytest.fixture
def recipe(texts, tmp_path) -> PretrainRecipe:
    table = tmp_path / "reviews.txt"
    rows = [f"{number}\t{text}\t1" for number, text in enumerate([*texts, texts[0], "", '"열린'])]
    table.write_text("\n".join(["id\tdocument\tlabel", *rows]) + "\n", encoding="utf-8")
    return PretrainRecipe.model_validate(
        {
            "output": str(tmp_path / "model"),
            "corpus": {"path": str(table), "text_column": "document", "held_out_size": 40},
            "tokenizer": {"vocabulary_size": 200, "min_frequency": 1},
            "architecture": SIZE,
            "training": {
                "max_steps": 12,
                "tokens_per_batch": 256,
                "max_length": 32,
                "learning_rate": 5e-3,
                "warmup_steps": 2,
                "dropout": 0.1,
                "scheduler": "warmup_stable_decay",
                "decay_ratio": 0.5,
                "precision": "fp32",
                "device": "cpu",
                "logging_steps": 1,
                "save_steps": 4,
                "eval_steps": 6,
            },
        }
    )


def with_training(recipe: PretrainRecipe, **changes) -> PretrainRecipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})


def silent(_: str) -> None:
    pass


def test_held_out_texts_are_never_trained_on(recipe):
    texts = load_texts(recipe.corpus, seed=1)
    assert not set(texts.train) & set(texts.held_out)
    assert len(texts.held_out) == 40
    assert '"열린' in texts.train + texts.held_out
    summary = texts.summary
    assert summary["empty_dropped"] == 1
    assert summary["duplicates_dropped"] >= 1
    assert (
        summary["texts_read"]
        == 303
        == 1 + summary["duplicates_dropped"] + len(texts.train + texts.held_out)
    )


def test_a_further_stage_keeps_the_first_ones_held_out_texts(recipe):
    short = with_training(recipe, max_steps=1)
    first = PretrainTask().prepare(short)
    corpus = recipe.corpus.model_copy(update={"split_seed": recipe.seed})
    second = PretrainTask().prepare(
        short.model_copy(update={"corpus": corpus, "seed": recipe.seed + 1})
    )
    assert second.texts.held_out == first.texts.held_out


def test_plain_text_is_one_text_a_line(tmp_path):
    path = tmp_path / "plain.txt"
    path.write_text("\ufeff하나  둘\n\n셋\n하나 둘\n넷\n", encoding="utf-8")
    texts = load_texts(PretrainCorpus(path=str(path), held_out_size=1), seed=0)
    assert sorted(texts.train + texts.held_out) == ["넷", "셋", "하나 둘"]


def test_it_learns_and_the_folder_loads_as_a_classifier(recipe):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = finetune(with_training(recipe, max_steps=60), report=silent)
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "recipe.yaml"} <= names
    assert {"README.md", "metrics.json", "provenance.json"} <= names
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    chance = np.log(metrics["parameters"] and len(AutoTokenizer.from_pretrained(folder)))
    assert metrics["held_out"]["loss"] < 0.9 * chance
    assert metrics["tokens_seen"] > 0
    assert "held out, never trained on | 40" in (folder / "README.md").read_text("utf-8")
    assert not work_root(folder).exists()
    _, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert all(name.startswith("classifier.") for name in info["missing_keys"])
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["hidden_dropout_prob"] == 0.1  # training.dropout does not reach the result
    embedded = embed_model(folder, folder.parent / "half")
    _, info = AutoModelForSequenceClassification.from_pretrained(embedded, output_loading_info=True)
    assert all(name.startswith("classifier.") for name in info["missing_keys"])
    sizes = [(one / "model.safetensors").stat().st_size for one in (embedded, folder)]
    assert sizes[0] < 0.65 * sizes[1]
    again = AutoTokenizer.from_pretrained(embedded)("정말 재미")["input_ids"]
    assert again == AutoTokenizer.from_pretrained(folder)("정말 재미")["input_ids"]


def test_interrupted_it_goes_on_to_the_same_weights(recipe, monkeypatch):
    whole = finetune(recipe, report=silent)
    expected = sha256_file(whole / "model.safetensors")
    again = recipe.model_copy(update={"output": recipe.output + "-again"})
    work = work_root(Path(again.folder))

    counted = itertools.count()
    original = TrainBatches.__getitem__

    def interrupt(self, step):
        if next(counted) == 10:
            raise KeyboardInterrupt
        return original(self, step)

    monkeypatch.setattr(TrainBatches, "__getitem__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        finetune(again, report=silent)
    assert not Path(again.folder).exists()
    monkeypatch.undo()
    (steps,) = work.glob("*/steps")
    (steps / "checkpoint-8" / "trainer_state.json").write_text('{"cut')
    assert last_checkpoint(steps).folder.name == "checkpoint-6"  # the best evaluation's
    lines: list[str] = []
    folder = finetune(again, report=lines.append)
    assert "going on from step 6" in lines
    course = json.loads((folder / "provenance.json").read_text("utf-8"))["training"]
    assert course["starts"] == 2
    assert (folder / "tensorboard").is_dir()
    assert sha256_file(folder / "model.safetensors") == expected


def test_max_steps_at_resume_cools_down(recipe, monkeypatch):
    monkeypatch.setattr("finetune.tasks.pretraining.task.write_model_folder", _stop)
    with pytest.raises(KeyboardInterrupt):
        finetune(with_training(recipe, max_steps=4, decay_ratio=0.01), report=silent)
    monkeypatch.undo()
    (steps,) = work_root(Path(recipe.folder)).glob("*/steps")
    assert last_checkpoint(steps).finished
    said: list[str] = []
    longer = with_training(recipe, max_steps=8, learning_rate=4e-3, weight_decay=0.5)
    folder = finetune(longer, report=said.append)
    for key in ("decay_ratio", "max_steps", "learning_rate", "weight_decay"):
        assert any(f"training.{key}: not as it began" in one for one in said)
    history = json.loads((folder / "metrics.json").read_text("utf-8"))["history"]
    rates = {row["step"]: row["learning_rate"] for row in history if "learning_rate" in row}
    assert max(rates) == 8
    assert rates[4] == 5e-3 > rates[5] == 4e-3 > rates[6] > rates[8] > 0


def _stop(*_) -> None:
    raise KeyboardInterrupt


def test_it_continues_from_a_model_folder(recipe):
    first = finetune(recipe, report=silent)
    begun = json.loads((first / "metrics.json").read_text("utf-8"))["held_out"]["loss"]
    second = recipe.model_copy(update={"model": str(first), "output": recipe.output + "-2"})
    folder = finetune(second, report=silent)
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert metrics["held_out"]["loss"] < begun
    assert metrics["base"]["weights_sha256"]
    with pytest.raises(ModelError, match="positions for 32 tokens"):
        finetune(
            with_training(
                second.model_copy(update={"output": recipe.output + "-3"}), max_length=40
            ),
            report=silent,
        )


def test_other_settings_start_over_and_leave_its_checkpoints(recipe, monkeypatch):
    monkeypatch.setattr("finetune.training.train_job", _stop)
    with pytest.raises(KeyboardInterrupt):
        finetune(recipe, report=silent)
    (first,) = work_root(Path(recipe.folder)).glob("*")
    other = with_training(recipe, max_length=16).model_copy(update={"seed": 7})
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        finetune(other, report=said.append)
    assert any("(seed, training.max_length changed)" in one for one in said)
    assert first.is_dir() and len(list(first.parent.iterdir())) == 2


@pytest.mark.slow
def test_the_same_training_twice_gives_the_same_vocabulary_and_weights(recipe, tmp_path):
    """In processes of their own: hash tables are laid out anew in each."""
    program = (
        "import sys, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from finetune.recipes.pretraining import PretrainRecipe\n"
        "from finetune.training import finetune\n"
        "recipe = PretrainRecipe.model_validate_json(Path(sys.argv[1]).read_text())\n"
        "finetune(recipe.model_copy(update={'output': sys.argv[2]}))"
    )
    (tmp_path / "recipe.json").write_text(with_training(recipe, max_steps=3).model_dump_json())
    sums = []
    for name in ("one", "two"):
        words = [sys.executable, "-c", program, tmp_path / "recipe.json", tmp_path / name]
        subprocess.run(words, check=True, capture_output=True)
        files = ("tokenizer.json", "model.safetensors")
        sums.append([sha256_file(tmp_path / name / file) for file in files])
    assert sums[0] == sums[1]


def test_mistakes_are_told(recipe, tmp_path, monkeypatch):
    def corpus(**changes):
        changed = {**recipe.model_dump()["corpus"], **changes}
        return recipe.model_copy(update={"corpus": PretrainCorpus(**changed)})

    monkeypatch.delenv("KOTUNE_NOWHERE", raising=False)
    cases = [
        (corpus(path="${KOTUNE_NOWHERE}/x.txt"), RecipeError, "export KOTUNE_NOWHERE"),
        (corpus(path=str(tmp_path / "no.txt")), DataError, "not a file"),
        (corpus(text_column="review"), DataError, "no column review\n"),
        (corpus(held_out_size=5000), DataError, "leaves no text"),
        (recipe.model_copy(update={"model": "./nowhere"}), ModelError, "neither"),
    ]
    for wrong, kind, message in cases:
        with pytest.raises(kind, match=message.replace("$", r"\$")):
            finetune(wrong, report=silent)
    occupied = Path(recipe.folder)
    occupied.mkdir()
    (occupied / "thesis.txt").write_text("mine")
    with pytest.raises(FolderError, match="not a pretrained model"):
        finetune(recipe, overwrite=True, report=silent)
    with pytest.raises(FolderError, match="not a pretrained model"):
        embed_model(occupied, tmp_path / "half")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("architecture.heads=3", "multiple"),
        ("training.max_length=129", "max_positions"),
        ("training.tokens_per_batch=64", "tokens_per_batch"),
        ("training.schedule=linear", "scheduler"),
    ],
)
def test_recipes_that_cannot_be_are_refused(override, message):
    with pytest.raises(KotuneError, match=message):
        load_recipe(PretrainRecipe, "pretrain/tiny", [override])


def test_shipped_recipes_are_valid():
    for name in ("pretrain/tiny", "pretrain/continue-e5"):
        assert load_recipe(PretrainRecipe, name).corpus.path.startswith("${KOTUNE_NSMC}")


def test_the_command_trains_once_then_only_embeds(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    content = with_training(recipe, max_steps=2, eval_steps=2).model_dump(mode="json")
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    runner = CliRunner()
    first = runner.invoke(app, ["pretrain", str(path), "training.max_steps=3"])
    assert first.exit_code == 0, first.output
    assert "max_steps: 3" in first.output
    saved = yaml.safe_load((Path(recipe.folder) / "recipe.yaml").read_text("utf-8"))
    assert saved["training"]["max_steps"] == 3
    written = (Path(recipe.folder) / "model.safetensors").stat().st_mtime_ns
    half = tmp_path / "half"
    second = runner.invoke(app, ["pretrain", str(path), "--embed", str(half)])
    assert second.exit_code == 0, second.output
    assert (half / "model.safetensors").is_file()
    assert (Path(recipe.folder) / "model.safetensors").stat().st_mtime_ns == written
    third = runner.invoke(app, ["pretrain", str(path)])
    assert isinstance(third.exception, FolderError)


def test_help_does_not_import_torch():
    code = (
        "import sys, kotune\nfrom typer.testing import CliRunner\n"
        "CliRunner().invoke(kotune.app, ['pretrain', '--help'])\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
