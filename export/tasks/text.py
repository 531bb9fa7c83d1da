"""Text classification as a guest of the export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.artifact.card import write_card
from export.artifact.folder import FP32_FILE
from export.artifact.origin import describe_origin
from export.checks.accuracy import (
    UNPADDED_ROWS,
    AccuracyChecks,
    Thresholds,
    choose_rows,
)
from export.checks.ladder import Ladder
from export.graph.feeds import Feed
from export.precisions import Made, measure_all_stability, search_files
from export.quantization.calibration import calibration_feeds
from export.quantization.workshop import Workshop
from export.runtime.bundle import TEXT as TEXT_BUNDLE
from export.tasks.task import Exported, Task
from finetune.core.errors import ModelError
from finetune.recipes.kinds import TEXT
from finetune.recipes.text import ExportSection
from finetune.run_folder import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from export.runtime.classifier import OnnxClassifier


class TextTask(Task):
    """Rows are texts, answers are logits (n, labels)."""

    name = TEXT
    bundle = TEXT_BUNDLE
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
        self.checks = AccuracyChecks(choose_rows(run, settings.check_rows), thresholds)
        self.tokenizer = check_tokenizer(load_tokenizer(run.folder / "model"))

    def climb_trained(self, ladder: Ladder) -> None:
        """Training's stored logits, then the model read back from disk, in fp32."""
        from finetune.models.loading import load_trained

        ladder.climb("training", "reference", self.checks.chosen.stored_logits)
        exact = self.run.info.get("evaluation_precision", "fp32") == "fp32"
        logits = self._classify(load_trained(self.run))
        ladder.climb("reloaded", "float" if exact else "reported", logits, "training")

    def export_merged(self, ladder: Ladder, folder: Path) -> Exported:
        """Merge, check, write fp32 ONNX, config.json and the tokenizer."""
        from export.graph.merge_choice import merge_best
        from export.graph.to_onnx import export_onnx

        self._save_tokenizer(folder)
        merged = merge_best(
            self.run, self.settings.merge_base, self._classify, self.checks.chosen.labels
        )
        kind = "quantized" if merged.base == "original" else "float"  # NF4's errors are gone
        ladder.climb("merged", kind, merged.logits, "reloaded")
        merged.model.config.save_pretrained(folder)
        graph = export_onnx(merged.model, folder / FP32_FILE, opset=self.settings.opset)
        facts = {"opset": graph.opset, "inputs": list(graph.inputs), "outputs": list(graph.outputs)}
        if merged.base is not None:
            facts |= {"merge_base": merged.base, "merges": merged.measured}
        facts |= describe_origin(self.run, folder, self.settings.license)
        return describe_encoder(merged.model, facts)

    def open_runtime(
        self, folder: Path, precision: str, *, provider: str = "cpu"
    ) -> OnnxClassifier:
        """The classifier as predict.py has it."""
        from export.runtime.classifier import OnnxClassifier

        return OnnxClassifier(folder, precision, provider=provider, verify=False)

    def answer(self, runtime: OnnxClassifier, rows: Sequence[str]) -> np.ndarray:
        """Logits (n, labels) of texts."""
        return runtime.logits(rows)

    def climb_fp32(self, ladder: Ladder, folder: Path, name: str, before: str) -> None:
        """In batches, and the first rows once more alone, without padding."""
        classifier = self.open_runtime(folder, "fp32")
        texts = self.checks.rows
        ladder.climb(name, "float", classifier.logits(texts), before)
        alone = [classifier.logits([text]) for text in texts[:UNPADDED_ROWS]]
        ladder.climb(f"{name}-unpadded", "float", np.concatenate(alone), before)

    def describe(self) -> dict[str, Any]:
        """How rows are padded."""
        return {"padding_side": "right", "pad_token_id": self.tokenizer.pad_token_id}

    def make_feeds(self, folder: Path, manifest: dict[str, Any]) -> list[Feed]:
        """Training texts in batches of one length."""
        return calibration_feeds(self.run, self.settings.calibration_rows, folder, manifest)

    def make_files(self, workshop: Workshop, ladder: Ladder) -> list[Made]:
        """What a search finds, where one is asked for."""
        if self.settings.search:
            return search_files(workshop, self.settings, ladder)
        return super().make_files(workshop, ladder)

    def measure_stability(self, workshop: Workshop, ladder: Ladder) -> None:
        """Quantised files on rows alone, in batches, padded."""
        measure_all_stability(workshop, self.settings, ladder, self.run.recipe.seed)

    def write_card(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Write README.md."""
        write_card(folder, manifest)

    def _classify(self, model: PreTrainedModel) -> np.ndarray:
        from finetune.models.loading import predict_logits

        return predict_logits(
            model, self.tokenizer, self.checks.rows, max_length=self.run.max_length
        )

    def _save_tokenizer(self, folder: Path) -> None:
        """Write the run's tokenizer; clients of the artifact truncate where training did."""
        self.tokenizer.model_max_length = self.run.max_length
        self.tokenizer.save_pretrained(folder)


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
