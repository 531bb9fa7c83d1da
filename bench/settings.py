"""What a benchmark does: the ``bench`` section of a suite and of ``kotune bench … key=value``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from finetune.recipes.sections import Count, Section, Share

Seconds = Annotated[float, Field(gt=0)]
UNMEASURED = {"where", "note"}  # change the report, not what is measured


class BenchSection(Section):
    """How much is measured. Durations in seconds, rows are reviews of the test set.

    ``processes`` fresh processes per variant, each visited ``rounds`` times in a random order:
    start-up layout varies more between processes than a timer does within one. More are added
    until every ratio's interval is narrow (``bench/rounds/schedule.py``). ``grid``: latency over
    batch size and length; ``server``: the highest rate that holds a p99 bound.
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
    warmup_s: Seconds = 10.0  # at most; it ends when calls are stable
    target_half_width: Share | None = 0.03  # of latency ratios, relative; None: never more rounds
    time_budget_s: Seconds | None = None  # of start-up and rounds; one round always runs
    call_timeout_s: Seconds = 3600.0  # a worker silent for longer failed
    threads: Count | None = None  # None: every core this process may use
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.8  # of free memory, for workers at once
    device: Literal["cpu", "cuda"] = "cpu"  # cuda: PyTorch and ONNX fp32; int8 stays on the CPU
    variants: Literal["default"] | list[str] = "default"
    baseline: str | None = None  # None: full-pytorch-fp32, else the first PyTorch variant
    noise_pair: bool = True  # the baseline a second time: what it differs by is noise
    grid: bool = False
    grid_batches: tuple[Count, ...] = (1, 8, 32)
    grid_lengths: tuple[Annotated[int, Field(ge=4)], ...] = (16, 32, 64, 128)  # tokens
    server: bool = False
    server_p99_ms: Annotated[float, Field(gt=0)] = 100.0
    server_queries: Annotated[int, Field(ge=100)] = 300  # a trial; p99 of fewer is the maximum
    server_max_batch: Count = 32  # of dynamic batching
    where: str | None = None  # conditions on the best variant: accuracy_drop<=0.2pt, p95_ms<=20
    note: str | None = None  # printed in the report

    @field_validator("where")
    @classmethod
    def _can_be_read(cls, value: str | None) -> str | None:
        from bench.report.conditions import parse_conditions

        if value is not None:
            parse_conditions(value)
        return value
