"""Text classification as a guest of the export."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.artifact.answers import spread_by_length
from export.artifact.card_metadata import Figure, base_name
from export.artifact.card_tables import Column, number, with_interval
from export.artifact.folder import FP32_FILE
from export.artifact.manifest import ArtifactManifest
from export.checks.accuracy import (
    UNPADDED_ROWS,
    AccuracyChecks,
    Thresholds,
    choose_rows,
)
from export.checks.ladder import Ladder
from export.checks.stability import Stability, measure_stability
from export.checks.text_edges import make_text_edges
from export.graph.feeds import Feed
from export.quantization.calibration import calibration_feeds
from export.runtime.bundle import TEXT as TEXT_BUNDLE
from export.runtime.manifest import Manifest
from export.tasks.task import Exported, Task
from finetune.core.errors import ModelError
from finetune.core.escaping import escape_markdown, markdown_code
from finetune.core.preparation import UNPREPARED, read_preparation
from finetune.recipes.text import ExportSection
from finetune.run_folder import Run
from finetune.tasks.registry import TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from export.runtime.classifier import OnnxClassifier


EXAMPLE = "TEXT"  # of a card without a row of the data
EXAMPLE_CHARACTERS = 60
COLUMNS: tuple[Column, ...] = (
    ("accuracy (95 %)", with_interval("accuracy", "accuracy_interval", ".4f")),
    ("macro F1 (95 %)", with_interval("f1_macro", "f1_interval", ".4f")),
    ("largest logit difference", number("largest_logit_difference", ".1e")),
    ("mean", number("mean_logit_difference", ".1e")),
    ("flipped", number("flipped", "d")),
    ("flipped, margin over limit", number("flipped_above_margin", "d")),
    ("McNemar p", number("mcnemar_p", ".3g")),
)


class TextCard:
    """What the card of a classifier says."""

    pipeline_tag = "text-classification"
    library = "transformers.js"  # whose layout this is; Optimum opens it too
    metrics = ("accuracy", "f1")
    columns = COLUMNS

    def introduce(self, manifest: ArtifactManifest) -> str:
        """Labels, base model, method, length."""
        labels = ", ".join(map(escape_markdown, manifest.labels))
        base = markdown_code(base_name(manifest.base))
        kotune = manifest.provenance.kotune or ""
        return f"""A text classifier with the labels {labels}: {base},
fine-tuned ({manifest.method}) and exported to ONNX by kotune {kotune}.
{describe_preparation(manifest)}"""

    def show_use(self, manifest: ArtifactManifest) -> str:
        """predict.py, then Optimum's pipeline, on the artifact's example."""
        precision = "int8" if "int8" in manifest.files else next(iter(manifest.files))
        file = Path(manifest.files[precision].path)
        example = " ".join((manifest.example or EXAMPLE).replace("```", "").split())
        return f"""`predict.py` needs Python 3.10 with numpy, onnxruntime and tokenizers, and
nothing else:

```
python predict.py {shlex.quote(example)}
python predict.py --json < texts.txt
```

With Optimum and transformers:

```python
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime, which reports its use to its maker
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

folder = "."  # or the hub id
model = ORTModelForSequenceClassification.from_pretrained(
    folder, subfolder="{file.parent}", file_name="{file.name}"
)
classify = pipeline("text-classification", model, tokenizer=AutoTokenizer.from_pretrained(folder))
print(classify({json.dumps(example, ensure_ascii=False)}, truncation=True))
```"""

    def figures(self, measured: dict[str, Any]) -> list[Figure]:
        """Accuracy and macro F1."""
        if measured.get("accuracy") is None:
            return []
        return [
            Figure("accuracy", "Accuracy ({what})", measured["accuracy"]),
            Figure("f1", "F1 (macro, {what})", measured["f1_macro"]),
        ]

    def describe_test(self, measured: dict[str, Any]) -> str:
        """Accuracy with its interval, macro F1."""
        low, high = measured["accuracy_interval"]
        return (
            f"accuracy {measured['accuracy']:.4f} ({low:.4f} to {high:.4f}), macro F1 "
            f"{measured['f1_macro']:.4f}"
        )


class TextTask(Task):
    """Rows are texts, answers are logits (n, labels)."""

    name = TEXT
    bundle = TEXT_BUNDLE
    call = "export.runtime.classifier:OnnxClassifier.predict"
    card = TextCard()
    loss_key = AccuracyChecks.loss_key
    vocabulary_file = "tokenizer.json"
    trained_metrics = ("rows", "accuracy", "accuracy_interval", "f1_macro", "f1_binary")
    checks: AccuracyChecks

    def __init__(self, run: Run, settings: ExportSection) -> None:
        from finetune.models.loading import load_tokenizer

        super().__init__(run, settings)
        thresholds = Thresholds(
            settings.max_logit_difference,
            settings.max_accuracy_drop,
            settings.flip_margin,
            settings.max_flipped_above_margin,
        )
        self.tokenizer = check_tokenizer(load_tokenizer(run.folder / "model"))
        rows = choose_rows(run, settings.check_rows, settings.max_check_rows)
        edges = make_text_edges(rows.texts, run.max_length, self._count_tokens)
        self.checks = AccuracyChecks(rows, thresholds, edges)

    def climb_trained(self, ladder: Ladder) -> None:
        """Training's stored logits, then the model read back from disk, in fp32."""
        from finetune.models.loading import load_trained

        ladder.climb("training", "reference", self.checks.chosen.stored_logits)
        exact = self.run.info.evaluation_precision in (None, "fp32")
        model = load_trained(self.run)
        kind = "float" if exact else "reported"
        edges = self._classify_edges(model)
        ladder.climb("reloaded", kind, self._classify(model), "training", edges=edges)

    def export_merged(self, ladder: Ladder, folder: Path) -> Exported:
        """Merge, check, write fp32 ONNX, config.json and the tokenizer."""
        from export.graph.merging import merge_best
        from export.graph.to_onnx import export_onnx

        self._save_tokenizer(folder)
        merged = merge_best(
            self.run, self.settings.merge_base, self._classify, self.checks.chosen.labels
        )
        kind = "quantized" if merged.base == "original" else "float"  # NF4's errors are gone
        edges = self._classify_edges(merged.model)
        ladder.climb("merged", kind, merged.logits, "reloaded", edges=edges)
        merged.model.config.save_pretrained(folder)
        graph = export_onnx(merged.model, folder / FP32_FILE, opset=self.settings.opset)
        facts = {"opset": graph.opset, "inputs": list(graph.inputs), "outputs": list(graph.outputs)}
        if merged.base is not None:
            facts |= {"merge_base": merged.base, "merges": merged.measured}
        return describe_encoder(merged.model, facts)

    def open_runtime(
        self, folder: Path, precision: str, *, provider: str = "cpu"
    ) -> OnnxClassifier:
        """The classifier as predict.py has it."""
        from export.runtime.classifier import OnnxClassifier

        return OnnxClassifier(folder, precision, provider=provider, verify=False)

    def answer(
        self, runtime: OnnxClassifier, rows: Sequence[str], *, alone: bool = False
    ) -> np.ndarray:
        """Logits (n, labels) of texts."""
        if alone:
            return np.concatenate([runtime.logits([text]) for text in rows])
        return runtime.logits(rows)

    def climb_fp32(self, ladder: Ladder, folder: Path, name: str, before: str) -> None:
        """In batches, and the first rows once more alone, without padding."""
        runtime = self.open_runtime(folder, "fp32")
        rows, made_up = self.checks.rows, [edge.row for edge in self.checks.edges]
        answers, edges = self.answer(runtime, rows), self.answer(runtime, made_up)
        again = partial(self.run_file, folder, "fp32")
        ladder.climb(name, "float", answers, before, edges=edges, again=again)
        answers = self.answer(runtime, rows[:UNPADDED_ROWS], alone=True)
        edges = self.answer(runtime, made_up, alone=True)
        ladder.climb(f"{name}-unpadded", "float", answers, before, edges=edges)

    @property
    def texts(self) -> Sequence[str]:
        """The rows themselves."""
        return self.checks.rows

    def describe(self) -> dict[str, Any]:
        """How rows are prepared and padded, one of them for the card where the owner lets it."""
        shown = {"example": choose_example(self.texts)} if self.settings.card_example else {}
        return {
            "preparation": self.run.preparation.as_dict(),
            "padding_side": "right",
            "pad_token_id": self.tokenizer.pad_token_id,
            **shown,
        }

    def make_feeds(self, folder: Path, manifest: Manifest) -> list[Feed]:
        """Training texts in batches of one length."""
        return calibration_feeds(self.run, self.settings.calibration_rows, folder, manifest)

    def list_timed(self, folder: Path) -> list[str]:
        """The first texts."""
        return list(self.checks.rows[: self.settings.timing_rows])

    def keep_rows(self, folder: Path, count: int) -> list[str]:
        """Texts of every length."""
        texts = self.checks.rows
        return [texts[row] for row in spread_by_length([len(text) for text in texts], count)]

    def measure_stability(self, folder: Path, manifest: Manifest, precision: str) -> Stability:
        """Labels of texts alone, in batches, padded."""
        texts, seed = self.checks.rows[: self.settings.stability_rows], self.run.recipe.seed
        return measure_stability(folder, manifest, precision, texts, seed=seed)

    @property
    def max_unstable(self) -> float:
        """The share of labels that may depend on company."""
        return self.settings.max_unstable_labels

    def _classify(self, model: PreTrainedModel, texts: Sequence[str] | None = None) -> np.ndarray:
        """PyTorch's logits of texts; None: of the check rows."""
        from finetune.models.predicting import predict_logits

        texts = self.checks.rows if texts is None else texts
        return predict_logits(
            model,
            self.tokenizer,
            texts,
            preparation=self.run.preparation,
            max_length=self.run.max_length,
        )

    def _classify_edges(self, model: PreTrainedModel) -> np.ndarray:
        return self._classify(model, [edge.row for edge in self.checks.edges])

    def _count_tokens(self, text: str) -> int:
        prepared = self.run.preparation.many([text])
        return len(self.tokenizer(prepared, truncation=False, verbose=False)["input_ids"][0])

    def _save_tokenizer(self, folder: Path) -> None:
        """Write the run's tokenizer; clients of the artifact truncate where training did."""
        from export.checks.tokens import check_tokens
        from finetune.models.encoding import keep_preparation
        from finetune.models.tokenizer import save_tokenizer

        self.tokenizer.model_max_length = self.run.max_length
        keep_preparation(self.tokenizer, self.run.preparation)
        save_tokenizer(self.tokenizer, folder)
        check_tokens(self.tokenizer, folder, self.run.preparation, self.run.max_length)


def describe_preparation(manifest: ArtifactManifest) -> str:
    """What a client has to do to a text before the tokenizer reads it."""
    how = read_preparation(manifest.preparation, UNPREPARED)
    steps = [f"Unicode {how.unicode}"] if how.unicode != "none" else []
    steps += ["lower case"] if how.casing == "lower" else []
    steps += ["runs of white space as one space"] if how.whitespace == "fold" else []
    kept = "end" if how.truncation_side == "left" else "beginning"
    told = f"Texts are cut at {manifest.max_length} tokens, of which the {kept} is kept"
    if not steps:
        return f"{told}, and read as they come."
    return (
        f"{told}.\nThey were prepared in training ({', '.join(steps)}); `predict.py` does the "
        "same,\nother clients must."
    )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The same; raises ModelError where no client could use it without transformers."""
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise ModelError(
            "the artifact needs a fast tokenizer with a padding token",
            received=type(tokenizer).__name__,
        )
    return tokenizer


def describe_encoder(model: PreTrainedModel, facts: dict[str, Any]) -> Exported:
    """What fusion and the quantisers must know of a merged classifier."""
    children = {name for name, _ in model.named_children()}
    return Exported(
        facts,
        head_modules=tuple(sorted(children - {model.base_model_prefix})),
        heads=model.config.num_attention_heads,
        hidden_size=model.config.hidden_size,
    )


def choose_example(texts: Sequence[str]) -> str | None:
    """A row that fits a line and shows every character; else the first words of one; else None."""
    plain = [text for text in texts if text.strip() and text.isprintable()]
    short = [text for text in plain if len(text) <= EXAMPLE_CHARACTERS]
    if short:
        return short[0].strip()
    return plain[0][:EXAMPLE_CHARACTERS].strip() if plain else None
