"""From recipes to a report: stages that are done stay done, an interrupted suite goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.benchmark import check_target, run_benchmark
from bench.settings import UNMEASURED
from bench.suites.recipe import SuiteRecipe, resolve_recipes, suite_recipes, wanted_exports
from bench.suites.stage_launch import StageProcess
from bench.suites.stages import (
    Record,
    adopt_run,
    bench_key,
    export_key,
    finetune_key,
    finish,
    read_record,
    record_path,
)
from finetune.core.errors import GateError, KotuneError
from finetune.core.files import write_text
from finetune.recipes.files import dump_recipe
from finetune.recipes.sections import Recipe
from finetune.studies.seeds import check_summary, runs_of_seeds, seed_recipes

Report = Callable[[str], None]


class StageFailed(KotuneError):
    """A stage process ended with an error, which it has told; its exit code goes on."""

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(what, next_step="the same command goes on from what is finished")
        self.exit_code = exit_code


@dataclass(frozen=True)
class Job:
    """One recipe's way through the suite: where its run and its artifact will lie."""

    recipe: Recipe
    run: Path
    artifact: Path | None


def run_suite(
    suite: SuiteRecipe,
    *,
    beside: Path = Path(),
    fresh: bool = False,
    measure_again: bool = False,
    report: Report = print,
) -> Path:
    """Run what is not done yet; the path of report.html.

    ``beside`` is the folder of the suite's file; ``fresh`` runs every stage again and replaces
    what stands in the way; ``measure_again`` benchmarks although nothing changed. Raises
    RecipeError and the like for wrong input, GateError at the end where an export crossed a gate.
    """
    jobs = plan_jobs(suite, resolve_recipes(suite, beside))
    check_target(suite.folder)
    several = [one for one in suite_recipes(suite, beside) if one.seeds]
    for recipe in several:
        check_summary(Path(recipe.folder))
    if fresh:
        forget_stages(suite, jobs)
    write_text(suite.folder / "suite.yaml", dump_recipe(suite))
    finished: list[Record] = []
    failures: list[str] = []
    before = {job.run: read_record("finetune", job.run) for job in jobs}
    with StageProcess() as process:
        for number, job in enumerate(jobs, start=1):
            where = f"{number}/{len(jobs)} {job.recipe.name}"
            records = finish_job(job, where, process, adopt=not fresh, report=report)
            finished += records
            failures += [f"{one.folder}: {one.failure}" for one in records if one.failure]
        trained = {run for run in before if read_record("finetune", run) != before[run]}
        for recipe in several:
            summarize_seeds(recipe, trained, process)
    page = benchmark_stage(suite, finished, measure_again=measure_again, report=report)
    if failures:
        raise GateError(
            f"an export crossed a limit; the report is {page}\n" + "\n".join(failures),
            next_step="export.max_accuracy_drop=… or another recipe",
        )
    return page


def plan_jobs(suite: SuiteRecipe, recipes: Sequence[Recipe]) -> list[Job]:
    """Where each recipe's outputs go; artifacts stand beside the runs' folder."""
    exported = wanted_exports(suite, list(recipes))
    jobs = []
    for recipe in recipes:
        run = Path(recipe.folder)
        artifact = run.parent.parent / "artifacts" / recipe.name
        jobs.append(Job(recipe, run, artifact if recipe.name in exported else None))
    return jobs


def forget_stages(suite: SuiteRecipe, jobs: Sequence[Job]) -> None:
    """Remove the records of a suite's stages, so that each runs again."""
    record_path("bench", suite.folder).unlink(missing_ok=True)
    for job in jobs:
        record_path("finetune", job.run).unlink(missing_ok=True)
        if job.artifact is not None:
            record_path("export", job.artifact).unlink(missing_ok=True)


def finish_job(
    job: Job, where: str, process: StageProcess, *, adopt: bool, report: Report
) -> list[Record]:
    """The records of a recipe's run and artifact, made now unless they are done.

    ``adopt`` takes over a run that was made by hand. Raises StageFailed, and FolderError where
    another run is in the way.
    """
    run, artifact = finished_stages(job, adopt=adopt)
    if run is None or (job.artifact is not None and artifact is None):
        told = f"{where} done before; " if run else f"{where} "
        report(told + ("export" if run else "train") + (" and export" if not run else ""))
        began = time.perf_counter()
        code = process.run(job.recipe, job.artifact)
        run, artifact = finished_stages(job, adopt=False)
        if code not in (0, GateError.exit_code) or run is None:
            raise StageFailed(f"{where} has failed", code)
        if job.artifact is not None and artifact is None:
            raise StageFailed(f"the export of {where} has failed", code)
        report(f"{where} done in {time.perf_counter() - began:.0f} s")
    else:
        report(f"{where} unchanged since {run.folder} was made; not run again")
    return [run, *([artifact] if artifact else [])]


def summarize_seeds(recipe: Recipe, trained: set[Path], process: StageProcess) -> None:
    """Write the recipe's seeds.json, unless it has one and none of its runs was made now.

    Raises StageFailed.
    """
    runs = [Path(one.folder) for one in seed_recipes(recipe)]
    if runs_of_seeds(Path(recipe.folder)) == runs and not trained.intersection(runs):
        return
    code = process.run(recipe, None)
    if code:
        raise StageFailed(f"the summary of {recipe.name} has failed", code)


def finished_stages(job: Job, *, adopt: bool) -> tuple[Record | None, Record | None]:
    """The run and the artifact of a job, each None where it has to be made."""
    key = finetune_key(job.recipe)
    run = read_record("finetune", job.run)
    if run is None and adopt:
        run = adopt_run(job.recipe, key)
    if run is None or run.key != key:
        return None, None
    if job.artifact is None:
        return run, None
    artifact = read_record("export", job.artifact)
    if artifact is None or artifact.key != export_key(run, job.recipe):
        return run, None
    return run, artifact


def benchmark_stage(
    suite: SuiteRecipe, inputs: Sequence[Record], *, measure_again: bool, report: Report
) -> Path:
    """Measure unless nothing has changed; the path of report.html."""
    from bench.report.writing import write_report

    section = suite.bench.model_dump(mode="json", exclude=UNMEASURED)
    key = bench_key(list(inputs), section)
    done = read_record("bench", suite.folder)
    if done is not None and done.key == key and not measure_again:
        report(f"bench unchanged since {done.folder} was made; not run again")
        return write_report(suite.folder, where=suite.bench.where)
    report("bench")
    began = time.perf_counter()
    folders = [one.folder for one in inputs]
    page = run_benchmark(folders, suite.bench, suite.folder, name=suite.name, report=report)
    seconds = time.perf_counter() - began
    finish("bench", key, suite.folder, suite.folder, seconds)
    report(f"bench done in {seconds:.0f} s")
    return page
