"""Is the benchmark itself right? False differences, known differences, narrow intervals, its cost.

    python -m bench.comparing.proof aa artifacts/NAME  # thrice the same: no difference
    python -m bench.comparing.proof ab artifacts/NAME    # one of two 5 % slower: has to be found
    python -m bench.comparing.proof cost artifacts/NAME  # the harness against a bare loop

Each prints a Markdown page, command and machine included; progress goes to standard error. Exit
code 1 where the claim fails.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from bench.benchmark import make_plan
from bench.comparing.proof_report import (
    Repetition,
    cost_table,
    proof_page,
    repetition_line,
    repetition_table,
)
from bench.engines.prepare import prepare_variants
from bench.report.figures import noise_floor
from bench.rounds.block import Plan
from bench.rounds.checkpoint import Checkpoint, Measurement
from bench.rounds.processes import measure_variants
from bench.rounds.schedule import samples_by_length
from bench.settings import folder_settings
from bench.statistics.decisions import Estimate, ratio_finding
from bench.statistics.latency import collect_samples, half_width, median_ratio
from bench.tasks.registry import task_of_folders
from bench.variants.contenders import Variant, choose_variants, find_contenders
from export.runtime.processor import available_cores
from finetune.core.console import errors, run_app, tell
from finetune.core.errors import GateError
from finetune.core.worker_process import WorkerProcess

SLOWDOWN = 0.05
FALSE_SHARE = 0.1  # of repetitions that may call the same thing different: 2 of 20
FOUND_SHARE = 0.9  # of repetitions that must find the slowdown: 18 of 20
WIDEST = 0.03
COST = 0.02
PAIRS = 400  # of a turn as the benchmark takes it and a bare one
Again = Annotated[int, typer.Option("--repetitions", help="benchmarks to run")]
Budget = Annotated[float, typer.Option("--budget", help="seconds of each")]
Choice = Annotated[str | None, typer.Option("--variant", help="the first one by default")]
Override = Annotated[list[str] | None, typer.Option("--set", help="a bench setting, rounds=2")]
Folders = Annotated[list[Path], typer.Argument(help="run and artifact folders")]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command("aa")
def prove_same(
    folders: Folders,
    repetitions: Again = 20,
    budget: Budget = 180.0,
    variant: Choice = None,
    settings: Override = None,
    busy: Annotated[bool, typer.Option("--busy", help="another program on one core")] = False,
) -> None:
    """The same variant three times: a pair for the noise floor, and a third that is the same."""
    with busy_core() if busy else nullcontext():
        found = repeat(folders, variant, 0.0, repetitions, budget, settings or [])
    false = sum(one.finding != "tie" for one in found)
    widest = max(half_width(one.ratio) for one in found)
    told = f"{false} of {repetitions} called a difference; widest half-width {100 * widest:.2f} %."
    faults = [f"{false} false differences"] if false > FALSE_SHARE * repetitions else []
    faults += [f"half-width {100 * widest:.2f} %"] if widest > WIDEST else []
    claim = f"at most {FALSE_SHARE:.0%} false, half-width at most {WIDEST:.0%}"
    title = "The same variant, measured thrice" + (", beside a busy program" if busy else "")
    conclude(title, found[0].threads, repetition_table(found), told, faults, claim)


@app.command("ab")
def prove_different(
    folders: Folders,
    repetitions: Again = 20,
    budget: Budget = 180.0,
    variant: Choice = None,
    settings: Override = None,
    slowdown: Annotated[float, typer.Option(help="a share of each call")] = SLOWDOWN,
) -> None:
    """A variant against itself with every call longer: the difference has to be found."""
    found = repeat(folders, variant, slowdown, repetitions, budget, settings or [])
    right = sum(one.finding == "higher" for one in found)
    told = f"{right} of {repetitions} found the slowdown of {slowdown:.0%}."
    faults = [f"found in {right} of {repetitions}"] if right < FOUND_SHARE * repetitions else []
    title = f"A variant and itself, {slowdown:.0%} slower"
    claim = f"found in at least {FOUND_SHARE:.0%}"
    conclude(title, found[0].threads, repetition_table(found), told, faults, claim)


@app.command("cost")
def prove_cost(
    folders: Folders,
    variant: Choice = None,
    pairs: Annotated[int, typer.Option(help="turns, each beside a bare one")] = PAIRS,
    settings: Override = None,
) -> None:
    """Turns as the benchmark takes them, against a loop with one clock around it."""
    with proof_plan(folders, variant, 0.0, 600.0, settings or []) as (variants, plan):
        ratio, threads = harness_cost(variants[0], plan, pairs), plan.threads
    most = ratio.high - 1 if ratio.high is not None else float("inf")
    faults = [f"up to {most:.2%}"] if most > COST else []
    told = f"Added: {ratio.value - 1:.2%}, at most {most:.2%}."
    claim = f"the interval ends below {COST:.0%}"
    conclude("What the harness adds", threads, cost_table(ratio, pairs), told, faults, claim)


def repeat(
    folders: Sequence[Path],
    name: str | None,
    slowdown: float,
    repetitions: int,
    budget: float,
    settings: list[str],
) -> list[Repetition]:
    """Run the benchmark so many times, each with fresh processes and another order of rounds."""
    found = []
    with proof_plan(folders, name, slowdown, budget, settings) as (variants, plan):
        for number in range(repetitions):
            section = plan.settings.model_copy(update={"seed": plan.settings.seed + number})
            one = dataclasses.replace(plan, settings=section)
            found.append(measure_once(variants, one))
            _progress(f"repetition {number + 1}/{repetitions}: {repetition_line(found[-1])}")
    return found


def measure_once(variants: Sequence[Variant], plan: Plan) -> Repetition:
    """One benchmark of variant, its second time and the third; the third over the first."""
    began = time.monotonic()
    progress = measure_variants(variants, plan)
    seconds = time.monotonic() - began
    plan.checkpoint.clear()
    first, again, third = (_measured(progress.variants[one.name]) for one in variants)
    floor = noise_floor(median_ratio(first, again))
    ratio = median_ratio(third, first)
    loads = [one["foreign_cores"] for one in progress.load if one["foreign_cores"] is not None]
    return Repetition(
        ratio,
        floor,
        ratio_finding(ratio, floor),
        len(progress.variants[variants[0].name].latency),
        plan.threads,
        seconds,
        float(np.median(loads)) if loads else None,
    )


def harness_cost(variant: Variant, plan: Plan, pairs: int) -> Estimate:
    """Median time of a turn's reviews as measured over that in a bare loop, in one process."""
    worker = WorkerProcess("bench.engines.worker", plan.threads, plan.settings.call_timeout_s)
    passes: dict[str, list[tuple[int, int, list[float]]]] = {"latency": [], "bare": []}
    start, stop = plan.rows.turns()[0]
    generator = np.random.default_rng(plan.settings.seed)
    try:
        rows = {"latency_rows": plan.rows.latency, "throughput_rows": []}
        content = {"engines": plan.task.engines, "threads": plan.threads, **rows}
        worker.ask("prepare", variant=variant.as_job(), **content)
        worker.ask("load")
        worker.ask("warm_up", limit_s=plan.settings.warmup_s)
        for number in range(pairs):
            for kind in generator.permutation(list(passes)).tolist():
                answer = worker.ask(kind, start=start, stop=stop)
                total = answer.get("seconds") or sum(answer["samples_ms"]) / 1e3
                passes[kind].append((0, number, [total]))
    finally:
        worker.close()
    harness, bare = (collect_samples(passes[kind]) for kind in ("latency", "bare"))
    return median_ratio(harness, bare)


@contextmanager
def proof_plan(
    folders: Sequence[Path], name: str | None, slowdown: float, budget: float, settings: list[str]
) -> Iterator[tuple[list[Variant], Plan]]:
    """The variants and the plan of a proof; what was prepared is removed at the end."""
    task = task_of_folders(folders)
    plain = [f"time_budget_s={budget}", *task.proof_settings, *settings]
    section = folder_settings(plain, task.settings)
    contenders = find_contenders(list(folders))
    listed = task.list_variants(contenders, section)
    chosen = choose_variants(*listed, [name] if name else "default")[0]
    variants = three_times(chosen, slowdown)
    threads = section.threads or available_cores()
    with tempfile.TemporaryDirectory(prefix="kotune-proof-") as place:
        scratch = Path(place)
        prepared = prepare_variants(
            task,
            variants,
            contenders,
            scratch,
            seed=section.seed,
            threads=threads,
            timeout_s=section.call_timeout_s,
            report=_progress,
        )
        rows = task.choose_rows(contenders, section, scratch)
        checkpoint = Checkpoint(scratch / "partial.json", "proof")
        plan = make_plan(task, prepared, rows, section, threads, checkpoint, _quiet, chosen.name)
        yield [one.variant for one in prepared], plan


@contextmanager
def busy_core() -> Iterator[None]:
    """One core kept busy by a program that is none of ours."""
    with subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def three_times(variant: Variant, slowdown: float) -> list[Variant]:
    """The variant, its second time for the noise floor, and a third that may be slower."""
    again = dataclasses.replace(variant, name=f"{variant.name}-again", is_noise_pair=True)
    third = dataclasses.replace(variant, name=f"{variant.name}-third", slowdown=slowdown)
    return [variant, again, third]


def conclude(
    title: str, threads: int, table: Iterable[str], found: str, faults: list[str], claim: str
) -> None:
    """Print the page; raises GateError where there are faults."""
    verdict = f"Fails ({'; '.join(faults)}): {claim}." if faults else f"Holds: {claim}."
    tell(proof_page(title, threads, table, [found, verdict]))
    if faults:
        raise GateError("the proof failed", received="; ".join(faults), allowed=claim)


def _measured(one: Measurement) -> Any:
    if one.reason:
        raise GateError("a variant could not be measured", received=one.reason)
    found = samples_by_length(one)
    return found[sorted(found)[(len(found) - 1) // 2]]  # of several lengths the middle one


def _progress(line: str) -> None:
    errors.print(escape(line), soft_wrap=True)


def _quiet(line: str) -> None:
    """Progress of each of twenty benchmarks helps nobody."""


def main() -> None:
    """The command line of the proofs."""
    run_app(app)


if __name__ == "__main__":
    main()
