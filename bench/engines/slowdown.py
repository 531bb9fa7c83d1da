"""An engine whose every call takes a known share longer (``bench/comparing/proof.py``)."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from bench.engines.text import Engine

SPIN_S = 0.0005


def slow_down(engine: Engine, variant: dict[str, Any]) -> Engine:
    """The engine with every single call longer by the variant's ``slowdown``, a share."""
    share = variant.get("slowdown", 0.0)
    if not share:
        return engine

    def classify(text: str) -> int:
        began = time.perf_counter()
        found = engine.classify(text)
        end = time.perf_counter() + share * (time.perf_counter() - began)
        rest = end - time.perf_counter() - SPIN_S
        if rest > 0:  # a sleep of nothing would hand the core to whoever waits for it
            time.sleep(rest)
        while time.perf_counter() < end:  # sleeping overshoots by more than the effect
            pass
        return found

    return dataclasses.replace(engine, classify=classify)
