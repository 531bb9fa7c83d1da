"""Speech recognition as a guest of the benchmark: recordings in, transcripts out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.engines.prepare import Making, Prepared, run_bytes, weights_bytes
from bench.instruments.timing import choose_rows
from bench.rounds.compose import data_facts
from bench.settings import SpeechBenchSection
from bench.tasks.task import Rows, Task
from bench.variants import speech as variants
from bench.variants.contenders import Contender, Variant, common_rows, runs_of
from bench.variants.speech import BASE, CONV
from finetune.run_folder import Run
from finetune.tasks.registry import SPEECH

if TYPE_CHECKING:
    import pandas as pd

    from finetune.recipes.speech import SpeechRecipe

BUFFERS = 4  # of the first convolution's output that are alive at once, cautiously
FIRST_LAYER = {"conv_dim": [512], "conv_stride": [5]}  # base-960h's


@dataclass(frozen=True)
class Recordings(Rows):
    """Paths of files that all workers read; ``references`` are what the test ones say."""

    references: list[str] = field(default_factory=list)


class SpeechTask(Task):
    """Recordings are transcribed; word error rate and speed by the length of the audio."""

    name = SPEECH
    settings = SpeechBenchSection
    engines = "bench.engines.speech"
    unit = "recording"
    proof_settings = ("accuracy=false", "lengths_s=[5]", "calls=20")

    def list_variants(
        self, contenders: Sequence[Contender], settings: SpeechBenchSection
    ) -> tuple[list[Variant], list[Variant]]:
        """Every way to run the trained models; the base size and int8 convolutions on request."""
        return variants.list_variants(contenders, settings)

    def choose_rows(
        self, contenders: Sequence[Contender], settings: SpeechBenchSection, scratch: Path
    ) -> Recordings:
        """The runs' test recordings as files, and joined to the lengths that are timed.

        Raises FolderError where the runs were tested on others.
        """
        import soundfile

        from finetune.data.audio import read_audio

        runs = runs_of(contenders)
        frame = common_rows(runs, rows_alike, sampling_rate)
        frame = frame.iloc[choose_rows(len(frame), settings.test_rows, settings.seed)]
        test = []
        for place, audio in enumerate(frame["audio"]):
            path = scratch / f"test-{place}.flac"
            path.write_bytes(audio)
            test.append(str(path))
        rate_hz = sampling_rate(runs[0])
        joined = np.concatenate([read_audio(audio, rate_hz) for audio in frame["audio"]])
        timed, lengths_s = [], []
        for seconds in dict.fromkeys(settings.lengths_s):
            path = scratch / f"timed-{seconds:g}.wav"
            wave = np.resize(joined, int(seconds * rate_hz))
            soundfile.write(path, wave, rate_hz, subtype="PCM_16")
            timed += [str(path)] * settings.calls
            lengths_s += [seconds] * settings.calls
        return Recordings(
            test=test,
            latency=timed,
            accuracy=settings.accuracy is not False,
            lengths_s=lengths_s,
            references=frame["text"].tolist(),
        )

    def describe_rows(self, contenders: Sequence[Contender], rows: Recordings) -> dict[str, Any]:
        """Where the recordings come from, and what they say."""
        return {
            "data": {**data_facts(contenders, rows), "latency_rows": len(set(rows.latency))},
            "references": rows.references if rows.accuracy else [],
        }

    def describe_answers(self, answers: list[str]) -> dict[str, Any]:
        """Transcripts."""
        return {"transcripts": answers}

    def making(self, variant: Variant, contenders: Sequence[Contender]) -> Making | None:
        """A merged model, base-960h's size with random weights, int8 convolutions."""
        if variant.group == BASE:
            exported = next((one.artifact for one in contenders if one.artifact), None)
            files = [*(exported.precisions if exported else ["fp32"]), CONV]
            return Making("base", runs_of(contenders)[0].folder, {"files": files})
        if variant.runtime == "merged":
            return Making("merge", variant.source.run.folder)
        if variant.file == CONV:
            return Making("convolutions", variant.source.artifact.folder)
        return None

    def describe_prepared(self, variant: Variant, made: dict[str, Any] | None) -> Prepared:
        """Sizes of what is loaded: a graph, or weights and, apart from them, an adapter."""
        if variant.group == BASE:
            exported = variant.file is not None
            folder = made["folder"] / ("artifact" if exported else "model")
            size = made["size_bytes"][variant.file if exported else "model"]
            return Prepared(dataclasses.replace(variant, folder=folder), size, None, None, None)
        run = variant.source.run
        if made is not None:
            variant = dataclasses.replace(variant, folder=made["folder"])
            size = made["size_bytes"]
        elif variant.file is not None:
            from export.graph.files import model_bytes

            size = model_bytes(variant.source.artifact.path(variant.file))
        else:
            size = run_bytes(run)
        adapted = run is not None and run.method != "full"
        return Prepared(
            variant,
            size_bytes=size,
            adapter_bytes=weights_bytes(run.folder / "model") if adapted else None,
            parameters=run.info.parameters.as_dict() if run else None,
            training_time_s=round(run.info.training_time_s, 2) if run else None,
        )

    def data_fingerprint(self, recipe: SpeechRecipe) -> str:
        """Hash of the recordings that a recipe's data are today."""
        from finetune.data.recordings import load_speech_corpus

        return load_speech_corpus(recipe.data, recipe.seed).fingerprint

    def working_bytes(self, variant: Variant, settings: SpeechBenchSection) -> int:
        """The first convolution's output for the longest audio, several times over."""
        run = variant.source.run if variant.source else None
        config = _read_config(run.folder / "model" / "config.json") if run else FIRST_LAYER
        rate_hz = sampling_rate(run) if run else 16_000
        frames = max(settings.lengths_s) * rate_hz / config["conv_stride"][0]
        return int(BUFFERS * 4 * config["conv_dim"][0] * frames)


def rows_alike(frame: pd.DataFrame) -> list[Any]:
    """What makes two test splits the same: what is heard, and what it says."""
    return [frame[name].tolist() for name in ("row", "text", "audio")]


def sampling_rate(run: Run) -> int:
    """Of what the model hears, in Hz."""
    return run.info.sampling_rate_hz


def _read_config(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else FIRST_LAYER
