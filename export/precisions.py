"""The files an artifact gets beside fp32: those asked for, or the fastest within a budget."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.candidates import (
    FILES,
    HALF,
    QUANTIZED,
    Candidate,
    build_candidate,
    default_candidate,
    refusal,
)
from export.files import external_data_needed, save_graph
from export.graph import load_graph
from export.parity import Ladder
from export.search import Budget, Search
from export.stability import measure_stability
from export.workshop import Workshop
from finetune.errors import RecipeError
from finetune.recipe import ExportSection

Check = Callable[[str, tuple[str, str, str]], None]
ALL = tuple(FILES)
DEFAULT = ("int8-dynamic",)


def check_precisions(settings: ExportSection) -> None:
    """Refuse, before anything is run, what this machine cannot make; raises RecipeError."""
    if settings.device == "cuda" and (reason := refusal("fp32", "cuda")):
        raise RecipeError("export.device=cuda", received=reason, next_step="device=cpu")
    if settings.search:
        return
    for precision in settings.precisions or DEFAULT:
        reason = refusal(precision, settings.device)
        if reason:
            raise RecipeError(
                f"{precision} cannot be made for {settings.device} here",
                received=reason,
                allowed=", ".join(one for one in ALL if not refusal(one, settings.device)),
            )


def make_files(
    workshop: Workshop, settings: ExportSection, ladder: Ladder, check: Check, parent: str
) -> None:
    """Fill the manifest's files, search and preferred; ``check`` climbs a file's ladder step.

    ``parent`` is the ladder's step of the last float ONNX graph.
    """
    if settings.search:
        made = _search(workshop, settings, ladder)
    else:
        made = [
            (default_candidate(precision, workshop, settings.calibration), None, {})
            for precision in settings.precisions or DEFAULT
            if precision != "fp32"
        ]
    for candidate, source, facts in made:
        key, file = FILES[candidate.precision]
        target = workshop.folder / file
        if source is None:
            facts = build_candidate(candidate, workshop, target)
        else:
            _move_model(source, target)
        workshop.manifest["files"][key] = {"path": file, **facts}
        kind = "quantized" if candidate.precision in (*QUANTIZED, *HALF) else "float"
        fused = candidate.graph == "fused"
        name = key if key.startswith("openvino") else f"onnx-{key}"
        check(key, (name, kind, parent if fused else "onnx-fp32"))


def measure_all_stability(
    workshop: Workshop, settings: ExportSection, ladder: Ladder, seed: int
) -> None:
    """Measure every quantised CPU file's stability; what crosses the limit fails the ladder."""
    limit, found = settings.max_unstable_labels, {}
    keys = {FILES[precision][0] for precision in QUANTIZED}
    for key, entry in workshop.manifest["files"].items():
        if key not in keys or settings.device != "cpu":
            continue
        texts = ladder.rows.texts[: settings.stability_rows]
        measured = measure_stability(
            workshop.folder, workshop.folder / entry["path"], workshop.manifest, texts, seed=seed
        )
        found[key] = measured
        unstable, rows = measured["unstable_labels"], measured["rows"]
        ladder.report(
            f"stability {key}: {unstable} of {rows} labels depend on batch or padding, largest "
            f"logit difference {measured['largest_logit_difference']:.1e}"
        )
        if unstable > limit * rows:
            told = f"{unstable} of {rows} labels depend on batch or padding, allowed {limit:.1%}"
            ladder.fail(f"stability-{key}", told)
    workshop.manifest["stability"] = found


def _search(
    workshop: Workshop, settings: ExportSection, ladder: Ladder
) -> list[tuple[Candidate, Path, dict[str, Any]]]:
    """Run the search on the ladder's rows and store its table; the files to keep."""
    search = Search(
        workshop,
        ladder.rows.texts,
        ladder.rows.labels,
        ladder.logits("onnx-fp32"),
        Budget(settings.max_accuracy_drop, settings.sensitivity_rows, settings.timing_rows),
        ladder.report,
    )
    kept = search.run(settings.precisions or ALL)
    workshop.manifest["search"] = {
        "device": settings.device,
        "max_accuracy_drop": settings.max_accuracy_drop,
        "rows": len(ladder.rows.texts),
        "instruction_set": workshop.instruction_set.name,
        "tried": search.table(kept),
    }
    workshop.manifest["preferred"] = {settings.device: FILES[kept[0].candidate.precision][0]}
    return [
        (trial.candidate, trial.path, trial.facts)
        for trial in kept
        if trial.candidate.precision != "fp32"
    ]


def _move_model(source: Path, target: Path) -> None:
    """A model with what belongs to it: OpenVINO's .bin, or external data, whose name is inside."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".xml":
        os.replace(source.with_suffix(".bin"), target.with_suffix(".bin"))
    elif external_data_needed(source):
        save_graph(load_graph(source), target, external=True)
        return
    os.replace(source, target)
