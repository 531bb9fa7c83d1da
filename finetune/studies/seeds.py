"""One recipe, several seeds: an ordinary run for each, and what they say together.

The seed decides everything that is drawn: rows and split, head and adapter, order, dropout. The
deviation over seeds is what another draw of all of these would change. ``data.seed`` keeps rows
and split the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finetune.core.errors import FolderError, RecipeError
from finetune.core.files import read_json, write_json
from finetune.recipes.sections import Recipe

SCHEMA = "kotune.seeds/1"
DOCUMENT = "seeds.json"
SPLITS = ("validation", "test")
FIGURES = {"accuracy": "share", "f1_macro": "share", "loss": "positive"}  # where each can lie


def seed_recipes(recipe: Recipe) -> list[Recipe]:
    """The recipe of each seed: name and folder end in ``-seed-N``; itself where it has one."""
    if recipe.seeds is None:
        return [recipe]
    return [
        recipe.model_copy(
            update={
                "name": f"{recipe.name}-seed-{seed}",
                "seed": seed,
                "seeds": None,
                "output": f"{recipe.folder}-seed-{seed}",
            }
        )
        for seed in recipe.seeds
    ]


def finetune_seeds(
    recipe: Recipe, *, overwrite: bool = False, report: Callable[[str], None] = print
) -> Path:
    """Train each seed that is not finished, then summarise; the summary's folder.

    Raises what ``finetune`` raises, and FolderError where a run of another recipe is in the way.
    """
    from finetune.training import finetune

    summary, recipes = Path(recipe.folder), seed_recipes(recipe)
    _check_summary(summary)
    done = [] if overwrite else [one for one in recipes if is_finished(one)]
    for number, one in enumerate(recipes, start=1):
        where = f"seed {one.seed} ({number} of {len(recipes)})"
        if one in done:
            report(f"{where} finished before in {one.folder}; not run again")
            continue
        report(where)
        finetune(one, overwrite=overwrite, report=report)
    content = summarize_runs(recipe.name, [Path(one.folder) for one in recipes])
    write_json(summary / DOCUMENT, SCHEMA, content)
    for line in table_lines(content):
        report(line)
    report(f"summary {summary / DOCUMENT}")
    return summary


def refuse_several_processes(recipe: Recipe, processes: int) -> None:
    """Seeds run one after another in one process; raises RecipeError for more."""
    if processes > 1:
        one = seed_recipes(recipe)[0]
        raise RecipeError(
            "seeds are trained one after another in a single process",
            received=f"{len(recipe.seeds)} seeds, {processes} processes",
            next_step=f"seeds=null seed={one.seed} name={one.name}, once for each",
        )


def is_finished(recipe: Recipe) -> bool:
    """Whether the recipe's run exists; raises FolderError where another recipe made it."""
    from finetune.run_folder import open_run

    folder = Path(recipe.folder)
    if not (folder / "run.json").is_file():
        return False
    ours, theirs = (
        one.model_dump(mode="json", exclude={"export"}) for one in (recipe, open_run(folder).recipe)
    )
    if ours != theirs:
        changed = [key for key in ours if ours[key] != theirs[key]]
        raise FolderError(
            "the run of this seed was made by another recipe",
            received=f"{folder}, which differs in {', '.join(changed)}",
            next_step="--overwrite to train all seeds again, or another name=…",
        )
    return True


def summarize_runs(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Figures of each run, and their mean, deviation and interval over the runs."""
    from finetune.metrics.classification import CONFIDENCE
    from finetune.metrics.intervals import mean_interval
    from finetune.run_folder import open_run, read_document

    entries = []
    for folder in folders:
        run = open_run(folder)
        metrics = read_document(run, "metrics.json")
        entries.append(
            {
                "seed": run.recipe.seed,
                "run": folder.name,
                "data_fingerprint": run.info["data_fingerprint"],
                "steps": run.info["steps"],
                "training_time_s": run.info["training_time_s"],
                **{
                    split: {figure: metrics[split]["all"][figure] for figure in FIGURES}
                    for split in SPLITS
                },
            }
        )
    summary: dict[str, Any] = {}
    for split in SPLITS:
        summary[split] = {}
        for figure, within in FIGURES.items():
            values = [entry[split][figure] for entry in entries]
            mean, deviation, interval = mean_interval(values, within)
            summary[split][figure] = {
                "mean": mean,
                "deviation": deviation,
                "range": [min(values), max(values)],
                "interval": interval,
            }
    return {
        "name": name,
        "method": run.method,
        "seeds": entries,
        "confidence": CONFIDENCE,
        "summary": summary,
    }


def table_lines(content: dict[str, Any]) -> list[str]:
    """The summary as a table for a terminal: one line a seed, then mean and deviation."""
    heads = [f"{split} {what}" for split in SPLITS for what in ("accuracy", "macro F1")]
    entries, summary = content["seeds"], content["summary"]
    rows = [("seed", heads)]
    rows += [(str(entry["seed"]), _cells([entry[split] for split in SPLITS])) for entry in entries]
    for name in ("mean", "deviation") if len(entries) > 1 else ("mean",):
        figures = [
            {figure: values[name] for figure, values in summary[split].items()} for split in SPLITS
        ]
        rows.append((name, _cells(figures)))
    lines = [f"{name:<10}" + "".join(f"{cell:>21}" for cell in cells) for name, cells in rows]
    if len(entries) > 1:
        lines.append(_told_interval(content))
    return lines


def _told_interval(content: dict[str, Any]) -> str:
    """What the seeds say of the mean test accuracy: range, and interval where they differ."""
    found, count = content["summary"]["test"]["accuracy"], len(content["seeds"])
    accuracies = [entry["test"]["accuracy"] for entry in content["seeds"]]
    told = f"test accuracy over {count} seeds: {min(accuracies):.2%} to {max(accuracies):.2%}"
    if found["interval"] is None:
        return f"{told}; all alike, which says nothing of how seeds differ"
    low, high = found["interval"]
    share = f"{100 * content['confidence']:g} %"
    return f"{told}; {share} interval of the mean {low:.2%} to {high:.2%} (t on the logit scale)"


def _cells(splits: Sequence[dict[str, float]]) -> list[str]:
    return [cell for one in splits for cell in (f"{one['accuracy']:.2%}", f"{one['f1_macro']:.4f}")]


def runs_of_seeds(folder: Path) -> list[Path]:
    """The run folders that a summary names; none where the folder is no summary."""
    if not (folder / DOCUMENT).is_file():
        return []
    content = read_json(folder / DOCUMENT, SCHEMA)
    return [folder.parent / entry["run"] for entry in content["seeds"]]


def _check_summary(folder: Path) -> None:
    """Refuse a folder of something else; raises FolderError."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / DOCUMENT).is_file():
        raise FolderError(
            "output is in use by something that is not a summary of seeds",
            received=folder,
            next_step="another name=… or output=…",
        )
