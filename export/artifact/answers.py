"""The rows and logits that an artifact keeps, for the machine where it will live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.artifact.folder import Artifact
from export.artifact.manifest import Draft
from export.runtime.answers import (
    ANSWERS_LOGITS,
    ANSWERS_ROWS,
    ANSWERS_SCHEMA,
    LENGTHS,
    check_answers,
    describe_machine,
)
from export.runtime.manifest import ANSWERS, ArtifactError
from finetune.core.errors import FolderError, GateError
from finetune.core.files import write_json
from finetune.tasks.registry import SPEECH

if TYPE_CHECKING:
    from export.tasks.task import Task


def keep_answers(task: Task, draft: Draft, provider: str) -> None:
    """Write ``answers/`` of every file of the folder, each row run alone; none where 0 are asked.

    Rows are chosen from those the export was checked on.
    """
    from safetensors.numpy import save_file

    if not task.settings.answers:
        return
    folder = draft.folder
    (folder / ANSWERS).mkdir()
    rows = task.keep_rows(folder, task.settings.answers)
    logits: dict[str, np.ndarray] = {}
    executed, lengths = {}, []
    for precision in draft.files:
        runtime = task.open_runtime(folder, precision, provider=provider)
        found = runtime.answer_rows(rows)
        lengths = [len(one) for one in found]
        logits[precision] = np.concatenate(found).astype(np.float32, copy=False)
        executed[precision] = runtime.executed
    save_file({**logits, LENGTHS: np.array(lengths, np.int64)}, folder / ANSWERS_LOGITS)
    made = {
        **describe_machine(),
        "executed": executed,
        "providers": dict.fromkeys(logits, provider),
    }
    write_json(folder / ANSWERS_ROWS, ANSWERS_SCHEMA, {"rows": rows, "made": made})


def spread_by_length(lengths: list[int], count: int) -> list[int]:
    """Places of at most ``count`` rows from the shortest to the longest, evenly, in order."""
    order = np.argsort(lengths, kind="stable")
    chosen = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return sorted(order[np.unique(chosen)].tolist())


def verify_answers(artifact: Artifact, precision: str | None = None) -> list[str]:
    """A line for each file that answers as it did when it was exported.

    Raises GateError with the likely causes where one does not, FolderError where nothing can be
    compared.
    """
    import export.runtime as runtime

    speech = artifact.manifest.task == SPEECH
    kind = runtime.OnnxTranscriber if speech else runtime.OnnxClassifier
    provider = artifact.manifest.settings.get("device", "cpu")
    try:
        checks = check_answers(kind, artifact.folder, precision=precision, provider=provider)
    except ArtifactError as fault:
        raise FolderError(
            str(fault), next_step=f"kotune export RUN answers=32 --output {artifact.folder}"
        ) from fault
    lines = [line for check in checks for line in check.describe()]
    if any(check.failure for check in checks):
        raise GateError(
            "a file does not answer here as it did where it was exported",
            received="\n            ".join(lines),
            allowed="what quantisation itself moved, at least the export's max_logit_difference",
            next_step="export the run on this machine, or use a file that passes",
        )
    return lines
