"""What results.json tells of the stages before: curves, trainings, ladders."""

from __future__ import annotations

from typing import Any

import numpy as np


def make_curve(method: str, generator: np.random.Generator) -> list[dict[str, Any]]:
    steps = np.arange(10, 625, 10)
    floor = {"full": 0.24, "lora": 0.27, "qlora": 0.285}[method]
    loss = floor + 0.45 * np.exp(-steps / 110) + generator.normal(0, 0.018, len(steps))
    points: list[dict[str, Any]] = [
        {"step": int(step), "epoch": round(float(step) / 312, 3), "loss": round(float(value), 4)}
        for step, value in zip(steps, loss, strict=True)
    ]
    for step in range(100, 625, 100):
        fit = np.exp(-step / 110)
        points.append(
            {
                "step": step,
                "epoch": round(step / 312, 3),
                "loss": None,
                "eval_loss": round(float(floor + 0.02 + 0.4 * fit), 4),
                "eval_accuracy": round(float(0.895 - (floor - 0.24) / 8 - 0.3 * fit), 4),
            }
        )
    return points


def make_training(method: str) -> dict[str, Any]:
    return {
        "method": method,
        "device": "cpu",
        "precision": "bf16",
        "threads": 2,
        "steps": 625,
        "training_time_s": 1834.0,
        "step_times_s": [2.9, 2.8, 3.1],
        "peak_training_memory_bytes": 3_210_000_000,
        "peak_training_vram_bytes": None,
    }


def make_ladders(accuracy: bool) -> dict[str, Any]:
    def step(name: str, drift: float | None, flips: int | None, share: float) -> dict[str, Any]:
        return {
            "name": name,
            "kind": "float",
            "before": None,
            "rows": 2_000,
            "accuracy": share,
            "accuracy_interval": [share - 0.01, share + 0.01],
            "f1_macro": share - 0.0004,
            "largest_logit_difference": drift,
            "mean_logit_difference": None if drift is None else drift / 9,
            "flipped": flips,
            "flipped_above_margin": None if flips is None else 0,
            "failure": None,
        }

    if not accuracy:
        return {}
    lora = [
        step("training", None, None, 0.894),
        step("merged", 4.1e-6, 0, 0.894),
        step("onnx-fp32", 2.7e-5, 0, 0.894),
        step("onnx-int8", 0.412, 11, 0.8935),
    ]
    lost = {**step("onnx-int8", 1.93, 61, 0.875), "failure": "accuracy fell by 1.9 points"}
    return {"nsmc-lora": lora, "nsmc-qlora": [*lora[:3], lost]}
