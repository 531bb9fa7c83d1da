"""The planner held against measurements: ``kotune bench plan SUITE``.

Each case runs the product's real steps in fresh processes; what the process grows by over its
state before the model was built (on CUDA: the allocator's peak) stands beside the plan's figure.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.benchmark import available_cores
from bench.report.text import percent, significant, times
from bench.rounds.compose import plain_command
from bench.training.measure import worker_pool
from bench.training.report import facts_lines, markdown_table
from bench.training.suite import PlanSuite, case_recipe
from bench.training.training import check_target
from finetune.core.errors import GateError
from finetune.core.files import write_json, write_text
from finetune.core.provenance import collect_provenance
from finetune.core.worker_process import WorkerFailed
from finetune.recipes.text import FinetuneRecipe

Report = Callable[[str], None]
SCHEMA = "kotune.plan-results/1"
MIB = 1 << 20


def run_plan_bench(suite: PlanSuite, beside: Path, *, report: Report) -> Path:
    """Measure and compare every case; the path of report.md.

    Raises RecipeError before anything runs, GateError where an estimate misses the tolerance.
    """
    check_target(suite.folder, SCHEMA)
    threads = suite.threads or available_cores()
    cases = []
    for method in suite.methods:
        for way in suite.ways:
            recipe = case_recipe(suite, way, method, beside)
            cases.append(_measure(f"{method.name}-{way.name}", recipe, suite, threads, report))
    environment = collect_provenance().as_dict()
    command = plain_command(environment["command"])
    content = {
        "name": suite.name,
        "note": suite.note,
        "environment": {**environment, "command": command},
        "threads": threads,
        "settings": suite.model_dump(mode="json", exclude={"note"}),
        "cases": cases,
    }
    write_json(suite.folder / "results.json", SCHEMA, content)
    write_text(suite.folder / "report.md", plan_markdown(content))
    _check_tolerance(content, suite)
    return suite.folder / "report.md"


def plan_markdown(content: dict[str, Any]) -> str:
    """Predicted against measured, one row a case."""
    lines = list(facts_lines(content))
    ok = [case for case in content["cases"] if case["reason"] is None]
    heads = ["case", "batch", "predicted", "measured (all repetitions)", "ratio", "planned in"]
    lines += markdown_table(heads, [_row(case) for case in ok])
    lines += ["", "Parts of the prediction, MiB:", ""]
    parts = ("weights", "gradients", "optimizer", "activations", "runtime")
    lines += markdown_table(
        ["case", *parts],
        [
            [case["name"], *(_mib(case["planned"][f"{part}_bytes"]) for part in parts)]
            for case in ok
        ],
    )
    lines += [
        f"\n{case['name']} failed: {case['reason']}" for case in content["cases"] if case["reason"]
    ]
    return "\n".join(lines) + "\n"


def _measure(
    name: str, recipe: FinetuneRecipe, suite: PlanSuite, threads: int, report: Report
) -> dict[str, Any]:
    content = recipe.model_dump(mode="json")
    case: dict[str, Any] = {"name": name, "recipe": content, "reason": None, "measured": []}
    try:
        with worker_pool(suite, threads) as start:
            case["planned"] = start().ask("plan", recipe=content)
        for _ in range(suite.repeats):
            case["measured"].append(_measure_once(content, suite, threads))
    except WorkerFailed as fault:
        case["reason"] = str(fault)
        report(f"  {name} failed: {fault}")
        return case
    case["ratio"] = case["planned"]["step_bytes"] / _largest(case)
    report(
        f"  {name}: predicted {_mib(case['planned']['step_bytes'])} MiB, "
        f"measured {_mib(_largest(case))} MiB, ratio {times(case['ratio'])}"
    )
    return case


def _measure_once(recipe: dict[str, Any], suite: PlanSuite, threads: int) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="kotune-plan-") as scratch,
        worker_pool(suite, threads) as start,
    ):
        worker = start()
        worker.ask("prepare", recipe=recipe, timed=False)
        worker.ask("build", scratch=scratch)
        worker.ask("steps", count=suite.steps)
        return worker.ask("memory")


def _largest(case: dict[str, Any]) -> int:
    return max(one["peak_vram_bytes"] or one["training_bytes"] for one in case["measured"])


def _row(case: dict[str, Any]) -> list[str]:
    training, planned = case["recipe"]["training"], case["planned"]
    measured = [one["peak_vram_bytes"] or one["training_bytes"] for one in case["measured"]]
    return [
        case["name"],
        f"{training['batch_size']} × {case['recipe']['model']['max_length']}",
        f"{_mib(planned['step_bytes'])} MiB",
        ", ".join(_mib(value) for value in measured) + " MiB",
        times(case["ratio"]),
        f"{significant(planned['plan_s'])} s",
    ]


def _mib(count: float) -> str:
    return f"{count / MIB:,.0f}"


def _check_tolerance(content: dict[str, Any], suite: PlanSuite) -> None:
    missed = [
        f"{case['name']}: {case['reason'] or times(case['ratio'])}"
        for case in content["cases"]
        if case["reason"] or abs(case["ratio"] - 1) > suite.tolerance
    ]
    if missed:
        raise GateError(
            "the plan misses the measurement",
            received="; ".join(missed),
            allowed=f"a ratio within {percent(suite.tolerance, 0)} % of 1",
            next_step=f"both stand in {suite.folder / 'report.md'}",
        )
