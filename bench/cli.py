"""Commands of this stage: run a suite, benchmark folders, make a report again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.report.command import Where, report_command, tell_selection
from finetune.core.console import say, told_when_interrupted
from finetune.core.errors import RecipeError

if TYPE_CHECKING:
    from bench.suites.recipe import SuiteRecipe

Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub=value, e.g. bench.rounds=5")]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="run every stage again, replacing runs of the same name")
]

Verbose = Annotated[
    bool, typer.Option("--verbose", help="print the whole suite, defaults included")
]


def register(app: typer.Typer) -> None:
    """Add this stage's commands to the front door."""
    from bench.comparing.command import compare_command

    app.command("run")(run_command)
    app.command("bench")(bench_command)
    app.command("report")(report_command)
    app.command("compare")(compare_command)


def run_command(
    suite: str, overrides: Overrides = None, fresh: Fresh = False, verbose: Verbose = False
) -> None:
    """Go from the recipes of SUITE to a report; what is done already is not run again."""
    _run_suite(suite, overrides or [], fresh=fresh, verbose=verbose)


def bench_command(
    what: Annotated[
        list[str],
        typer.Argument(
            help="a suite, or run and artifact folders; then key=value, e.g. rounds=5. "
            "`training SUITE` measures trainings, `plan SUITE` the planner"
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", help="report folder; reports/NAME by default")
    ] = None,
    where: Where = None,
    epochs: Annotated[
        float | None, typer.Option(help="with `training`: also train each case so many epochs")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Measure and compare: accuracy, latency, throughput, size and memory of every variant."""
    folders, overrides = split_arguments(what)
    if folders[0] in ("training", "plan"):
        _end_cleanly()
        if output is not None:
            overrides = [*overrides, f"output={output}"]
        page = _run_training_suite(folders, overrides, epochs=epochs, verbose=verbose)
        say(f"[bold]{page}[/]")
        return
    is_suite = len(folders) == 1 and not Path(folders[0]).is_dir()
    if where is not None:
        key = "bench.where" if is_suite else "where"
        overrides = [*overrides, f"{key}={json.dumps(where)}"]
    if is_suite:
        if output is not None:
            overrides = [*overrides, f"output={output}"]
        _run_suite(folders[0], overrides, measure_again=True, verbose=verbose)
        return
    from bench.benchmark import run_benchmark
    from bench.rounds.checkpoint import kept_words
    from bench.settings import folder_settings
    from bench.tasks.registry import task_of_folders

    _end_cleanly()
    task = task_of_folders([Path(folder) for folder in folders])
    settings = folder_settings(overrides, task.settings)
    names = dict.fromkeys(Path(folder).name for folder in folders)
    target = output or Path("reports") / "-".join(names)
    with told_when_interrupted(lambda: kept_words(target)):
        page = run_benchmark(folders, settings, target, report=_report)
    _tell_page(page, settings.where)


def split_arguments(words: list[str]) -> tuple[list[str], list[str]]:
    """Folders or a suite, and ``key=value`` overrides; raises RecipeError without the first."""
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    folders = [word for word in words if word not in overrides]
    if not folders:
        raise RecipeError(
            "nothing to benchmark", next_step="kotune bench runs/NAME, or kotune run SUITE"
        )
    return folders, overrides


def load_suite(name: str, overrides: list[str]) -> tuple[SuiteRecipe, Path]:
    """A suite and the folder its file stands in; raises RecipeError."""
    from bench.suites.recipe import suite_kind
    from finetune.recipes.files import apply_overrides, check_recipe, find_recipe, read_yaml

    try:
        path = find_recipe(name)
    except RecipeError as fault:
        raise RecipeError(
            "neither a suite nor a run or artifact folder",
            received=name,
            allowed=fault.allowed,
            next_step="kotune ls",
        ) from fault
    content = apply_overrides(read_yaml(path), overrides)
    return check_recipe(suite_kind(content, path.parent), content, name), path.parent


def _run_suite(
    name: str,
    overrides: list[str],
    *,
    verbose: bool,
    fresh: bool = False,
    measure_again: bool = False,
) -> None:
    from bench.suites.suite import run_suite
    from finetune.recipes.files import describe_recipe

    _end_cleanly()
    suite, beside = load_suite(name, overrides)
    typer.echo(describe_recipe(suite, verbose=verbose))
    page = run_suite(suite, beside=beside, fresh=fresh, measure_again=measure_again, report=_report)
    _tell_page(page, suite.bench.where)


def _run_training_suite(
    words: list[str], overrides: list[str], *, epochs: float | None, verbose: bool
) -> Path:
    """Load the suite that stands behind ``training`` or ``plan``, run it; its report's path."""
    from bench.training.suite import PlanSuite, TrainingSuite
    from finetune.recipes.files import describe_recipe, find_recipe, load_recipe

    kind, *names = words
    if len(names) != 1:
        raise RecipeError(
            f"kotune bench {kind} takes one suite",
            received=" ".join(names) or None,
            next_step=f"kotune bench {kind} bench/{kind}-roberta-large",
        )
    if epochs is not None and (kind == "plan" or epochs <= 0):
        raise RecipeError("--epochs is a number above 0, for `training`", received=epochs)
    beside = find_recipe(names[0]).parent
    if kind == "plan":
        from bench.training.plan_accuracy import run_plan_bench

        plan_suite = load_recipe(PlanSuite, names[0], overrides)
        typer.echo(describe_recipe(plan_suite, verbose=verbose))
        return run_plan_bench(plan_suite, beside, report=_report)
    from bench.training.training import run_training_bench

    suite = load_recipe(TrainingSuite, names[0], overrides)
    typer.echo(describe_recipe(suite, verbose=verbose))
    return run_training_bench(suite, beside, epochs=epochs, report=_report)


def _tell_page(page: Path, where: str | None) -> None:
    """Where the report is, and which variant satisfies the conditions, if there are any."""
    say(f"[bold]{page}[/]")
    if where is not None:
        tell_selection(page.parent, where)


def _end_cleanly() -> None:
    """A termination signal unwinds like Ctrl-C: temporary folders go, workers end."""
    import signal

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def _report(line: str) -> None:
    """Headlines bold, what stands indented below them plain."""
    from rich.markup import escape

    say(escape(line) if line.startswith(" ") else f"[bold]{escape(line)}[/]")
