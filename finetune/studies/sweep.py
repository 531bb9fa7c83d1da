"""A small search over a few keys of a recipe, through Optuna: validation only, resumable.

Each trial trains as a run would, but stores no weights and predicts no test row. Its value is the
best evaluation of the recipe's ``best_metric``, which is what a run keeps.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.core.errors import FolderError, KotuneError, ModelError
from finetune.core.files import write_text
from finetune.core.output_lock import lock_output
from finetune.recipes.files import check_recipe, dump_recipe, read_yaml
from finetune.recipes.sections import Recipe, SweepSection
from finetune.recipes.yaml_text import write_yaml
from finetune.studies.results import (
    DOCUMENT,
    describe_trials,
    finished_trials,
    number_trials,
    table_lines,
    write_results,
)
from finetune.studies.space import (
    Space,
    apply_parameters,
    combinations,
    parse_space,
)
from finetune.tasks.registry import recipe_kind

Report = Callable[[str], None]
RECIPE, STORE = "sweep.yaml", "study.db"


def run_sweep(
    content: dict[str, Any],
    section: SweepSection,
    *,
    origin: str = "recipe",
    overwrite: bool = False,
    report: Report = print,
) -> Path:
    """Run the trials that are not done yet; the sweep folder, with its table and best.yaml.

    ``content`` is the recipe as read from YAML. Raises KotuneError where Optuna is missing,
    FolderError where the folder holds another sweep, ModelError where no trial finished.
    """
    _import_optuna()
    recipe = check_recipe(recipe_kind(content), content, origin)
    folder, space = (
        Path(section.output.format(name=recipe.name)),
        parse_space(section.parameters),
    )
    with lock_output(folder):
        prepare_folder(folder, recipe, section, overwrite=overwrite)
        return _run_trials(content, section, recipe, folder, space, report)


def _run_trials(
    content: dict[str, Any],
    section: SweepSection,
    recipe: Recipe,
    folder: Path,
    space: Space,
    report: Report,
) -> Path:
    """Everything of a sweep whose folder is held."""
    study = open_study(folder, recipe, section)
    wanted = plan_trials(study, space, section.trials)
    report(
        f"sweep {folder}: {', '.join(space)} by validation {recipe.metric}, "
        f"{len(finished_trials(study))} of {wanted} trials done before"
    )
    while (number := len(finished_trials(study))) < wanted:
        run_next_trial(study, content, space, where=f"trial {number + 1}/{wanted}", report=report)
        write_results(folder, recipe, describe_trials(study), None)
    best = _best_recipe(study, content, space, recipe)
    trials = describe_trials(study)
    write_results(folder, recipe, trials, best)
    for line in table_lines(trials):
        report(line)
    number = number_trials(study)[study.best_trial.number]
    report(f"best: trial {number}, {study.best_value:.4f}; {folder / 'best.yaml'}")
    return folder


def prepare_folder(folder: Path, recipe: Recipe, section: SweepSection, *, overwrite: bool) -> None:
    """Make the sweep folder, or check that it holds this sweep; raises FolderError."""
    ours = {
        "recipe": recipe.model_dump(mode="json"),
        "sweep": section.model_dump(mode="json", exclude={"trials", "output"}),
    }
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / RECIPE).is_file():
            raise FolderError("output is in use by something that is not a sweep", received=folder)
        if overwrite:
            _remove_sweep(folder)
        elif (theirs := read_yaml(folder / RECIPE)) != ours:
            changed = [
                f"{part}.{key}"
                for part in ours
                for key in ours[part]
                if theirs.get(part, {}).get(key) != ours[part][key]
            ]
            raise FolderError(
                "the folder holds another sweep",
                received=f"{folder}, which differs in {', '.join(changed)}",
                next_step="--overwrite, or --output another folder",
            )
    write_text(folder / RECIPE, write_yaml(ours))


def _remove_sweep(folder: Path) -> None:
    """Remove a sweep's own files; FolderError, and nothing removed, where others lie there."""
    own = {RECIPE, STORE, DOCUMENT, "trials.csv", "trials.md", "best.yaml", f"{STORE}-journal"}
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in own)
    if foreign:
        raise FolderError(
            "--overwrite would remove what is not of the sweep",
            received=f"{folder}: {', '.join(foreign[:5])}",
            next_step="move it elsewhere, or --output another folder",
        )
    for path in folder.iterdir():
        path.unlink()


def open_study(folder: Path, recipe: Recipe, section: SweepSection) -> Any:
    """The study in the folder's SQLite file; what was running when it was cut off is queued."""
    optuna = _import_optuna()
    startup = section.startup_trials
    pruners = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=startup),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=5, max_resource=100),
        "none": optuna.pruners.NopPruner,
    }
    study = optuna.create_study(
        study_name=recipe.name,
        storage=f"sqlite:///{folder / STORE}",
        load_if_exists=True,
        direction="maximize" if recipe.greater_is_better else "minimize",
        pruner=pruners[section.pruner](),
    )
    study.set_user_attr("seed", recipe.seed)
    study.set_user_attr("startup_trials", startup)
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)
    return study


def plan_trials(study: Any, space: Space, trials: int) -> int:
    """How many trials there will be: all combinations, queued, where there are no more."""
    every = combinations(space)
    if every is None or len(every) > trials:
        return trials
    for parameters in every:
        study.enqueue_trial(parameters, skip_if_exists=True)
    return len(every)


def run_next_trial(
    study: Any, content: dict[str, Any], space: Space, *, where: str, report: Report
) -> None:
    """Draw the next trial's values, train, and tell the study how it went."""
    optuna = _import_optuna()
    states = optuna.trial.TrialState
    # seeded by the trial, so that a sweep that was cut off draws what an uncut one would
    seed = study.user_attrs["seed"] + len(study.get_trials(deepcopy=False))
    startup = study.user_attrs["startup_trials"]
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=startup, seed=seed)
    trial = study.ask()
    values = {key: one.suggest(trial, key) for key, one in space.items()}
    report(f"{where}: " + ", ".join(f"{key}={value}" for key, value in values.items()))
    twin = _same_parameters(study, trial)
    if twin is not None:
        number = number_trials(study)[twin.number]
        trial.set_user_attr("same_as", number)
        study.tell(trial, twin.value)
        report(f"  the same as trial {number}; not trained again")
        return
    began = time.perf_counter()
    try:
        value = train_trial(apply_parameters(content, values, where), trial)
    except optuna.TrialPruned:
        study.tell(trial, state=states.PRUNED)
        report("  pruned: behind the trials before")
    except KotuneError as fault:  # a combination that cannot be trained is an outcome too
        trial.set_user_attr("fault", fault.what)
        study.tell(trial, state=states.FAIL)
        report(f"  failed: {fault.what}")
    else:
        trial.set_user_attr("seconds", round(time.perf_counter() - began, 1))
        study.tell(trial, value)
        report(f"  validation {value:.4f}; best so far {study.best_value:.4f}")


def train_trial(recipe: Recipe, trial: Any) -> float:
    """The best evaluation on the validation rows; raises TrialPruned where the study gives up."""
    from transformers import set_seed

    from finetune.adapters.attach import count_parameters
    from finetune.studies.trial import ReportToStudy
    from finetune.tasks.task import Outcome, task_of
    from finetune.training import train_job

    task = task_of(recipe)
    job = task.prepare(recipe)
    with tempfile.TemporaryDirectory(prefix="kotune-trial-") as scratch:
        work = Path(scratch)
        set_seed(recipe.seed)
        built = task.build(job, work, _say_nothing)
        job = built.job
        trial.set_user_attr("trainable_parameters", count_parameters(built.model).trainable)
        evaluations = ReportToStudy(trial, task.watch(job, built).metric)
        checkpoint = train_job(task, job, built, work, _say_nothing, callbacks=[evaluations])
        state = Outcome.read(checkpoint, job.device).state
    trial.set_user_attr("steps", state.global_step)
    return float(state.best_metric)


def _say_nothing(line: str) -> None:
    """A trial's checkpoints are not worth a line."""


def _same_parameters(study: Any, trial: Any) -> Any | None:
    for other in study.get_trials(deepcopy=False):
        if other.state.name == "COMPLETE" and other.params == trial.params:
            return other
    return None


def _best_recipe(study: Any, content: dict[str, Any], space: Space, recipe: Recipe) -> str:
    """The best trial's recipe as YAML; raises ModelError where there is none."""
    try:
        trial = study.best_trial
    except ValueError as fault:
        last = finished_trials(study)[-1]
        raise ModelError(
            "no trial of the sweep has finished",
            received=last.user_attrs.get("fault", last.state.name.lower()),
            next_step="other --parameters, or sweep.pruner=none",
        ) from fault
    optuna = _import_optuna()
    values = {
        key: one.suggest(optuna.trial.FixedTrial(trial.params), key) for key, one in space.items()
    }
    best = apply_parameters(content, values, "the best trial")
    return dump_recipe(best.model_copy(update={"name": f"{recipe.name}-best"}))


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as fault:
        raise KotuneError(
            "kotune sweep needs Optuna", next_step="pip install 'kotune[sweep]'"
        ) from fault
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
