"""Documents of folders as the version before typed documents wrote them, and older ones."""

from __future__ import annotations

from typing import Any

DIGEST = "0f" * 32

TEXT_RUN: dict[str, Any] = {
    "schema": "kotune.run/1",
    "name": "before",
    "task": "text-classification",
    "method": "lora",
    "base": {
        "source": "tiny",
        "revision": None,
        "local_only": True,
        "random_weights": False,
        "seed": 0,
        "weights_sha256": DIGEST,
    },
    "device": "cpu",
    "precision": "fp32",
    "evaluation_precision": "fp32",
    "threads": 2,
    "data_fingerprint": DIGEST,
    "weights_bytes": 321,
    "parameters": {"total": 5_000_000, "trainable": 40_000},
    "labels": ["부정", "긍정"],
    "problem_type": "single_label_classification",
    "max_length": 32,
    "padding_side": "right",
    "preparation": {"unicode": "NFC", "casing": "keep", "whitespace": "fold"},
    "signs": [{"code": "unknown-tokens", "message": "3 %", "figures": {"split": "train"}}],
    "training_time_s": 1.5,
    "steps": 3,
    "step_times_s": [0.5, 0.5, 0.5],
    "peak_training_memory_bytes": 10_000,
    "peak_training_vram_bytes": None,
    "training": {
        "starts": 1,
        "processes": 1,
        "micro_batch": 8,
        "gradient_accumulation_steps": 2,
        "out_of_memory": [
            {
                "after_step": 1,
                "micro_batch": 16,
                "gradient_accumulation_steps": 1,
                "next_micro_batch": 8,
                "next_gradient_accumulation_steps": 2,
            }
        ],
    },
    "files": {},
}
ABSENT_FIRST = ("preparation", "problem_type", "signs", "training", "weights_bytes", "task")
FIRST_RUN = {key: value for key, value in TEXT_RUN.items() if key not in ABSENT_FIRST}
SPEECH_RUN = {
    **{key: value for key, value in TEXT_RUN.items() if key not in ("problem_type", "preparation")},
    "task": "speech-recognition",
    "labels": ["|", "A", "B"],
    "max_length": None,
    "sampling_rate_hz": 8000,
    "chunk_s": 20.0,
    "stride_s": 2,
    "new_head": True,
}

TEXT_DATA: dict[str, Any] = {
    "schema": "kotune.data/1",
    "origin": "embedded sample",
    "labels": ["부정", "긍정"],
    "splits": {
        name: {
            "rows": 20,
            "balance": {"부정": 10, "긍정": 10},
            "duplicate_texts": 0,
            "texts_changed_by_preparation": 1,
        }
        for name in ("train", "validation", "test")
    },
    "dropped": {
        "train": {
            "no_text": 1,
            "unknown_label": 1,
            "first": [{"row": 5, "why": "no text"}, {"row": 9, "line": 12, "why": "label '2'"}],
        },
        "test": None,
    },
    "test_rows_seen_in_training": 2,
    "validation_rows_seen_in_training": 1,
    "fingerprint": DIGEST,
    "notes": ["x.csv: 40 rows on 44 lines"],
    "token_lengths": {"p0": 2, "p100": 32},
    "tokens": {"train": {"texts": 20, "tokens": 200, "unknown_tokens": 6}},
}
SPEECH_DATA: dict[str, Any] = {
    "schema": "kotune.data/1",
    "origin": "recordings",
    "fingerprint": DIGEST,
    "splits": {
        name: {"rows": 4, "seconds": 8.1, "longest_s": 3.0, "words": 9, "speakers": ["ann"]}
        for name in ("train", "validation", "test")
    },
    "dropped": {"train": {"no_text": 0, "too_long": 1, "unreadable": 0, "first": []}},
    "notes": [],
}

TEXT_FIGURES = {
    "rows": 20,
    "accuracy": 0.5,
    "accuracy_interval": [0.3, 0.7],
    "f1_binary": 0.5,
    "f1_macro": 0.5,
    "f1_micro": 0.5,
    "f1_weighted": 0.5,
    "loss": 0.69,
    "confusion": [[5, 5], [5, 5]],
}
TEXT_METRICS: dict[str, Any] = {
    "schema": "kotune.metrics/1",
    "validation": {"all": TEXT_FIGURES},
    "test": {"all": TEXT_FIGURES, "unseen": {**TEXT_FIGURES, "rows": 18}},
    "history": [{"step": 3, "epoch": 1.0, "loss": 0.7, "eval_loss": 0.69, "eval_accuracy": 0.5}],
    "best": {"step": 3, "accuracy": 0.5},
}
SPEECH_FIGURES = {
    "rows": 4,
    "words": 9,
    "word_errors": 3,
    "wer": 0.3333,
    "wer_interval": [0.1, 0.6],
    "cer": 0.2,
    "cer_interval": [0.1, 0.4],
    "exact": 0.25,
}
SPEECH_METRICS: dict[str, Any] = {
    "schema": "kotune.metrics/1",
    "before": {"validation": SPEECH_FIGURES, "test": SPEECH_FIGURES},
    "validation": SPEECH_FIGURES,
    "test": SPEECH_FIGURES,
    "history": [],
    "best": {"step": None, "wer": None},
}
PROVENANCE: dict[str, Any] = {
    "schema": "kotune.provenance/1",
    "created": "2026-11-28T00:00:00+00:00",
    "command": "kotune finetune recipe.yaml",
    "seed": 42,
    "kotune": "0.1.0",
    "git": {"commit": "abc", "dirty": False},
    "python": "3.12.1",
    "platform": "Linux",
    "packages": {"torch": "2.8.0"},
    "hardware": {
        "cpu": "a processor",
        "cpu_flags": ["avx2"],
        "cores": 2,
        "memory_bytes": 8_000_000_000,
        "gpus": [],
    },
    "training": {"starts": 1, "processes": 1},
}

STEP = {
    "name": "onnx-fp32",
    "kind": "float",
    "before": "merged",
    "rows": 20,
    "accuracy": 0.5,
    "f1_macro": 0.5,
    "largest_logit_difference": 1e-6,
    "mean_logit_difference": 1e-7,
    "flipped": 0,
    "flipped_above_margin": 0,
    "failure": None,
}
TEXT_MANIFEST: dict[str, Any] = {
    "schema": "kotune.artifact/1",
    "name": "before",
    "task": "text-classification",
    "status": "passed",
    "method": "lora",
    "base": TEXT_RUN["base"],
    "labels": ["부정", "긍정"],
    "max_length": 32,
    "language": "ko",
    "preparation": {"unicode": "NFC", "casing": "keep", "whitespace": "fold"},
    "padding_side": "right",
    "pad_token_id": 1,
    "example": "재미있어요",
    "opset": 17,
    "inputs": ["input_ids", "attention_mask"],
    "outputs": ["logits"],
    "parent": {"run": "before", "run_sha256": DIGEST, "files": {"recipe.yaml": DIGEST}},
    "tokenizer_sha256": DIGEST,
    "data": {
        "origin": "embedded sample",
        "fingerprint": DIGEST,
        "validation_rows_seen_in_training": 1,
        "test_rows_seen_in_training": 2,
    },
    "signs": TEXT_RUN["signs"],
    "metrics": {"test": {"rows": 20, "accuracy": 0.5, "accuracy_interval": [0.3, 0.7]}},
    "license": None,
    "files": {
        "fp32": {
            "path": "onnx/model.onnx",
            "arithmetic": "fp32",
            "checked_in": "fp32",
            "bytes": 100,
        },
        "int8": {
            "path": "onnx/model_quantized.onnx",
            "quantization": "dynamic",
            "graph": "fused",
            "instruction_set": {"name": "avx2", "reduce_range": True},
            "integer_nodes": 12,
            "arithmetic": "fp32",
            "checked_in": "fp32",
            "bytes": 30,
        },
    },
    "settings": {"opset": 17, "max_logit_difference": 0.001},
    "ladder": [STEP],
    "provenance": {key: PROVENANCE[key] for key in PROVENANCE if key not in ("schema", "training")},
    "fused_attentions": 2,
    "stability": {"int8": {"rows": 20, "unstable_labels": 0}},
    "notes": [],
    "sha256": {},
}
ABSENT_FROM_FIRST = ("task", "language", "preparation", "example", "data", "signs", "metrics")
FIRST_MANIFEST = {
    key: value for key, value in TEXT_MANIFEST.items() if key not in ABSENT_FROM_FIRST
}
SPEECH_MANIFEST = {
    **{key: value for key, value in TEXT_MANIFEST.items() if key not in ("preparation", "example")},
    "task": "speech-recognition",
    "labels": ["|", "A", "B"],
    "max_length": None,
    "sampling_rate_hz": 8000,
    "chunk_s": 20,
    "stride_s": 2.0,
}
