"""Torch-free inference on an artifact folder: stdlib, numpy, onnxruntime, tokenizers.

One file that imports nothing of kotune, so that it can be copied beside a model and run alone.

    classifier = OnnxClassifier("artifacts/nsmc-lora")
    classifier("영화 정말 재미있어요")  # [{"label": "긍정", "score": 0.98}]
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

from export.openvino_session import OpenVinoSession

SCHEMA = "kotune.artifact/1"
MANIFEST_KEYS = (
    "name",
    "method",
    "status",
    "labels",
    "max_length",
    "pad_token_id",
    "files",
    "sha256",
)
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
PREFERENCE = {"cpu": ("int8", "fp32"), "cuda": ("fp32",)}  # int8 operators have no CUDA kernels
BATCH_TOKENS = 2048  # padded tokens a batch: enough to fill the cores, little memory
WINDOW_TEXTS = 4096  # texts tokenised and sorted at once: memory does not grow with the input


class ArtifactError(Exception):
    """A folder, precision or provider this runtime cannot serve."""


class OnnxClassifier:
    """A text classifier read from an artifact folder.

    ``precision`` is a key of the manifest's files ("int8", "fp32"); None takes the fastest one
    there is. ``threads`` defaults to the cores this process may use. ``verify`` hashes the files
    that are read. In fp32 a row's answer does not depend on its batch; in dynamic int8 it does,
    slightly (onnxruntime#8625). Raises ArtifactError, never falls back to another provider.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        precision: str | None = None,
        *,
        threads: int | None = None,
        provider: str = "cpu",
        verify: bool = True,
        allow_failed: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        if self.manifest["status"] == "failed" and not allow_failed:
            raise ArtifactError(f"{self.folder} failed its export checks; see its manifest.json")
        self.provider = provider
        self.precision = _choose_precision(self.manifest, precision, provider)
        self.labels: list[str] = list(self.manifest["labels"])
        self.threads = threads or available_cores()
        model = self.manifest["files"][self.precision]["path"]
        if verify:
            verify_files(self.folder, self.manifest, ("tokenizer.json", model))
        self._pad_id = int(self.manifest["pad_token_id"])
        self._tokenizer = _open_tokenizer(self.folder, int(self.manifest["max_length"]))
        self._session = _open_session(self.folder / model, provider, self.threads)
        self._inputs = [node.name for node in self._session.get_inputs()]

    def __call__(self, texts: str | Sequence[str]) -> list[dict[str, Any]]:
        """``predict``; one text counts as a list of one, as in transformers' pipeline."""
        return self.predict([texts] if isinstance(texts, str) else texts)

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The best label of each text and its probability, in input order."""
        scores = softmax(self.logits(texts))
        best = scores.argmax(axis=1)
        return [
            {"label": self.labels[index], "score": float(row[index])}
            for index, row in zip(best.tolist(), scores, strict=True)
        ]

    def logits(self, texts: Sequence[str], *, batch_tokens: int = BATCH_TOKENS) -> np.ndarray:
        """Logits (n, labels) float32 in input order; ``batch_tokens`` bounds a padded batch."""
        if len(texts) == 1:
            return self._run([self._tokenizer.encode(texts[0])])
        result = np.empty((len(texts), len(self.labels)), dtype=np.float32)
        for start in range(0, len(texts), WINDOW_TEXTS):
            window = list(texts[start : start + WINDOW_TEXTS])
            encodings = self._tokenizer.encode_batch_fast(window)
            for rows in plan_batches([len(encoding) for encoding in encodings], batch_tokens):
                result[start + rows] = self._run([encodings[row] for row in rows])
        return result

    def _run(self, encodings: list[Encoding]) -> np.ndarray:
        """One padded batch through the graph, padding on the right."""
        if len(encodings) == 1:
            ids = np.array([encodings[0].ids], dtype=np.int64)
            mask = np.ones_like(ids)
        else:
            width = max(len(encoding) for encoding in encodings)
            ids = np.full((len(encodings), width), self._pad_id, dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, encoding in enumerate(encodings):
                ids[row, : len(encoding)] = encoding.ids
                mask[row, : len(encoding)] = 1
        feed = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:  # BERT graphs want them; one segment is all zeros
            feed["token_type_ids"] = np.zeros_like(ids)
        return self._session.run(("logits",), feed)[0]


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[np.ndarray]:
    """Row numbers of each batch: longest rows first, rows x longest within ``batch_tokens``.

    Longest first, so that the memory arena reaches its size once and is then reused.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // max(1, lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def available_cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_manifest(folder: Path) -> dict[str, Any]:
    """The artifact's manifest; raises ArtifactError where there is none of this schema."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise ArtifactError(f"{folder} is no artifact: manifest.json: {fault}") from fault
    found = manifest.get("schema") if isinstance(manifest, dict) else None
    if found != SCHEMA:
        raise ArtifactError(f"{folder}/manifest.json has schema {found}, expected {SCHEMA}")
    missing = [key for key in MANIFEST_KEYS if key not in manifest]
    if missing:
        raise ArtifactError(f"{folder}/manifest.json lacks {', '.join(missing)}")
    return manifest


def verify_files(
    folder: Path, manifest: dict[str, Any], only: tuple[str, ...] | None = None
) -> None:
    """Compare SHA-256 sums with the manifest's; raises ArtifactError naming the changed file.

    ``only`` limits it to these files and their external data (``model.onnx_data``).
    """
    for name, expected in manifest["sha256"].items():
        if only is not None and not name.startswith(only):
            continue
        try:
            with (folder / name).open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as fault:
            raise ArtifactError(f"{folder / name} is missing or unreadable") from fault
        if found != expected:
            raise ArtifactError(f"{folder / name} was changed: its SHA-256 is not the manifest's")


def _choose_precision(manifest: dict[str, Any], precision: str | None, provider: str) -> str:
    """The wanted precision, or the provider's fastest among the manifest's files."""
    if provider not in PROVIDERS:
        raise ArtifactError(f"provider {provider!r} is unknown; allowed: {', '.join(PROVIDERS)}")
    files = manifest["files"]
    if precision is None:
        precision = next((name for name in PREFERENCE[provider] if name in files), None)
    if precision not in files:
        raise ArtifactError(f"no {precision} file in this artifact; it has: {', '.join(files)}")
    if provider == "cuda" and precision == "int8":
        raise ArtifactError("dynamic int8 runs on the CPU only; with CUDA use precision fp32")
    return precision


def _open_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """The tokenizer, truncating to ``max_length`` and never padding."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as fault:  # tokenizers raises plain Exception
        raise ArtifactError(f"{folder}/tokenizer.json cannot be read: {fault}") from fault
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=max_length)
    return tokenizer


def _open_session(path: Path, provider: str, threads: int) -> Any:
    """A session on exactly this provider; raises ArtifactError where it is missing."""
    if path.suffix == ".xml":
        return _open_openvino(path, provider, threads)
    wanted = PROVIDERS[provider]
    if wanted not in onnxruntime.get_available_providers():
        hint = "; pip install onnxruntime-gpu" if provider == "cuda" else ""
        raise ArtifactError(f"this onnxruntime has no {wanted}{hint}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[wanted])
    except Exception as fault:  # onnxruntime's own exception types are not public
        raise ArtifactError(f"{path} cannot be opened: {fault}") from fault
    if session.get_providers()[0] != wanted:
        raise ArtifactError(f"onnxruntime could not start {wanted} and fell back; refused")
    return session


def _open_openvino(path: Path, provider: str, threads: int) -> OpenVinoSession:
    """An OpenVINO file on the CPU; raises ArtifactError where openvino is missing."""
    if provider != "cpu":
        raise ArtifactError(f"{path.name} runs on the CPU only")
    try:
        return OpenVinoSession(path, threads)
    except ModuleNotFoundError as fault:
        raise ArtifactError(f"{path.name} needs OpenVINO: pip install openvino") from fault
    except RuntimeError as fault:
        raise ArtifactError(f"{path} cannot be opened: {fault}") from fault
