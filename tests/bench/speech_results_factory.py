"""results.json of speech benchmarks, drawn at random but always alike.

``make_speech_results`` as the version before wrote them (kotune.speech-results/1),
``make_results_today`` as they are now: fresh processes, the baseline twice, the machine's load.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.results.older import READERS
from bench.results.records import SCHEMA, Results

WORDS = ["ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE", "ZERO"]
VARIANTS = {  # runtime, precision: milliseconds a second of audio, share of wrong recordings, MB
    ("pytorch", "fp32"): (9.0, 0.08, 3.6),
    ("pytorch", "bf16"): (7.0, 0.085, 3.6),
    ("onnx", "fp32"): (6.0, 0.08, 3.7),
    ("onnx", "int8"): (4.2, 0.09, 1.6),
    ("onnx", "int8-static"): (3.9, 0.1, 1.6),
    ("openvino", "fp32"): (5.5, 0.08, 3.8),
    ("openvino", "int8"): (3.1, 0.09, 1.7),
    ("onnx", "int8conv"): (7.5, 0.7, 1.1),
}
LENGTHS = [1, 5, 15, 30]


def make_speech_results(
    *, base: bool = True, failed: bool = True, rows: int = 60
) -> dict[str, Any]:
    """A whole results.json with the trained model and, if asked, the base size and a failure."""
    generator = np.random.default_rng(3)
    references = [" ".join(generator.choice(WORDS, size=3)) for _ in range(rows)]
    groups = {"full": 1.0, **({"base": 25.0} if base else {})}
    variants = [
        _variant(group, kind, factor, references if group == "full" else [], generator)
        for group, factor in groups.items()
        for kind in VARIANTS
    ]
    if failed:
        reason = "the worker ended with code -9"
        lost = {**variants[-2], "status": "failed", "reason": reason, "latency": {}}
        variants[-2] = lost | {"transcripts": [], "load_s": None, "peak_memory_bytes": None}
    curve = [
        {"step": step, "loss": 3 / (1 + step / 90), "eval_wer": min(1.0, 90 / (step + 1))}
        for step in range(0, 1000, 50)
    ]
    ladder = {"name": "onnx-int8", "rows": 150, "wer": 0.09, "changed": 4, "failure": None}
    return {
        "schema": "kotune.speech-results/1",
        "name": "wav2vec2-fsdd",
        "created": "2025-06-01T09:30:00+00:00",
        "commands": ["kotune bench runs/wav2vec2-fsdd artifacts/wav2vec2-fsdd base_size=true"],
        "environment": {
            "hardware": {"cpu": "AMD EPYC", "cores": 2},
            "packages": {"onnxruntime": "1.23.0"},
            "git": {"commit": "0123456789abcdef", "dirty": False},
        },
        "settings": {"lengths_s": LENGTHS, "threads": 2, "rounds": 5, "calls": 3},
        "run": {
            "name": "wav2vec2-fsdd",
            "method": "full",
            "parameters": {"total": 1_000_000, "trainable": 1_000_000},
        },
        "baselines": {group: f"{group}-pytorch-fp32" for group in groups},
        "references": references,
        "variants": variants,
        "training": {"wav2vec2-fsdd": {"method": "full", "steps": 1000, "training_time_s": 5400}},
        "curves": {"wav2vec2-fsdd": curve},
        "ladders": {"wav2vec2-fsdd": [{**ladder, "largest_logit_difference": 0.3}]},
    }


def read_older(content: dict[str, Any]) -> Results:
    """A file of the version before in today's records."""
    return READERS[content["schema"]](content)


def make_results_today(
    *, processes: int = 3, slower: float = 1.0, **changes: Any
) -> dict[str, Any]:
    """The same in today's shape; every call of all but the baseline is ``slower`` times as long."""
    content = read_older(make_speech_results(**changes)).model_dump(mode="json")
    base = content["variants"][0]
    for one in content["variants"]:
        factor = 1.0 if one is base else slower
        one["latency"] = [
            {**entry, "process": process, "samples_ms": [factor * s for s in entry["samples_ms"]]}
            for entry in one["latency"]
            for process in [entry["round"] % processes]
        ]
    again = {**base, "name": f"{base['name']}-again", "transcripts": []}
    again["latency"] = [
        {**entry, "samples_ms": [1.01 * sample for sample in entry["samples_ms"]]}
        for entry in base["latency"]
    ]
    content["variants"].insert(1, again)
    content["settings"] |= {"processes": processes, "rounds": 2, "turn_calls": 3, "seed": 0}
    content["settings"]["target_half_width"] = 0.05
    content["data"] = {"description": "fsdd", "fingerprint": "ab", "test_rows": 60}
    content["load"] = [{"process": 0, "round": 0, "foreign_cores": 0.7}]
    return {"schema": SCHEMA, **content}


def _variant(
    group: str,
    kind: tuple[str, str],
    factor: float,
    references: list[str],
    generator: np.random.Generator,
) -> dict[str, Any]:
    (runtime, precision), (pace_ms, wrong, size) = kind, VARIANTS[kind]
    latency = {
        f"{length:g}": [
            (factor * (2 + pace_ms * length) * generator.lognormal(0, 0.05, 3)).tolist()
            for _ in range(5)
        ]
        for length in LENGTHS
    }
    missed = generator.random(len(references)) < wrong
    return {
        "name": f"{group}-{runtime}-{precision}",
        "group": group,
        "runtime": runtime,
        "precision": precision,
        "description": f"{runtime} in {precision}",
        "status": "ok",
        "reason": None,
        "size_bytes": int(factor * size * 1e6),
        "load_s": 0.4,
        "first_call_ms": 30.0,
        "peak_memory_bytes": int(2e8 + factor * 4e7),
        "latency": latency,
        "transcripts": [
            f"{text} OH" if miss else text for text, miss in zip(references, missed, strict=True)
        ],
    }
