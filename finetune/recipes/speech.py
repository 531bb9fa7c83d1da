"""The typed recipe of a speech run: wav2vec2 with CTC, from scratch or adapted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from finetune.recipes.sections import (
    Count,
    ExportPrecision,
    FinetuningSection,
    NotNegative,
    Positive,
    Probability,
    Recipe,
    Section,
    Share,
    precision_faults,
    told_together,
)


class SpeechModelSection(Section):
    """A hub id or folder of a wav2vec2; ``null``: from scratch, as ``architecture`` says."""

    source: str | None = None
    revision: str | None = None
    freeze_feature_encoder: bool | None = None  # None: frozen where it was pretrained


class SpeechArchitectureSection(Section):
    """A wav2vec2 from scratch, with layer norm everywhere: group norm and post-norm did not learn.

    The convolutions are most of the work, and the first ones most of that: a longer first
    kernel and stride make a step twice as fast as wav2vec2's seven layers.
    """

    hidden_size: Count = 144
    layers: Count = 3
    heads: Count = 4
    feed_forward: Count = 576
    conv_dim: list[Count] = Field([64, 96, 128, 144])
    conv_kernel: list[Count] = Field([20, 8, 4, 4])
    conv_stride: list[Count] = Field([10, 4, 4, 2])
    position_kernel: Count = 32
    position_groups: Count = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    sampling_rate_hz: Count = 16_000

    @model_validator(mode="after")
    def _fits_together(self) -> SpeechArchitectureSection:
        faults = []
        if not len(self.conv_dim) == len(self.conv_kernel) == len(self.conv_stride):
            faults.append("conv_dim, conv_kernel and conv_stride have one entry a layer each")
        if self.hidden_size % self.heads or self.hidden_size % self.position_groups:
            faults.append("hidden_size must be a multiple of heads and of position_groups")
        return told_together(self, faults)


class SpeechDataSection(Section):
    """Recordings and their transcripts: audiofolder, CSV with paths, or a hub data set.

    ``path``: a folder with train/ and test/ (or one of it), each with metadata.csv; a CSV file;
    or a hub id (``config`` and ``split`` as in ``datasets``). ``validation_size`` and
    ``test_size`` as in the text recipe; a test split of its own is used whole.
    """

    path: str
    test_path: str | None = None
    config: str | None = None
    audio_column: str = "file_name"
    text_column: str = "transcription"
    speaker_column: str | None = None
    speakers: list[str] | None = None
    without_speakers: list[str] = Field([])
    text_case: Literal["upper", "lower", "keep"] = "upper"
    rows: Count | None = None
    max_seconds: Positive = 30.0
    validation_size: Share | Count = 0.1
    test_size: Share | Count | None = None

    @model_validator(mode="after")
    def _speakers_are_known(self) -> SpeechDataSection:
        if (self.speakers or self.without_speakers) and self.speaker_column is None:
            raise ValueError("speakers and without_speakers need speaker_column")
        return self


class AugmentSection(Section):
    """What makes many recordings of few; everything off by default.

    ``joined``: up to so many recordings in a row, with pauses of 0 to ``pause_s`` around them;
    the number grows from 1 within the first ``growing_epochs`` (short ones are learnt first).
    ``speed`` 0.1: each recording at 0.9 to 1.1 of its speed. ``gain_db``: plus or minus.
    ``noise_db``: white noise at a level drawn from this one to 40 dB under the speech.
    """

    joined: Count = 1
    growing_epochs: Annotated[int, Field(ge=0)] = 0
    pause_s: NotNegative = 0.0
    speed: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    gain_db: NotNegative = 0.0
    noise_db: Annotated[float, Field(ge=0, le=40)] | None = None
    mask_time_probability: Annotated[float, Field(ge=0, lt=1)] = (
        0.0  # SpecAugment, Park et al. 2019
    )
    mask_time_length: Count = 3


class SpeechAdapterSection(Section):
    """full, or LoRA on the transformer's attention and feed-forward layers (Hu et al. 2021)."""

    method: Literal["full", "lora"] = "full"
    rank: Count = 16
    alpha: Count = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["all-linear", "attention"] | list[str] = "all-linear"


class SpeechTrainingSection(FinetuningSection):
    """The optimisation, in the names of ``transformers.TrainingArguments`` where there is one.

    A batch is filled with neighbours in length up to ``batch_seconds`` of audio, padding
    included. Frozen weights and kernels are the library's own unless the recipe asks.
    """

    epochs: Positive = 30
    batch_seconds: Positive = 60.0
    learning_rate: Positive = 3e-4
    warmup_ratio: Probability = 0.1
    base_precision: Literal["auto", "fp32"] = "fp32"
    cpu_kernels: Literal["auto", "library"] = "library"


class SpeechExportSection(Section):
    """The gates of ``kotune export`` and how the artifact cuts long files."""

    max_logit_difference: Positive = 1e-2
    max_wer_increase: Annotated[float, Field(ge=0, le=1)] = 0.01  # quantised; 0.01 = 1 point
    flip_margin: Annotated[float, Field(ge=0)] = 0.1  # of a frame's two best logits
    precisions: Annotated[list[ExportPrecision], Field(min_length=1)] | None = None  # int8-dynamic
    device: Literal["cpu", "cuda"] = "cpu"  # what the files are made for
    search: bool = False  # the fastest within max_wer_increase, of ``precisions`` (None: of all)
    calibration: Literal["minmax", "entropy", "percentile"] = "percentile"  # static int8
    calibration_rows: Count = 128  # training recordings
    smooth_alpha: Annotated[float, Field(ge=0, lt=1)] = 0.5  # SmoothQuant's; 0: no balancing
    max_unstable_words: Annotated[float, Field(ge=0, le=1)] = 0.1  # by batch and padding, a share
    sensitivity_rows: Count = 32
    stability_rows: Count = 64
    timing_rows: Count = 24
    check_rows: Count = 500
    answers: Annotated[int, Field(ge=0, le=256)] = 12  # recordings kept with logits; 0: none
    max_check_rows: Count = 5_000  # where fewer cannot tell an increase from the allowed one
    opset: Annotated[int, Field(ge=14)] = 17
    license: str | None = None  # of the model card, a hub identifier; None: the base model's own
    language: str | None = None  # of the model card; None: that of the texts' script, if one
    chunk_s: Positive = 30.0
    stride_s: NotNegative = 5.0

    @model_validator(mode="before")
    @classmethod
    def _read_older_runs(cls, content: Any) -> Any:
        """``fp16: true`` was a key of its own before there were ``precisions``."""
        if isinstance(content, dict) and "fp16" in content:
            content = dict(content)
            if content.pop("fp16"):
                content["precisions"] = [*(content.get("precisions") or ["int8-dynamic"]), "fp16"]
        return content

    @model_validator(mode="after")
    def _chunks_go_on(self) -> SpeechExportSection:
        if 2 * self.stride_s >= self.chunk_s:
            raise ValueError("chunk_s must be more than two stride_s")
        return self


class SpeechRecipe(Recipe):
    """One speech run; ``export`` travels with it."""

    task: Literal["speech-recognition"]
    model: SpeechModelSection = SpeechModelSection()
    architecture: SpeechArchitectureSection = SpeechArchitectureSection()
    data: SpeechDataSection
    augment: AugmentSection = AugmentSection()
    adapter: SpeechAdapterSection = SpeechAdapterSection()
    training: SpeechTrainingSection = SpeechTrainingSection()
    export: SpeechExportSection = SpeechExportSection()

    @model_validator(mode="after")
    def _fits_together(self) -> SpeechRecipe:
        faults, method = precision_faults(self.export.precisions, self.export.device), self.method
        if self.model.source is None and method != "full":
            faults.append(f"adapter.method={method} needs model.source: nothing to adapt")
        if self.model.source is None and self.model.freeze_feature_encoder:
            faults.append("a feature encoder that was not pretrained cannot stay frozen")
        return told_together(self, faults)

    @property
    def method(self) -> str:
        """The training method, a key of ``finetune/recipes/methods.py``."""
        return self.adapter.method

    @property
    def metric(self) -> str:
        """The figure by which the best evaluation is kept and trials are compared."""
        return "wer"

    @property
    def base_model(self) -> dict[str, Any] | None:
        """The arguments of ``models.source.resolve_base``; None from scratch."""
        if self.model.source is None:
            return None
        return {"source": self.model.source, "revision": self.model.revision}

    @property
    def unused(self) -> list[str]:
        """Keys that were set to something and change nothing, each with the reason."""
        told = super().unused
        if self.model.source is None and self.model.was_set("revision"):
            told.append("model.revision is not used: there is no model.source")
        if self.model.source is not None and self.was_set("architecture"):
            told.append(f"architecture is not used: {self.model.source} has its own")
        if self.adapter.method == "full":
            for key in ("rank", "alpha", "dropout", "target_modules"):
                if self.adapter.was_set(key):
                    told.append(f"adapter.{key} is not used by full")
        augment = self.augment
        for key, needs in (
            ("growing_epochs", "joined"),
            ("mask_time_length", "mask_time_probability"),
        ):
            if augment.was_set(key) and not augment.was_set(needs):
                told.append(f"augment.{key} is not used without augment.{needs}")
        return told
