"""Whether the files of an artifact still answer here as they did where they were exported.

An artifact keeps some of its check rows and the logits that every file gave for each of them
alone, in ``answers/``. Shipped inside ``predict.py``.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.runtime.manifest import (
    ANSWERS,
    ArtifactError,
    Manifest,
    can_open,
    read_manifest,
    verify_files,
)
from finetune.core.cpu_flags import cpu_flags

ANSWERS_SCHEMA = "kotune.answers/1"
ANSWERS_ROWS, ANSWERS_LOGITS = f"{ANSWERS}/rows.json", f"{ANSWERS}/logits.safetensors"
LENGTHS = "lengths"  # logit rows of each row: 1 of a text, frames of a recording
LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tokenizers", "soundfile", "numpy")
NARROWING = (  # variables by which libraries compute otherwise than the processor could
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "MKL_ENABLE_INSTRUCTIONS",
    "ATEN_CPU_CAPABILITY",
    "NVIDIA_TF32_OVERRIDE",
)
HARMLESS = ("STRICT", "0")  # what kotune itself sets
INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
)


@dataclass(frozen=True)
class KeptAnswers:
    """What the artifact keeps: rows, each file's logits (a list of arrays), where they were made.

    ``limit`` is the logit difference within which the export took float stages for equal.
    """

    rows: list[str]
    logits: dict[str, list[np.ndarray]]
    made: dict[str, Any]
    limit: float


@dataclass
class AnswerCheck:
    """One file against what it answered at the export; ``skipped`` says why it was not run.

    Allowed is what the export itself measured on these rows between this file and fp32, the
    largest and the mean logit difference, and never less than ``KeptAnswers.limit``.
    """

    precision: str
    skipped: str | None = None
    largest: float = 0.0
    largest_allowed: float = 0.0
    mean: float = 0.0
    mean_allowed: float = 0.0
    changed: int = 0
    rows: int = 0
    failure: str | None = None
    causes: list[str] = field(default_factory=list)

    def describe(self) -> list[str]:
        """Lines for the reader."""
        if self.skipped:
            return [f"{self.precision}: not checked, {self.skipped}"]
        if self.failure:
            told = f"{self.precision}: FAILED, {self.failure}"
            return [told, *(f"  likely: {cause}" for cause in self.causes)]
        return [
            f"{self.precision}: {self.rows} answers as at the export, largest difference "
            f"{self.largest:.1e} (allowed {self.largest_allowed:.1e}), mean {self.mean:.1e} "
            f"({self.mean_allowed:.1e}), {self.changed} with another best label"
        ]


def describe_machine() -> dict[str, Any]:
    """Libraries, instructions and variables that may change an answer, as they are here."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "machine": platform.machine(),
        "instructions": [name for name in INSTRUCTIONS if name in cpu_flags()],
        "variables": {
            name: os.environ[name]
            for name in NARROWING
            if os.environ.get(name, HARMLESS[0]) not in HARMLESS
        },
    }


def read_answers(folder: Path, manifest: Manifest) -> KeptAnswers:
    """The answers that an artifact keeps; raises ArtifactError where it keeps none."""
    if not (folder / ANSWERS_ROWS).is_file():
        raise ArtifactError(
            f"{folder} keeps no answers to compare with (export.answers=0, or {ANSWERS}/ was "
            "deleted); export the run with answers=32"
        )
    try:
        kept = json.loads((folder / ANSWERS_ROWS).read_text(encoding="utf-8"))
        stored = read_tensors(folder / ANSWERS_LOGITS)
        ends = np.cumsum(stored.pop(LENGTHS))[:-1]
        logits = {name: np.split(one, ends) for name, one in stored.items()}
        if kept["schema"] != ANSWERS_SCHEMA:
            raise ArtifactError(f"{folder / ANSWERS_ROWS} has schema {kept['schema']}")
        limit = float(manifest.settings["max_logit_difference"])
        return KeptAnswers(kept["rows"], logits, kept["made"], limit)
    except (OSError, ValueError, KeyError, AttributeError) as fault:
        raise ArtifactError(f"the answers of {folder} cannot be read: {fault}") from fault


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """A safetensors file, whose package the runtime does not ask for; raises ValueError, KeyError.

    Eight bytes say how long the header is, JSON says where each array lies behind it.
    """
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    found = {}
    for name, told in json.loads(content[8:start]).items():
        if name != "__metadata__":
            first, end = (start + offset for offset in told["data_offsets"])
            kind = {"F32": "<f4", "I64": "<i8"}[told["dtype"]]
            found[name] = np.frombuffer(content[first:end], dtype=kind).reshape(told["shape"])
    return found


def check_answers(
    kind: Callable[..., Any],
    folder: Path,
    *,
    precision: str | None = None,
    provider: str = "cpu",
    threads: int | None = None,
) -> list[AnswerCheck]:
    """Each file's answers, or one's, against those kept; ``kind`` is the artifact's runtime class.

    Raises ArtifactError where bytes were changed, nothing is kept, or no file can be run here.
    """
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    kept = read_answers(folder, manifest)
    if precision is not None and precision not in manifest.files:
        known = ", ".join(manifest.files)
        raise ArtifactError(f"no {precision} file in this artifact; it has: {known}")
    checks = []
    for name in [precision] if precision else manifest.files:
        reason = _why_skipped(name, manifest, kept, provider)
        if reason:
            checks.append(AnswerCheck(name, skipped=reason))
            continue
        options = {"provider": provider, "threads": threads, "verify": False, "allow_failed": True}
        checks.append(_check_file(kind, folder, name, kept, options))
    if all(check.skipped for check in checks):
        told = "; ".join(f"{check.precision}: {check.skipped}" for check in checks)
        raise ArtifactError(f"no file could be checked here: {told}")
    return checks


def _why_skipped(
    precision: str, manifest: Manifest, kept: KeptAnswers, provider: str
) -> str | None:
    entry = manifest.files[precision]
    if precision not in kept.logits:
        return "the artifact keeps no answers of it"
    if not can_open(entry):
        return "it needs openvino (pip install openvino)"
    made_on = kept.made["providers"][precision]
    return None if made_on == provider else f"it answered on {made_on}; --provider {made_on}"


def _check_file(
    kind: Callable[..., Any], folder: Path, precision: str, kept: KeptAnswers, options: dict
) -> AnswerCheck:
    """Open, run and compare one file; whatever a library raises is the failure told."""
    then, check = kept.logits[precision], AnswerCheck(precision, rows=len(kept.rows))
    executed = None
    try:
        runtime = kind(folder, precision, **options)
        executed = runtime.executed
        compare_answers(check, runtime.answer_rows(kept.rows), then, kept)
    except Exception as fault:  # of a runtime: this file fails here, whatever its library says
        check.failure = f"{type(fault).__name__}: {' '.join(str(fault).split())[:300]}"
    if check.failure:
        check.causes = find_causes(kept.made, precision, executed)
    return check


def compare_answers(
    check: AnswerCheck, now: Sequence[np.ndarray], then: Sequence[np.ndarray], kept: KeptAnswers
) -> None:
    """Fill in ``check``; arrays are (1 or frames, labels) of each row."""
    shapes = [one.shape for one in now]
    if shapes != [one.shape for one in then]:
        place = next(i for i, one in enumerate(then) if now[i].shape != one.shape)
        check.failure = f"row {place} gives {shapes[place]} numbers, then {then[place].shape}"
        return
    drift = np.concatenate([np.abs(a - b).ravel() for a, b in zip(now, then, strict=True)])
    exact = kept.logits.get("fp32", then)
    own = np.concatenate([np.abs(a - b).ravel() for a, b in zip(then, exact, strict=True)])
    check.largest, check.mean = float(drift.max()), float(drift.mean())
    check.largest_allowed = max(kept.limit, float(own.max()))
    check.mean_allowed = max(kept.limit, float(own.mean()))
    pairs = zip(now, then, strict=True)
    check.changed = sum(bool((a.argmax(-1) != b.argmax(-1)).any()) for a, b in pairs)
    for name, found, allowed in (
        ("largest", check.largest, check.largest_allowed),
        ("mean", check.mean, check.mean_allowed),
    ):
        if not found <= allowed:  # NaN too
            check.failure = (
                f"{name} logit difference {found:.3g} to the export's own answers, allowed "
                f"{allowed:.3g}; {check.changed} of {check.rows} with another best label"
            )
            return


def find_causes(made: dict[str, Any], precision: str, executed: str | None) -> list[str]:
    """What is otherwise here than at the export, the likeliest first."""
    here, causes = describe_machine(), []
    checked = made["executed"].get(precision)
    if executed not in (None, checked):
        causes.append(f"computed in {executed} here, checked in {checked}")
    for name in NARROWING:
        then, now = made["variables"].get(name), here["variables"].get(name)
        if then != now:
            causes.append(f"{name} is {now or 'not set'} here, was {then or 'not set'} then")
    if (made["machine"], made["instructions"]) != (here["machine"], here["instructions"]):
        told = [f"{one['machine']} {' '.join(one['instructions'])}" for one in (made, here)]
        causes.append(
            f"other instructions, whose int8 sums may saturate: {told[0]} then, {told[1]} here"
        )
    for name in sorted({*made["versions"], *here["versions"]}):
        then, now = made["versions"].get(name), here["versions"].get(name)
        if then != now:
            causes.append(f"{name} {then or 'absent'} then, {now or 'absent'} here")
    return causes or [
        "versions, instructions and variables are those of the export: the file, or this machine"
    ]


def print_checks(checks: Sequence[AnswerCheck]) -> int:
    """Print every file's lines; 0, or 1 where one answers otherwise."""
    for check in checks:
        print("\n".join(check.describe()))
    return int(any(check.failure for check in checks))
