"""What a benchmark does: the ``bench`` section of a suite and of ``kotune bench … key=value``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finetune.recipe import Count, Section


class BenchSection(Section):
    """How much is measured. Durations in seconds, rows are reviews of the test set.

    ``processes`` fresh processes per variant, each visited ``rounds`` times in a random order:
    start-up layout varies more between processes than a timer does within one.
    """

    seed: Annotated[int, Field(ge=0)] = 42
    processes: Count = 5
    rounds: Count = 4
    latency_rows: Count = 100  # one review at a time, the same ones in every round
    throughput_rows: Annotated[int, Field(ge=0)] = 512  # in bulk
    throughput_rounds: Count = 3  # of each process's rounds
    throughput_batch_size: Count = 32
    test_rows: Count | None = None  # None: all; a number: that many, drawn with `seed`
    accuracy: bool | None = None  # None: unless a base has random weights; true: then too
    warmup_s: Annotated[float, Field(gt=0)] = 10.0  # at most; it ends when calls are stable
    time_budget_s: Annotated[float, Field(gt=0)] | None = None  # of the rounds; one always runs
    call_timeout_s: Annotated[float, Field(gt=0)] = 3600.0  # a worker silent for longer failed
    threads: Count | None = None  # None: every core this process may use
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.8  # of free memory, for workers at once
    device: Literal["cpu", "cuda"] = "cpu"  # cuda: PyTorch and ONNX fp32; int8 stays on the CPU
    variants: Literal["default"] | list[str] = "default"
    baseline: str | None = None  # None: full-pytorch-fp32, else the first PyTorch variant
    noise_pair: bool = False  # the baseline a second time: what it differs by is noise
    note: str | None = None  # printed in the report
