"""The story of an export: a run folder in, a checked artifact folder out, whatever the task."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from export.artifact.answers import keep_answers
from export.artifact.card import write_card
from export.artifact.folder import (
    FP32_FILE,
    Artifact,
    building_folder,
    check_target,
    failed_target,
    open_artifact,
    publish_artifact,
)
from export.artifact.manifest import SCRATCH, Draft, write_manifest
from export.artifact.origin import describe_origin, tell_language
from export.checks.ladder import Kind, Ladder
from export.graph.files import model_bytes
from export.precisions import (
    Made,
    asked_files,
    check_precisions,
    keep_files,
    measure_all_stability,
    search_files,
)
from export.quantization.search import Timing
from export.quantization.workshop import Workshop
from export.runtime.arithmetic import provider_options
from export.runtime.bundle import write_predict
from export.tasks.registry import find_task
from export.tasks.task import Exported, Task
from finetune.core.errors import RecipeError
from finetune.core.provenance import collect_provenance
from finetune.hardware.precision import exact_fp32
from finetune.recipes.files import apply_overrides, check_recipe
from finetune.recipes.speech import SpeechExportSection, SpeechRecipe
from finetune.recipes.text import ExportSection, FinetuneRecipe
from finetune.run_folder import open_run

__all__ = ["Artifact", "export_run", "open_artifact"]

FUSED_FILE = f"{SCRATCH}/model_fused.onnx"  # int8's parent, checked but not shipped
Section = ExportSection | SpeechExportSection


@exact_fp32()
def export_run(
    run_folder: Path | str,
    target: Path | str | None = None,
    *,
    overrides: Sequence[str] = (),
    max_loss: float | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Artifact:
    """Merge, export, quantise and check a run; publish ``target`` (artifacts/<run name>).

    ``overrides`` are ``key=value`` of the recipe's export section. With ``max_loss``, a share of
    accuracy or of word errors, the fastest file that loses no more is searched. Every stage is
    compared with an earlier one on validation rows; when a limit is crossed, everything made is
    published as ``<target>.failed`` with status "failed", an artifact already at ``target`` stays
    untouched, and GateError is raised. Raises KotuneError for wrong input; then nothing is
    written.
    """
    run = open_run(run_folder)
    if max_loss is not None:
        key = find_task(run.task).loss_key
        overrides = [*overrides, "search=true", f"{key}={max_loss!r}"]
    settings = export_settings(run.recipe, overrides)
    target = Path(target) if target is not None else Path("artifacts") / run.name
    check_target(target)
    check_target(failed_target(target))
    check_precisions(() if settings.search else settings.precisions, settings.device)
    task = find_task(run.task)(run, settings)
    ladder = Ladder(task.checks, report)
    with building_folder(target) as folder:
        _build(task, settings, ladder, folder)
        published = failed_target(target) if ladder.failures else target
        publish_artifact(folder, published)
    ladder.gate(kept=published)
    return open_artifact(published, verify=False)


def export_settings(recipe: FinetuneRecipe | SpeechRecipe, overrides: Sequence[str]) -> Section:
    """The recipe's export section with ``key=value`` or ``export.key=value`` applied."""
    named = []
    for override in overrides:
        key, _, _ = override.partition("=")
        if "." in key and not key.startswith("export."):
            raise RecipeError(
                "only the export section can be changed when exporting",
                received=override,
                allowed=", ".join(f"export.{name}" for name in type(recipe.export).model_fields),
            )
        named.append(override if "." in key else f"export.{override}")
    content = apply_overrides(recipe.model_dump(mode="json"), named)
    return check_recipe(type(recipe), content, "export").export


def _build(task: Task, settings: Section, ladder: Ladder, folder: Path) -> None:
    """Fill ``folder`` stage by stage; the models of one stage are freed before the next."""
    task.climb_trained(ladder)
    gc.collect()  # adapters hold their model in cycles, and two large ones need not fit
    exported = task.export_merged(ladder, folder)
    gc.collect()
    draft = Draft(folder, _describe(task, settings, exported.facts, folder))
    draft.files["fp32"] = {"path": FP32_FILE, "arithmetic": "fp32", "checked_in": "fp32"}
    draft.write()
    task.climb_fp32(ladder, folder, "onnx-fp32", "merged")
    climb = partial(_climb_file, task, ladder, draft)
    fused, parent = _fuse(draft, ladder.report, exported, climb)

    workshop = _open_workshop(task, settings, exported, draft, fused)
    made = _choose_files(task, settings, workshop, ladder)
    keep_files(workshop, made, partial(climb, provider=settings.device), parent)
    draft.write()
    measure = partial(task.measure_stability, folder, draft.opened)
    measure_all_stability(workshop, ladder, measure, task.max_unstable)
    draft.files.pop("fused", None)
    for entry in draft.files.values():
        entry["bytes"] = model_bytes(folder / entry["path"])
    keep_answers(task, draft, settings.device)
    manifest = draft.record(
        status="failed" if ladder.failures else "passed",
        ladder=[step.as_dict() for step in ladder.steps],
        notes=ladder.notes,
    )
    write_predict(folder, task.bundle)
    write_card(folder, manifest, task.card)
    write_manifest(folder, manifest)


def _choose_files(task: Task, settings: Section, workshop: Workshop, ladder: Ladder) -> list[Made]:
    """What is made beside fp32: what a search finds where one is asked for, else what is named."""
    if not settings.search:
        return asked_files(workshop, settings.precisions, settings.calibration)
    timing = Timing(task.list_timed(workshop.scratch("timed")), task.call)
    return search_files(workshop, ladder, timing, settings.precisions, settings.sensitivity_rows)


def _climb_file(
    task: Task,
    ladder: Ladder,
    draft: Draft,
    precision: str,
    step: tuple[str, Kind, str],
    provider: str = "cpu",
) -> None:
    """Climb one step, (name, kind, step before), with the shipped runtime."""
    draft.write()
    name, kind, before = step
    runtime = task.open_runtime(draft.folder, precision, provider=provider)
    draft.files[precision]["checked_in"] = runtime.executed
    answers = task.answer(runtime, ladder.checks.rows)
    made_up = [edge.row for edge in ladder.checks.edges]
    edges = task.answer(runtime, made_up, alone=kind == "quantized")  # none may move another
    again = partial(task.run_file, draft.folder, precision, provider=provider)
    ladder.climb(name, kind, answers, before, edges=edges, again=again)


def _fuse(
    draft: Draft,
    report: Callable[[str], None],
    exported: Exported,
    climb: Callable[[str, tuple[str, Kind, str]], None],
) -> tuple[Path | None, str]:
    """The fused graph, None where the patterns do not match; the step of the last float graph."""
    from export.graph.fusion import fuse_graph

    if not exported.heads:
        return None, "onnx-fp32"
    fused = draft.folder / FUSED_FILE
    draft.files["fused"] = {"path": FUSED_FILE}
    reason = "the patterns do not match"
    try:
        count = fuse_graph(
            draft.folder / FP32_FILE, fused, heads=exported.heads, hidden_size=exported.hidden_size
        )
        if count:
            climb("fused", ("onnx-fused", "float", "onnx-fp32"))
    except Exception as fault:  # of the library's patterns, or of a fused operator when it runs
        count, reason = 0, f"{type(fault).__name__}: {' '.join(str(fault).split())[:200]}"
    draft.facts["fused_attentions"] = count
    if count:
        return fused, "onnx-fused"
    draft.files.pop("fused")
    report(f"attention could not be fused ({reason}); int8 is made from the plain graph")
    return None, "onnx-fp32"


def _open_workshop(
    task: Task,
    settings: Section,
    exported: Exported,
    draft: Draft,
    fused: Path | None,
) -> Workshop:
    return Workshop(
        draft=draft,
        head_modules=exported.head_modules,
        heads=exported.heads,
        hidden_size=exported.hidden_size,
        plain=draft.folder / FP32_FILE,
        fused=fused,
        make_feeds=partial(task.make_feeds, draft.folder, draft.opened),
        run_file=partial(task.run_file, draft.folder, provider=settings.device),
        smooth_alpha=settings.smooth_alpha,
        int8_embeddings=getattr(settings, "int8_embeddings", False),
        device=settings.device,
        float_types=task.float_types,
    )


def _describe(task: Task, settings: Section, facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The manifest so far: everything that is known before the graphs are checked."""
    run = task.run
    return {
        "name": run.name,
        "task": task.name,
        "status": "building",
        "method": run.method,
        "base": run.base.as_dict(),
        "labels": list(run.labels),
        "max_length": run.max_length,
        "language": tell_language(settings.language, task.texts),
        **task.describe(),
        **facts,
        **describe_origin(
            run, folder / task.vocabulary_file, task.trained_metrics, settings.license
        ),
        "settings": settings.model_dump(mode="json"),
        "provider_options": {"cuda": provider_options("cuda")},
        "provenance": collect_provenance(run.recipe.seed).as_dict(),
    }
