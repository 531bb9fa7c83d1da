"""Metrics of text classification that plugins add; those of kotune stand in finetune/metrics/.

Every one installed is measured, and may be the recipe's ``training.best_metric``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from finetune.core.plugins import PluginError, Registry, blame

GROUP = "kotune.metrics"
LOSSES = ("loss", "wer")


@dataclass(frozen=True)
class Metric:
    """A figure of labels (n,) and logits (n, k), NumPy arrays; finite.

    ``within``: a ``share`` lies between 0 and 1, ``positive`` above 0: seeds are compared so.
    """

    figure: Callable[[Any, Any], float]
    greater_is_better: bool = True
    form: str = ".4f"
    within: Literal["share", "positive"] = "share"


METRICS: Registry[Metric] = Registry(GROUP, {}, Metric)


def added_figures(labels: Any, logits: Any) -> dict[str, float]:
    """The figure of every plugin's metric; raises PluginError."""
    found = {}
    for name, metric in METRICS.items():
        with blame(GROUP, name):
            found[name] = float(metric.figure(labels, logits))
        if not math.isfinite(found[name]):
            raise PluginError(f"the metric {name} is not finite", received=found[name])
    return found


def greater_is_better(metric: str) -> bool:
    """Whether more of a recipe's metric is better."""
    return METRICS[metric].greater_is_better if metric in METRICS else metric not in LOSSES
