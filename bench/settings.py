"""What a benchmark does: the ``bench`` section of a suite and of ``kotune bench … key=value``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from finetune.recipes.sections import Count, Positive, Section, Share

Seconds = Annotated[float, Field(gt=0)]
S = TypeVar("S", bound="BenchSettings")
UNMEASURED = {"where", "note"}  # change the report, not what is measured


class BenchSettings(Section):
    """What every task is asked: how much is measured, of what, and where. Durations in seconds.

    ``processes`` fresh processes per variant, each visited ``rounds`` times in a random order:
    start-up layout varies more between processes than a timer does within one. More are added
    until every ratio's interval is narrow (``bench/rounds/schedule.py``), but not where a number
    was asked for and neither ``target_half_width`` nor ``time_budget_s`` was: three are three.
    """

    seed: Annotated[int, Field(ge=0)] = 42
    processes: Count = 5
    rounds: Count = 4
    test_rows: Count | None = None  # None: all; a number: that many, drawn with `seed`
    accuracy: bool | None = None  # None: unless a base has random weights; true: then too
    warmup_s: Seconds = 10.0  # at most; it ends when calls are stable
    target_half_width: Share | None = 0.03  # of latency ratios, relative; None: never more rounds
    time_budget_s: Seconds | None = None  # of start-up and rounds; one round always runs
    call_timeout_s: Seconds = 3600.0  # a worker silent for longer failed
    threads: Count | None = None  # None: every core this process may use
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.8  # of free memory, for workers at once
    variants: Literal["default"] | list[str] = "default"
    baseline: str | None = None  # None: full-pytorch-fp32, else the first PyTorch variant
    noise_pair: bool = True  # the baseline a second time: what it differs by is noise
    where: str | None = None  # conditions on the best variant: accuracy_drop<=0.2pt, p95_ms<=20
    note: str | None = None  # printed in the report

    @model_validator(mode="before")
    @classmethod
    def _as_many_as_asked(cls, given: Any) -> Any:
        keys = set(given) if isinstance(given, dict) else set()
        limits = {"target_half_width", "time_budget_s"}
        if keys & {"processes", "rounds"} and not keys & limits:
            return {**given, "target_half_width": None}
        return given

    @field_validator("where")
    @classmethod
    def _can_be_read(cls, value: str | None) -> str | None:
        from bench.results.conditions import parse_conditions

        if value is not None:
            parse_conditions(value)
        return value


def folder_settings(overrides: list[str], kind: type[S]) -> S:
    """The bench section from ``rounds=5`` or ``bench.rounds=5``; raises RecipeError."""
    from finetune.recipes.files import apply_overrides, check_recipe

    plain = [override.removeprefix("bench.") for override in overrides]
    return check_recipe(kind, apply_overrides({}, plain), "bench")


class BenchSection(BenchSettings):
    """What a benchmark of text classification is asked; rows are reviews of the test set.

    ``grid``: latency over batch size and length; ``server``: the highest rate that holds a p99
    bound. ``device`` cuda: PyTorch and ONNX fp32; int8 stays on the CPU.
    """

    latency_rows: Count = 100  # one review at a time, the same ones in every round
    throughput_rows: Annotated[int, Field(ge=0)] = 512  # in bulk
    throughput_rounds: Count = 3  # of each process's rounds
    throughput_batch_tokens: Count | None = None  # padded; None: 512 on a CPU, 16384 on a GPU
    device: Literal["cpu", "cuda"] = "cpu"
    grid: bool = False
    grid_batches: tuple[Count, ...] = (1, 8, 32)
    grid_lengths: tuple[Annotated[int, Field(ge=4)], ...] = (16, 32, 64, 128)  # tokens
    server: bool = False
    server_p99_ms: Annotated[float, Field(gt=0)] = 100.0
    server_queries: Annotated[int, Field(ge=100)] = 300  # a trial; p99 of fewer is the maximum
    server_max_batch: Count = 32  # of dynamic batching


class SpeechBenchSection(BenchSettings):
    """What a benchmark of speech recognition is asked.

    ``lengths_s``: recordings of these lengths are timed, each ``calls`` times a round.
    ``base_size`` also times facebook/wav2vec2-base-960h's exact architecture with random
    weights in the artifact's precisions; ``conv_ablation`` adds int8 convolutions, which are
    expected to lose. ``max_wer_increase``: the headline names the fastest variant within it.
    """

    rounds: Count = 2
    target_half_width: Share | None = 0.05
    call_timeout_s: Seconds = 1800.0
    calls: Count = 3
    lengths_s: Annotated[list[Positive], Field(min_length=1)] = Field([1, 5, 15, 30])
    device: Literal["cpu"] = "cpu"
    base_size: bool = False
    conv_ablation: bool = False
    max_wer_increase: Annotated[float, Field(ge=0, le=1)] = 0.005  # a share: 0.005 = half a point
