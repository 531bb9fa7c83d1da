"""The files an artifact gets beside fp32: those asked for, or the fastest within a budget."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from export.checks.ladder import Ladder
from export.checks.stability import Stability
from export.graph.files import external_data_needed, save_graph
from export.graph.reading import load_graph
from export.graph.validity import finish_graph
from export.quantization.candidates import (
    FILES,
    Candidate,
    build_candidate,
    default_candidate,
    is_quantized,
    kind_of,
    refusal,
)
from export.quantization.fp16 import write_rounded
from export.quantization.search import Search, Timing
from export.quantization.workshop import Workshop
from finetune.core.errors import RecipeError

Check = Callable[[str, tuple[str, str, str]], None]
Made = tuple[Candidate, Path | None, dict[str, Any]]  # None: still to be built
ALL = tuple(FILES)
DEFAULT = ("int8-dynamic",)


def check_precisions(precisions: Sequence[str] | None, device: str) -> None:
    """Refuse, before anything is run, what this machine cannot make; raises RecipeError.

    None: DEFAULT, as elsewhere here.
    """
    if device == "cuda" and (reason := refusal("fp32", "cuda")):
        raise RecipeError("export.device=cuda", received=reason, next_step="device=cpu")
    for precision in DEFAULT if precisions is None else precisions:
        reason = refusal(precision, device)
        if reason:
            raise RecipeError(
                f"{precision} cannot be made for {device} here",
                received=reason,
                allowed=", ".join(one for one in ALL if not refusal(one, device)),
            )


def asked_files(
    workshop: Workshop, precisions: Sequence[str] | None, calibration: str
) -> list[Made]:
    """The candidates of the precisions named, none of them built yet."""
    return [
        (default_candidate(precision, workshop, calibration), None, {})
        for precision in precisions or DEFAULT
        if precision != "fp32"
    ]


def keep_files(workshop: Workshop, made: Sequence[Made], check: Check, parent: str) -> None:
    """Fill the manifest's files; ``check`` climbs a file's ladder step.

    ``parent`` is the ladder's step of the last float ONNX graph.
    """
    for candidate, source, facts in made:
        key, file = FILES[candidate.precision]
        target = workshop.folder / file
        if source is None:
            facts = build_candidate(candidate, workshop, target)
        else:
            _move_model(source, target)
        workshop.draft.files[key] = {"path": file, **facts}
        kind = kind_of(candidate.precision)
        fused = candidate.graph == "fused"
        name = key if key.startswith("openvino") else f"onnx-{key}"
        check(key, (name, kind, parent if fused else "onnx-fp32"))
        if candidate.precision == "fp16":
            _check_rounded(workshop, key, target, check)


def _check_rounded(workshop: Workshop, key: str, target: Path, check: Check) -> None:
    """Climb an fp16 file with every value rounded to float16, where the CPU would not do so.

    The entry says what was executed: the file itself in ``executed_in``, and this beside it.
    """
    files = workshop.draft.files
    if workshop.device != "cpu":
        files[key]["executed_in"] = f"float16 on {workshop.device}"
        return
    rounded = workshop.scratch("rounded") / "model.onnx"
    write_rounded(target, rounded)
    trial = f"{key}-rounded"
    files[trial] = {"path": rounded.relative_to(workshop.folder).as_posix(), "arithmetic": "fp32"}
    check(trial, (f"onnx-{trial}", kind_of("fp16"), "onnx-fp32"))
    files.pop(trial)
    files[key]["executed_in"] = (
        "float32 on the CPU, which has no fp16 kernels; and as a graph that rounds every value "
        f"to float16 between operators (step onnx-{trial}); not on a GPU or in a browser"
    )


def measure_all_stability(
    workshop: Workshop,
    ladder: Ladder,
    measure: Callable[[str], Stability],
    limit: float,
) -> None:
    """Measure every quantised CPU file's stability; what crosses the limit fails the ladder.

    ``measure`` takes a file's key in the manifest; ``limit`` is a share.
    """
    found = {}
    keys = {key for precision, (key, _) in FILES.items() if is_quantized(precision)}
    for key in workshop.draft.files:
        if key not in keys or workshop.device != "cpu":
            continue
        measured = measure(key)
        found[key] = measured.figures
        told = f"{measured.unstable} of {measured.of} {measured.what} depend on batch or padding"
        drift = measured.figures["largest_logit_difference"]
        ladder.report(f"stability {key}: {told}, largest logit difference {drift:.1e}")
        if measured.unstable > limit * measured.of:
            ladder.fail(f"stability-{key}", f"{told}, allowed {limit:.1%}")
    workshop.draft.facts["stability"] = found


def search_files(
    workshop: Workshop,
    ladder: Ladder,
    timing: Timing,
    precisions: Sequence[str] | None,
    sensitivity_rows: int,
) -> list[Made]:
    """Run the search on the ladder's rows and store its table and winner; the files to keep."""
    search = Search(workshop, ladder, timing, sensitivity_rows)
    kept = search.run(precisions or ALL)
    workshop.draft.facts["search"] = {
        "device": workshop.device,
        ladder.checks.loss_key: ladder.checks.allowed_loss,
        "rows": len(ladder.checks.rows),
        "instruction_set": workshop.instruction_set.name,
        "tried": search.table(kept),
    }
    workshop.draft.facts["preferred"] = {workshop.device: FILES[kept[0].candidate.precision][0]}
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
        finish_graph(target)
        return
    os.replace(source, target)
