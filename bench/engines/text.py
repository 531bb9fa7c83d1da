"""What a worker runs: one loader per runtime, each importing its own libraries and no other.

Every engine takes text and gives a class id on the host, so that tokenisation, copies and, on
CUDA, synchronisation are inside what is timed, for all runtimes alike.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.engines.cuda import compile_model, fix_tf32, set_torch_precision, torch_dtype
from bench.instruments.meters import preload_cuda_libraries
from finetune.core.preparation import Preparation
from finetune.recipes.methods import METHODS

LIBRARIES = {
    "pytorch": ("finetune.models.loading", "finetune.run_folder", "transformers"),
    "merged": ("finetune.models.loading", "transformers"),
    "compiled": ("finetune.models.loading", "transformers"),
    "pipeline": ("torch", "transformers"),
    "optimum": ("torch", "transformers", "optimum.onnxruntime"),
    "onnx": ("export.runtime.classifier",),
    "sklearn": (
        "bench.engines.baselines",
        "sklearn.linear_model",
        "sklearn.feature_extraction.text",
    ),
}
TORCH_RUNTIMES = ("pytorch", "merged", "compiled", "pipeline", "optimum")


@dataclass(frozen=True)
class Engine:
    """A loaded variant. ``classify`` one text, ``classify_many`` in batches of a given size.

    ``classify_batch`` answers all texts in one padded batch; None where ``classify_many`` does.
    ``count_tokens`` counts those of a text as the model gets it; None where there are none.
    """

    classify: Callable[[str], int]
    classify_many: Callable[[Sequence[str], int], list[int]]
    peak_vram_bytes: Callable[[], int | None] = lambda: None
    facts: dict[str, Any] = field(default_factory=dict)  # what was found on loading, for the report
    classify_batch: Callable[[Sequence[str]], list[int]] | None = None
    count_tokens: Callable[[str], int] | None = None

    def in_one_batch(self, texts: Sequence[str]) -> list[int]:
        """Class ids of all ``texts``, computed together."""
        if self.classify_batch is not None:
            return self.classify_batch(texts)
        return self.classify_many(texts, len(texts))


def import_libraries(variant: dict[str, Any], threads: int) -> None:
    """Import what the variant will need, so that load time is loading; fix torch's threads."""
    fix_tf32(variant["precision"], variant["device"])
    for name in LIBRARIES[variant["runtime"]]:
        importlib.import_module(name)
    if variant["runtime"] in TORCH_RUNTIMES:
        import torch

        torch.set_num_threads(threads)
        set_torch_precision(variant["precision"])
        _import_architecture(variant)
    elif variant["device"].startswith("cuda"):
        preload_cuda_libraries()


def _import_architecture(variant: dict[str, Any]) -> None:
    """The model class and PEFT, which transformers would import in the midst of loading."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder = Path(variant["folder"])
    if variant["runtime"] == "pytorch":
        folder = folder / "model"
        if METHODS[variant["method"]].has_adapter:
            importlib.import_module("peft")
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with contextlib.suppress(KeyError):  # an architecture that loading will complain about
        AutoModelForSequenceClassification._model_mapping[type(config)]


def load_engine(variant: dict[str, Any], threads: int) -> Engine:
    """The engine of a variant as ``variants.Variant.as_job()`` describes it."""
    loaders = {
        "pytorch": _load_pytorch,
        "merged": _load_merged,
        "compiled": _load_merged,
        "pipeline": _load_pipeline,
        "optimum": _load_optimum,
        "onnx": _load_onnx,
        "sklearn": _load_sklearn,
    }
    return loaders[variant["runtime"]](variant, threads)


def _load_pytorch(variant: dict[str, Any], threads: int) -> Engine:
    from finetune.models.loading import load_tokenizer, load_trained
    from finetune.run_folder import open_run

    run = open_run(variant["folder"], verify=False)
    dtype = torch_dtype(variant["precision"])
    model = load_trained(run, device=variant["device"], dtype=dtype)
    return _torch_engine(model, load_tokenizer(run.folder / "model"), variant)


def _load_merged(variant: dict[str, Any], threads: int) -> Engine:
    """A merged checkpoint that ``prepare`` wrote: weights in one file, as one would deploy it."""
    from transformers import AutoModelForSequenceClassification

    from finetune.models.loading import load_tokenizer

    dtype = torch_dtype(variant["precision"])
    model = AutoModelForSequenceClassification.from_pretrained(
        variant["folder"], dtype=dtype, use_safetensors=True, local_files_only=True
    )
    tokenizer = load_tokenizer(variant["folder"])
    model = model.to(variant["device"]).eval()
    if variant["runtime"] == "compiled":
        model = compile_model(model)
    return _torch_engine(model, tokenizer, variant)


def _torch_engine(model: Any, tokenizer: Any, variant: dict[str, Any]) -> Engine:
    import torch

    from finetune.models.encoding import encode_texts
    from finetune.models.loading import predict_logits

    device, max_length = variant["device"], variant["max_length"]
    preparation = Preparation(**variant["preparation"])

    def encode(text: str, **options: Any) -> Any:
        return encode_texts(tokenizer, [text], preparation, max_length=max_length, **options)

    products = "tf32" if variant["precision"] == "tf32" else "fp32"  # halves are in the weights

    def classify(text: str) -> int:
        encoded = encode(text, return_tensors="pt").to(device)
        with torch.inference_mode():
            return int(model(**encoded).logits.argmax())

    def classify_many(texts: Sequence[str], batch_size: int) -> list[int]:
        logits = predict_logits(
            model,
            tokenizer,
            texts,
            preparation=preparation,
            max_length=max_length,
            batch_size=batch_size,
            device=device,
            precision=products,
        )
        return logits.argmax(axis=1).tolist()

    return Engine(
        classify,
        classify_many,
        lambda: _peak_vram(device),
        _torch_facts(device),
        count_tokens=lambda text: len(encode(text)["input_ids"][0]),
    )


def _load_pipeline(variant: dict[str, Any], threads: int) -> Engine:
    """``transformers.pipeline`` with its defaults, truncation aside, on prepared texts."""
    from transformers import pipeline

    device = variant["device"]
    pipe = pipeline("text-classification", model=variant["folder"], device=device)
    return _pipeline_engine(pipe, variant["max_length"], variant)


def _load_optimum(variant: dict[str, Any], threads: int) -> Engine:
    from bench.engines.optimum_pipeline import open_optimum

    folder, device = Path(variant["folder"]), variant["device"]
    pipe, max_length = open_optimum(folder, variant["precision"], device, threads)
    return _pipeline_engine(pipe, max_length, variant)


def _pipeline_engine(pipe: Any, max_length: int | None, variant: dict[str, Any]) -> Engine:
    """A text classification pipeline as an engine, batches of the asked size in bulk.

    It prepares no text itself: it is given what the model was trained on.
    """
    ids, device = pipe.model.config.label2id, variant["device"]
    preparation = Preparation(**variant["preparation"])
    pipe.tokenizer.truncation_side = preparation.truncation_side
    cut = {"truncation": True, "max_length": max_length}

    def classify(text: str) -> int:
        return int(ids[pipe(preparation(text), **cut)[0]["label"]])

    def classify_many(texts: Sequence[str], batch_size: int) -> list[int]:
        answers = pipe(preparation.many(texts), batch_size=batch_size, **cut)
        return [int(ids[answer["label"]]) for answer in answers]

    return Engine(
        classify,
        classify_many,
        lambda: _peak_vram(device),
        _torch_facts(device),
        count_tokens=lambda text: len(pipe.tokenizer(preparation(text), **cut)["input_ids"]),
    )


def _load_onnx(variant: dict[str, Any], threads: int) -> Engine:
    from export.runtime.classifier import OnnxClassifier

    classifier = OnnxClassifier(
        variant["folder"],
        variant["precision"],
        threads=threads,
        provider=variant["device"],
        verify=False,  # the benchmark has done so before it started its workers
        allow_failed=True,  # measured all the same; the report says that it failed
    )

    def classify(text: str) -> int:
        return int(classifier.logits([text])[0].argmax())

    def classify_many(texts: Sequence[str], batch_size: int) -> list[int]:
        return classifier.logits(texts).argmax(axis=1).tolist()  # it plans batches by tokens

    def classify_batch(texts: Sequence[str]) -> list[int]:
        whole = len(texts) * classifier.manifest["max_length"]
        return classifier.logits(texts, batch_tokens=whole).argmax(axis=1).tolist()

    def count_tokens(text: str) -> int:
        return len(classifier.encode([text])[0])

    return Engine(classify, classify_many, classify_batch=classify_batch, count_tokens=count_tokens)


def _load_sklearn(variant: dict[str, Any], threads: int) -> Engine:
    from bench.engines.baselines import load_tfidf

    model = load_tfidf(Path(variant["folder"]))

    def classify_many(texts: Sequence[str], batch_size: int) -> list[int]:
        parts = [
            model.predict(texts[start : start + batch_size])
            for start in range(0, len(texts), batch_size)
        ]
        return np.concatenate(parts).tolist()

    return Engine(lambda text: int(model.predict([text])[0]), classify_many)


def _peak_vram(device: str) -> int | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated()


def _torch_facts(device: str) -> dict[str, Any]:
    if not device.startswith("cuda"):
        return {}
    import torch

    return {"gpu": torch.cuda.get_device_name()}
