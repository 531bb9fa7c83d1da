"""A package of one's own adds a method, a metric, a quantisation, a runtime and a task."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USE = """
import json, sys
import kotune
recipe, folder = json.loads(sys.argv[1]), sys.argv[2]
run = kotune.finetune(recipe)
limits = {"max_accuracy_drop": 1, "max_flipped_above_margin": 1, "max_unstable_labels": 1}
artifact = kotune.export(run, f"{folder}/artifact", precisions=["int8-tensor"], **limits)
report = kotune.benchmark(
    [run, artifact],
    f"{folder}/report",
    variants=["orthogonal-onnx-int8-tensor", "orthogonal-single-int8-tensor"],
    processes=1, rounds=1, latency_rows=4, throughput_rows=0, warmup_s=0.1,
    target_half_width=None, noise_pair=False,
)
answers = {one["name"]: one["predicted"] for one in report.results["variants"]}
assert answers["orthogonal-single-int8-tensor"], report.results["variants"]
print(json.dumps({"answers": answers, "precisions": artifact.precisions}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as pip installs it, without a network."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(ROOT / "examples" / "plugin", source)
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def run_python(path: list[Path], *words: str) -> subprocess.CompletedProcess[str]:
    joined = os.pathsep.join(map(str, (ROOT, *path)))
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": joined, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )


def test_a_plugin_goes_all_the_way(
    installed: Path, make_base: Callable[[str], Path], reviews: Path, tmp_path: Path
) -> None:
    recipe = {
        "name": "plugged",
        "output": str(tmp_path / "run"),
        "model": {"source": str(make_base("roberta")), "max_length": 32},
        "data": {"path": str(reviews), "test_size": 40},
        "adapter": {"method": "orthogonal", "rank": 4, "alpha": 8},
        "training": {
            "max_steps": 3,
            "device": "cpu",
            "precision": "fp32",
            "best_metric": "balanced_accuracy",
        },
    }
    done = run_python([installed], "-c", USE, json.dumps(recipe), str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["precisions"] == ["fp32", "int8-tensor"]
    assert len(told["answers"]["orthogonal-single-int8-tensor"]) == 40
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))
    assert 0 <= metrics["test"]["all"]["balanced_accuracy"] <= 1
    assert "balanced_accuracy" in metrics["best"]
    files = json.loads((tmp_path / "artifact" / "manifest.json").read_text("utf-8"))["files"]
    assert files["int8-tensor"]["scales"] == "tensor"
    assert files["int8-tensor"]["path"] == "onnx/model_int8-tensor.onnx"


def test_a_plugin_s_names_are_those_of_the_recipe(installed: Path) -> None:
    listed = run_python([installed], "-m", "kotune", "methods")
    assert "orthogonal" in listed.stdout and "PEFT, init_lora_weights" in listed.stdout
    code = (
        "from finetune.tasks.registry import recipe_kind; import sys\n"
        "print(recipe_kind({'task': 'reviews'}).__name__, 'torch' in sys.modules)"
    )
    assert run_python([installed], "-c", code).stdout.split() == ["ReviewsRecipe", "False"]
    assert "orthogonal" not in run_python([], "-m", "kotune", "methods").stdout


def write_plugin(folder: Path, name: str, source: str, group: str, entry: str) -> Path:
    """A package as pip leaves one: a module and its metadata."""
    folder.mkdir()
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    facts = folder / f"{name}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[{group}]\n{entry} = {name}:THING\n")
    return folder


@pytest.mark.parametrize(
    ("source", "entry", "told"),
    [
        ("import nowhere", "broken", ["the plugin broken of mine", "No module named 'nowhere'"]),
        ("1 / 0", "broken", ["ZeroDivisionError", "mine.py, line 1", "pip uninstall mine"]),
        ("OTHER = 1", "broken", ["has no attribute 'THING'"]),
        ("THING = 3", "broken", ["mine:THING: int", "finetune.recipes.methods.Method"]),
        ("THING = 3", "lora", ["two packages add lora", "kotune, mine"]),
    ],
)
def test_a_broken_plugin_is_named_with_what_it_did(
    tmp_path: Path, source: str, entry: str, told: list[str]
) -> None:
    place = write_plugin(tmp_path / "site", "mine", source, "kotune.methods", entry)
    done = run_python([place], "-m", "kotune", "methods")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    assert all(one in said for one in told), said
    assert run_python([place], "-m", "kotune", "ls").returncode == 0  # nothing asked for it
