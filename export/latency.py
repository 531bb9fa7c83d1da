"""How long a file takes, text to label, measured in a process that does nothing else."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.errors import ModelError

BATCH = 8
WARM_UP_CALLS = 8  # at least, and at least as long as
WARM_UP_S = 1.0
LIMIT_S = 60.0  # of one pass: a slow file is told from fewer samples


@dataclass
class Samples:
    """Milliseconds of each call at batch 1 and at batch 8, over all processes so far."""

    batch1_ms: list[float] = field(default_factory=list)
    batch8_ms: list[float] = field(default_factory=list)

    @property
    def p50_batch1_ms(self) -> float:
        """The median call with one text."""
        return statistics.median(self.batch1_ms)

    @property
    def p50_batch8_ms(self) -> float:
        """The median call with eight texts."""
        return statistics.median(self.batch8_ms)


def measure_latency(
    folder: Path, precision: str, texts: Sequence[str], samples: Samples, *, provider: str = "cpu"
) -> None:
    """Add one fresh process's samples of ``precision``; raises ModelError where it fails."""
    job = {
        "folder": str(folder),
        "precision": precision,
        "texts": list(texts),
        "provider": provider,
    }
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "export.latency"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode:
        raise ModelError(
            f"{precision} could not be measured", received=done.stderr.strip().splitlines()[-1:]
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    samples.batch1_ms += answer["batch1_ms"]
    samples.batch8_ms += answer["batch8_ms"]


def run_job(job: dict[str, Any]) -> dict[str, list[float]]:
    """Open the file, warm up, time single texts and batches of eight."""
    from export.runtime import OnnxClassifier

    classifier = OnnxClassifier(
        job["folder"], job["precision"], provider=job["provider"], verify=False, allow_failed=True
    )
    texts = job["texts"]
    singles = [[text] for text in texts]
    batches = [
        [texts[(start + offset) % len(texts)] for offset in range(BATCH)]
        for start in range(0, max(len(texts), BATCH), BATCH)
    ]
    return {
        "batch1_ms": _time_calls(classifier.predict, singles),
        "batch8_ms": _time_calls(classifier.predict, batches),
    }


def _time_calls(predict: Any, calls: Sequence[list[str]]) -> list[float]:
    began = time.perf_counter()
    warm = 0
    while warm < WARM_UP_CALLS or time.perf_counter() - began < WARM_UP_S:
        predict(calls[warm % len(calls)])
        warm += 1
        if time.perf_counter() - began > LIMIT_S:
            break
    samples: list[float] = []
    began = time.perf_counter()
    for call in calls:
        start = time.perf_counter_ns()
        predict(call)
        samples.append(round((time.perf_counter_ns() - start) / 1e6, 4))
        if time.perf_counter() - began > LIMIT_S:
            break
    return samples


if __name__ == "__main__":
    json.dump(run_job(json.load(sys.stdin)), sys.stdout)
