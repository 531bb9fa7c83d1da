"""What a speech benchmark measures, how often, and by whose clock."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune.recipes.sections import Count, Positive, Section


class SpeechBenchSection(Section):
    """``kotune bench RUN ARTIFACT rounds=5``: the keys and what they mean.

    ``lengths_s``: recordings of these lengths are timed, each ``calls`` times a round.
    ``base_size`` also times facebook/wav2vec2-base-960h's exact architecture with random
    weights in the artifact's precisions; ``conv_ablation`` adds int8 convolutions, which are
    expected to lose. ``max_wer_increase``: the headline names the fastest variant within it.
    """

    rounds: Count = 5
    calls: Count = 3
    lengths_s: list[Positive] = Field([1, 5, 15, 30])
    threads: Count | None = None
    test_rows: Count | None = None
    base_size: bool = False
    conv_ablation: bool = False
    max_wer_increase: Annotated[float, Field(ge=0, le=1)] = 0.005  # a share: 0.005 = half a point
    seed: Annotated[int, Field(ge=0)] = 0
    call_timeout_s: Positive = 1800.0
