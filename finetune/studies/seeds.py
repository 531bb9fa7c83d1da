"""One recipe, several seeds: an ordinary run for each, and what they say together.

The seed decides everything that is drawn: rows and split, head and adapter, order, dropout. The
deviation over seeds is what another draw of all of these would change. ``data.seed`` keeps rows
and split the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import FolderError, RecipeError
from finetune.core.files import read_json, write_json
from finetune.recipes.sections import Recipe

if TYPE_CHECKING:
    from finetune.tasks.task import Measure

SCHEMA = "kotune.seeds/1"
DOCUMENT = "seeds.json"


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
    check_summary(summary)
    done = [] if overwrite else [one for one in recipes if is_finished(one)]
    for number, one in enumerate(recipes, start=1):
        where = f"seed {one.seed} ({number} of {len(recipes)})"
        if one in done:
            report(f"{where} finished before in {one.folder}; not run again")
            continue
        report(where)
        finetune(one, overwrite=overwrite, report=report)
    return write_summary(recipe, report=report)


def write_summary(recipe: Recipe, *, report: Callable[[str], None] = print) -> Path:
    """Summarise the finished runs of a recipe's seeds; the summary's folder."""
    from finetune.tasks.task import task_of

    folder = Path(recipe.folder)
    content = summarize_runs(recipe, [Path(one.folder) for one in seed_recipes(recipe)])
    write_json(folder / DOCUMENT, SCHEMA, content)
    for line in table_lines(content, task_of(recipe).measures):
        report(line)
    report(f"summary {folder / DOCUMENT}")
    return folder


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
    from finetune.tasks.task import task_of

    folder = Path(recipe.folder)
    found = task_of(recipe).read_finished(folder)
    if found is None:
        return False
    ours, theirs = (
        one.model_dump(mode="json", exclude={"export"}) for one in (recipe, found.recipe)
    )
    if ours != theirs:
        changed = [key for key in ours if ours[key] != theirs[key]]
        raise FolderError(
            "the run of this seed was made by another recipe",
            received=f"{folder}, which differs in {', '.join(changed)}",
            next_step="--overwrite to train all seeds again, or another name=…",
        )
    return True


def summarize_runs(recipe: Recipe, folders: Sequence[Path]) -> dict[str, Any]:
    """Figures of each run, and their mean, deviation and interval over the runs."""
    from finetune.metrics.classification import CONFIDENCE
    from finetune.metrics.intervals import mean_interval
    from finetune.tasks.task import task_of

    task = task_of(recipe)
    found = [task.read_finished(folder) for folder in folders]
    entries = [
        {
            "seed": one.recipe.seed,
            "run": folder.name,
            "data_fingerprint": one.data_fingerprint,
            "steps": one.steps,
            "training_time_s": one.training_time_s,
            **one.figures,
        }
        for folder, one in zip(folders, found, strict=True)
    ]
    summary: dict[str, Any] = {}
    for split in found[0].figures:
        summary[split] = {}
        for figure, measure in task.measures.items():
            values = [entry[split][figure] for entry in entries if figure in entry[split]]
            if len(values) < len(entries):  # a plugin's metric that was added between runs
                continue
            mean, deviation, interval = mean_interval(values, measure.within)
            summary[split][figure] = {
                "mean": mean,
                "deviation": deviation,
                "range": [min(values), max(values)],
                "interval": interval,
            }
    return {
        "name": recipe.name,
        "method": recipe.method,
        "seeds": entries,
        "confidence": CONFIDENCE,
        "summary": summary,
    }


def table_lines(content: dict[str, Any], measures: dict[str, Measure]) -> list[str]:
    """The summary as a table for a terminal: one line a seed, then mean and deviation."""
    entries, summary = content["seeds"], content["summary"]
    known = set.intersection(*(set(figures) for figures in summary.values()))
    shown = {figure: one for figure, one in measures.items() if one.shown and figure in known}

    def cells(splits: dict[str, dict[str, float]]) -> list[str]:
        return [
            format(splits[split][figure], one.form)
            for split in summary
            for figure, one in shown.items()
        ]

    rows = [("seed", [f"{split} {one.name}" for split in summary for one in shown.values()])]
    rows += [(str(entry["seed"]), cells(entry)) for entry in entries]
    for name in ("mean", "deviation") if len(entries) > 1 else ("mean",):
        figures = {
            split: {figure: values[name] for figure, values in summary[split].items()}
            for split in summary
        }
        rows.append((name, cells(figures)))
    lines = [f"{name:<10}" + "".join(f"{cell:>21}" for cell in row) for name, row in rows]
    if len(entries) > 1:
        lines.append(_told_interval(content, shown))
    return lines


def _told_interval(content: dict[str, Any], shown: dict[str, Measure]) -> str:
    """What the seeds say of the first figure of the last split: range, interval of its mean."""
    split, count = list(content["summary"])[-1], len(content["seeds"])
    figure, one = next(iter(shown.items()))
    found = content["summary"][split][figure]
    low, high = (format(value, one.form) for value in found["range"])
    told = f"{split} {one.name} over {count} seeds: {low} to {high}"
    if found["interval"] is None:
        return f"{told}; all alike, which says nothing of how seeds differ"
    low, high = (format(value, one.form) for value in found["interval"])
    share = f"{100 * content['confidence']:g} %"
    scale = "logit" if one.within == "share" else "log"
    return f"{told}; {share} interval of the mean {low} to {high} (t on the {scale} scale)"


def runs_of_seeds(folder: Path) -> list[Path]:
    """The run folders that a summary names; none where the folder is no summary."""
    if not (folder / DOCUMENT).is_file():
        return []
    content = read_json(folder / DOCUMENT, SCHEMA)
    return [folder.parent / entry["run"] for entry in content["seeds"]]


def check_summary(folder: Path) -> None:
    """Refuse a folder of something else; raises FolderError."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / DOCUMENT).is_file():
        raise FolderError(
            "output is in use by something that is not a summary of seeds",
            received=folder,
            next_step="another name=… or output=…",
        )
