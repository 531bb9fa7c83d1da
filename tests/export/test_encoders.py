"""Every encoder family the whole way, tiny: `make encoders` runs this and writes docs/encoders.md.

Trained with full, LoRA and QLoRA, saved and read back (finetune does both), merged, exported,
fused, quantised in every way, opened by the runtime. What is refused is refused in one message.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from architectures import FAMILIES, write_family

from export.exporting import export_run
from export.predict import predict_texts
from finetune.core.errors import GateError, KotuneError
from finetune.core.libraries import has_optimum
from finetune.recipes.text import FinetuneRecipe
from finetune.training import finetune

METHODS = ("full", "lora", "qlora")
QUANTISED = {
    "int8-dynamic": "int8",
    "int8-static": "int8-static",
    "int8-weight": "int8-weight",
    "openvino-int8": "openvino-int8",
}
TABLE = Path(__file__).parents[2] / "docs" / "encoders.md"
HEAD = """# Encoder families

Made by `make encoders` (transformers 4.57, Optimum's export) and `make encoders-transformers5`
(transformers 5, kotune's own). Every family is a random model of two layers with a tokenizer of
its kind, trained for a few steps, stored, read back, merged, exported, fused, quantised, checked
by the export's ladder and opened by the runtime (`tests/export/test_encoders.py`). A dash: not
tried, since a step before it was refused. *fused*: attentions of two layers that became one
operator; files are made from the plain graph where it is 0.
"""


@dataclass
class Row:
    """A line of the table."""

    cells: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, Row]]:
    """Family → row; written where KOTUNE_ENCODERS says so, once all of them ran."""
    rows: dict[str, Row] = {}
    yield rows
    if os.environ.get("KOTUNE_ENCODERS") and rows.keys() == FAMILIES.keys():
        write_table(rows)


def recipe(base: Path, reviews: Path, output: Path, method: str) -> FinetuneRecipe:
    return FinetuneRecipe.model_validate(
        {
            "name": output.name,
            "output": str(output),
            "model": {"source": str(base), "max_length": 32},
            "data": {"path": str(reviews), "validation_size": 0.25, "test_size": 0.1},
            "adapter": {"method": method, "rank": 4, "alpha": 8},
            "training": {
                "max_steps": 20,
                "batch_size": 16,
                "learning_rate": 5e-4 if method == "full" else 5e-3,
                "device": "cpu",
                "precision": "fp32",
            },
        }
    )


def first_line(fault: BaseException) -> str:
    return str(fault).splitlines()[0]


def train(row: Row, base: Path, reviews: Path, folder: Path, method: str) -> Path | None:
    """The run, read back by its own training; None where the family is refused."""
    try:
        run = finetune(recipe(base, reviews, folder / method, method), report=lambda line: None)
    except KotuneError as fault:
        row.cells[method] = "refused"
        row.notes.append(f"{method}: {first_line(fault)}")
        return None
    row.cells[method] = "yes"
    return run


def export(row: Row, run: Path, target: Path, precisions: str) -> Any | None:
    """The manifest of the artifact; None where the export is refused or a check failed."""
    overrides = [f"precisions=[{precisions}]", "max_accuracy_drop=1", "max_unstable_labels=1"]
    try:
        artifact = export_run(run, target, overrides=overrides)
    except GateError as fault:
        row.notes.append(f"{run.name}: {' '.join(str(fault).split())[:160]}")
        return None
    except KotuneError as fault:
        row.notes.append(f"{run.name}, export: {first_line(fault)}")
        return None
    texts = ["최고 영화", "지루하다 " * 40, ""]
    for file in artifact.manifest.files:
        assert len(predict_texts(target, texts, precision=file)) == len(texts)
    return artifact.manifest


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_the_whole_way(
    name: str, table: dict[str, Row], reviews: Path, tmp_path: Path
) -> None:
    row = table.setdefault(name, Row())
    try:
        base = write_family(name, tmp_path / "base", reviews)
    except pytest.skip.Exception as absent:
        row.notes.append(absent.msg)
        raise
    check_family(row, name, base, reviews, tmp_path)
    shutil.rmtree(tmp_path)  # twelve families would fill a small disk


def check_family(row: Row, name: str, base: Path, reviews: Path, folder: Path) -> None:
    runs = {method: train(row, base, reviews, folder, method) for method in METHODS}
    assert all(runs.values()), row.notes
    whole = export(row, runs["lora"], folder / "lora-onnx", ",".join(QUANTISED))
    made = whole.files if whole else {}
    row.cells["fp32"] = "yes" if "fp32" in made else "refused"
    row.cells["fused"] = str(whole.fused_attentions) if whole else "–"
    for precision, file in QUANTISED.items():
        row.cells[precision] = "yes" if file in made else "–"
    if not FAMILIES[name].exported:
        assert row.notes and "yes" not in row.cells["fp32"]
        return
    assert whole, row.notes
    assert whole.fused_attentions == FAMILIES[name].fused
    assert set(QUANTISED.values()) < set(made)
    for method in ("full", "qlora"):
        assert export(row, runs[method], folder / f"{method}-onnx", "int8-dynamic"), row.notes


def write_table(rows: dict[str, Row]) -> None:
    """This major's section of docs/encoders.md; the other's stays as it is."""
    major = version("transformers").split(".")[0]
    sections = dict.fromkeys(("4", "5"), "")
    if TABLE.is_file():
        for part in TABLE.read_text("utf-8").split("\n## ")[1:]:
            sections[part.removeprefix("transformers ")[0]] = f"\n## {part.rstrip()}\n"
    route = f"Optimum {version('optimum-onnx')}" if has_optimum() else "torch.onnx.export"
    columns = [*METHODS, "fp32", "fused", *QUANTISED]
    lines = [
        f"\n## transformers {version('transformers')}, exported by {route}\n",
        f"| family | {' | '.join(columns)} |",
        f"|--------|{'|'.join('---' for _ in columns)}|",
    ]
    lines += [
        f"| {name} | {' | '.join(row.cells.get(column, '–') for column in columns)} |"
        for name, row in rows.items()
    ]
    notes = [f"- {name}: {note}" for name, row in rows.items() for note in dict.fromkeys(row.notes)]
    sections[major] = "\n".join([*lines, "", *notes]) + "\n"
    TABLE.write_text(HEAD + sections["4"] + sections["5"], "utf-8")
