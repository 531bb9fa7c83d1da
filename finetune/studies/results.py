"""What a sweep leaves behind: sweep.json, and from it trials.csv, trials.md and best.yaml."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from finetune.core.escaping import csv_cell, markdown_cell
from finetune.core.files import write_json, write_text
from finetune.recipes.sections import Recipe

SCHEMA = "kotune.sweep/1"
DOCUMENT = "sweep.json"
FACTS = ("trainable_parameters", "steps", "seconds", "same_as", "fault")


def finished_trials(study: Any) -> list[Any]:
    """Trials with an outcome: a value, pruned, or a fault of their own; not those cut off."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name in ("COMPLETE", "PRUNED") or "fault" in trial.user_attrs
    ]


def number_trials(study: Any) -> dict[int, int]:
    """Optuna's number of each finished trial → the one it is told by: 1, 2, 3, none left out."""
    return {one.number: place for place, one in enumerate(finished_trials(study), start=1)}


def describe_trials(study: Any) -> list[dict[str, Any]]:
    """Every trial with an outcome, the best first, those without a value last."""
    from optuna.study import StudyDirection

    numbers = number_trials(study)
    entries = [
        {
            "trial": numbers[trial.number],
            "state": "failed" if trial.state.name == "FAIL" else trial.state.name.lower(),
            "value": trial.value if trial.state.name == "COMPLETE" else None,
            "parameters": trial.params,
            "evaluations": {str(step): value for step, value in trial.intermediate_values.items()},
            **{key: trial.user_attrs.get(key) for key in FACTS},
        }
        for trial in finished_trials(study)
    ]
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
    return sorted(
        entries, key=lambda one: (one["value"] is None, sign * (one["value"] or 0), one["trial"])
    )


def write_results(
    folder: Path, recipe: Recipe, trials: list[dict[str, Any]], best: str | None
) -> None:
    """Write what is known so far; ``best`` is the best trial's recipe."""
    metric = recipe.metric
    write_json(folder / DOCUMENT, SCHEMA, {"name": recipe.name, "metric": metric, "trials": trials})
    rows = _rows(trials)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [csv_cell(cell) for cell in row] for row in rows
    )
    write_text(folder / "trials.csv", text.getvalue())
    write_text(folder / "trials.md", _markdown(recipe, rows))
    if best is not None:
        path = folder / "best.yaml"
        head = (
            f"# kotune finetune {path}\n# The best of {len(trials)} trials by validation {metric}"
        )
        write_text(path, f"{head}\n{best}")


def _rows(trials: list[dict[str, Any]]) -> list[list[str]]:
    """Head and one row a trial, as text."""
    keys = list(dict.fromkeys(key for one in trials for key in one["parameters"]))
    rows = [["trial", "state", "value", *keys, *FACTS]]
    for one in trials:
        cells = [one["trial"], one["state"], one["value"]]
        cells += [one["parameters"].get(key) for key in keys] + [one[key] for key in FACTS]
        rows.append(["" if cell is None else _short(cell) for cell in cells])
    return rows


def table_lines(trials: list[dict[str, Any]]) -> list[str]:
    """The table for a terminal: the best trial first, columns that nobody fills left out."""
    head, *body = _rows(trials)
    present = [index for index in range(len(head)) if any(row[index] for row in body)]
    widths = {index: max(len(row[index]) for row in (head, *body)) for index in present}
    return [
        "  ".join(row[index].ljust(widths[index]) for index in present).rstrip()
        for row in (head, *body)
    ]


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _markdown(recipe: Recipe, rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(map(markdown_cell, cells)) + " |"

    head, *body = rows
    return "\n".join(
        [
            f"# Sweep {recipe.name}",
            "",
            f"Value: the best validation {recipe.metric} of a trial. No trial has "
            "seen a test row: the figure to report is that of a run of best.yaml.",
            "",
            line(head),
            line(["---"] * len(head)),
            *(line(row) for row in body),
            "",
        ]
    )
