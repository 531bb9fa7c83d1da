"""The command line itself: help, version, texts with dashes, foreign files, Ctrl-C, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune.core.command_line import separate_texts
from finetune.core.errors import DataError, GateError, RecipeError
from finetune.planning.command import parse_bytes
from finetune.recipes.files import describe_recipe, dump_recipe, load_recipe
from finetune.recipes.text import FinetuneRecipe
from finetune.recipes.yaml_text import parse_yaml
from kotune import app

ROOT = Path(__file__).parents[2]
COMMANDS = ("ls", "show", "cp", "methods", "finetune", "sweep", "pretrain", "plan", "export")
COMMANDS += ("predict", "verify", "push", "transcribe", "run", "bench", "report", "compare")


def test_version_and_short_help_of_every_command() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert told.exit_code == 0
    assert told.output.startswith("kotune ")
    for words in ([], *([name] for name in COMMANDS)):
        done = CliRunner().invoke(app, [*words, "-h"])
        assert done.exit_code == 0, words
        assert "Usage" in done.output


def test_files_of_the_working_folder_are_not_taken_for_ours(tmp_path: Path) -> None:
    for name in ("bench", "configs", "export", "finetune"):
        (tmp_path / f"{name}.py").write_text("print('foreign')", encoding="utf-8")
    for paths in (str(ROOT), f"{tmp_path}{os.pathsep}{ROOT}"):
        done = subprocess.run(
            [sys.executable, "-m", "kotune", "show", "demo-lora"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "foreign" not in done.stdout
        assert "adapter" in done.stdout


def test_a_foreign_package_that_is_loaded_already_is_told(tmp_path: Path) -> None:
    (tmp_path / "bench.py").write_text("", encoding="utf-8")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import bench, kotune"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert str(tmp_path / "bench.py") in done.stderr
    assert "ImportError: kotune's own packages are hidden" in done.stderr  # a library raises


VALUES = {"--file": True, "--json": False, "-h": False}


@pytest.mark.parametrize(
    ("words", "apart"),
    [
        (["F", "-1점"], ["--", "F", "-1점"]),
        (["F", "-1점", "--json", "좋다"], ["--json", "--", "F", "-1점", "좋다"]),
        (["F", "--file", "-odd.txt"], ["F", "--file", "-odd.txt"]),
        (["F", "--file=-odd.txt", "-", "x"], ["--file=-odd.txt", "--", "F", "-", "x"]),
        (["F", "--별로다"], ["--", "F", "--별로다"]),
        (["F", "-- 별로"], ["--", "F", "-- 별로"]),
        (["F", "--", "--json"], ["--", "F", "--json"]),
        (["F", "--jsn", "x"], ["F", "--jsn", "x"]),
        (["F", "-1", "--jsn"], ["--jsn", "--", "F", "-1"]),
        (["F", "a", "b"], ["F", "a", "b"]),
    ],
)
def test_a_text_may_begin_with_a_dash(words: list[str], apart: list[str]) -> None:
    assert separate_texts(words, VALUES) == apart


def test_what_looks_like_an_option_is_still_checked() -> None:
    done = CliRunner().invoke(app, ["predict", "nowhere", "-1점", "--jsn"])
    assert done.exit_code == 2
    assert "No such option" in done.output


def test_ctrl_c_says_what_is_kept() -> None:
    """Typer ends with 130 and without a word by itself."""
    code = (
        "import os, signal, typer\n"
        "from finetune.core.console import run_app, told_when_interrupted\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def wait(own: bool = False):\n"
        "    if own:\n"
        "        with told_when_interrupted(lambda: 'nothing was written'):\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "run_app(app)\n"
    )
    for words, told in (([], "goes on from what is finished"), (["--own"], "nothing was written")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert done.returncode == 130
        assert done.stderr.count("interrupted; ") == 1
        assert told in done.stderr


def test_a_warning_of_any_library_is_not_ours_to_print() -> None:
    code = (
        "import logging, typer\nfrom finetune.core.console import run_app\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def speak():\n"
        "    logging.getLogger('huggingface_hub.repocard').warning('Repo card metadata')\n"
        "    logging.getLogger('of.one.nobody.knows').error('a real fault')\n"
        "run_app(app)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "Repo card" not in done.stderr
    assert "a real fault" in done.stderr


def test_a_recipe_is_shown_by_what_differs_from_the_defaults() -> None:
    recipe = load_recipe(FinetuneRecipe, "demo-lora", ["training.epochs=1.5"])
    shown = describe_recipe(recipe)
    assert len(shown.splitlines()) < len(dump_recipe(recipe).splitlines()) / 2
    assert "epochs: 1.5" in shown
    assert "weight_decay" not in shown
    assert FinetuneRecipe.model_validate(parse_yaml(shown, "shown")) == recipe
    assert describe_recipe(recipe, verbose=True) == dump_recipe(recipe)


@pytest.mark.parametrize(
    ("text", "size"),
    [("6", 6 << 30), ("6GB", 6 * 10**9), ("8GiB", 8 << 30), ("800MiB", 800 << 20), (".5", 1 << 29)],
)
def test_memory_without_a_unit_is_in_gib(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["0", "-6", "6 apples", "", "nan"])
def test_memory_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="in GiB where no unit is given"):
        parse_bytes(text)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_plan_that_fits_nothing_is_exit_1(form: list[str]) -> None:
    words = ["plan", "demo-lora", "--memory", "1MiB", "--no-probe", *form]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, GateError), done.exception
    assert done.exception.exit_code == 1
    if form:
        assert json.loads(done.stdout)
    else:
        assert "Nothing fits" in done.stdout


def test_a_recording_that_is_not_there_is_not_its_own_hint() -> None:
    done = CliRunner().invoke(app, ["transcribe", "nofile.wav"])
    assert isinstance(done.exception, DataError)
    assert "nofile.wav" not in done.exception.next_step
    assert "no such recording" in str(done.exception)
