"""What a worker runs: one loader per runtime, each importing its own libraries and no other.

Every engine takes text and gives a class id on the host, so that tokenisation, copies and, on
CUDA, synchronisation are inside what is timed, for all runtimes alike. What has to be made before
(a merged checkpoint, the classical baseline) is made here too, in a process of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.engines.cuda import compile_model, fix_tf32, set_torch_precision, torch_dtype
from bench.engines.engine import Engine, load_added
from bench.instruments.meters import preload_cuda_libraries
from bench.variants.added import RUNTIMES
from export.runtime.manifest import BATCH_TOKENS
from finetune.core.preparation import Preparation
from finetune.core.provenance import describe_cuda
from finetune.recipes.methods import METHODS

LIBRARIES = {
    "pytorch": ("finetune.models.loading", "finetune.run_folder", "transformers"),
    "merged": ("finetune.models.loading", "transformers"),
    "compiled": ("finetune.models.loading", "transformers"),
    "pipeline": ("torch", "transformers"),
    "optimum": ("torch", "transformers", "optimum.onnxruntime", "export.artifact.folder"),
    "onnx": ("export.runtime.classifier",),
    "openvino": ("export.runtime.classifier",),
    "sklearn": (
        "bench.engines.baselines",
        "sklearn.linear_model",
        "sklearn.feature_extraction.text",
    ),
}
TORCH_RUNTIMES = ("pytorch", "merged", "compiled", "pipeline", "optimum")
SPARSE_ROWS = 1024  # without tokens and padding: what bounds the memory


def import_libraries(variant: dict[str, Any], threads: int) -> None:
    """Import what the variant will need, so that load time is loading; fix torch's threads."""
    fix_tf32(variant["precision"], variant["device"])
    if variant["runtime"] in RUNTIMES:
        _ = RUNTIMES[variant["runtime"]]  # imports its module
    for name in LIBRARIES.get(variant["runtime"], ()):
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
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with contextlib.suppress(KeyError):  # an architecture that loading will complain about
        AutoModelForSequenceClassification._model_mapping[type(config)]


def load_engine(variant: dict[str, Any], threads: int) -> Engine:
    """The engine of a variant as ``variants.Variant.as_job()`` describes it."""
    if variant["runtime"] in RUNTIMES:
        place = Path(variant["folder"])
        return load_added(variant["runtime"], place, variant["file"], threads)
    loaders = {
        "pytorch": _load_pytorch,
        "merged": _load_merged,
        "compiled": _load_merged,
        "pipeline": _load_pipeline,
        "optimum": _load_optimum,
        "onnx": _load_onnx,
        "openvino": _load_onnx,
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
        variant["folder"],
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    tokenizer = load_tokenizer(variant["folder"])
    model = model.to(variant["device"]).eval()
    if variant["runtime"] == "compiled":
        model = compile_model(model)
    return _torch_engine(model, tokenizer, variant)


def tokens_for(device: str, batch_tokens: int | None) -> int:
    """The tokens of a batch: as asked, else what ONNX Runtime's classifier takes there."""
    return batch_tokens or BATCH_TOKENS[device.partition(":")[0]]


def _torch_engine(model: Any, tokenizer: Any, variant: dict[str, Any]) -> Engine:
    import torch

    from finetune.models.encoding import encode_texts
    from finetune.models.predicting import predict_logits

    device, max_length = variant["device"], variant["max_length"]
    preparation = Preparation(**variant["preparation"])

    def encode(text: str, **options: Any) -> Any:
        return encode_texts(tokenizer, [text], preparation, max_length=max_length, **options)

    products = "tf32" if variant["precision"] == "tf32" else "fp32"  # halves are in the weights

    def answer(text: str) -> int:
        encoded = encode(text, return_tensors="pt").to(device)
        with torch.inference_mode():
            return int(model(**encoded).logits.argmax())

    def answer_many(texts: Sequence[str], batch_tokens: int | None) -> list[int]:
        logits = predict_logits(
            model,
            tokenizer,
            texts,
            preparation=preparation,
            max_length=max_length,
            batch_tokens=tokens_for(device, batch_tokens),
            device=device,
            precision=products,
        )
        return logits.argmax(axis=1).tolist()

    return Engine(
        answer,
        answer_many,
        lambda: _peak_vram(device),
        _torch_facts(device),
        count_tokens=lambda text: len(encode(text)["input_ids"][0]),
    )


def _load_pipeline(variant: dict[str, Any], threads: int) -> Engine:
    """``transformers.pipeline`` with its defaults, truncation aside, on prepared texts."""
    from transformers import pipeline

    from finetune.models.token_ids import check_token_ids

    pipe = pipeline(
        "text-classification",
        model=variant["folder"],
        device=variant["device"],
        trust_remote_code=False,
    )
    check_token_ids(pipe.tokenizer, Path(variant["folder"]))
    return _pipeline_engine(pipe, variant["max_length"], variant)


def _load_optimum(variant: dict[str, Any], threads: int) -> Engine:
    folder, device = Path(variant["folder"]), variant["device"]
    pipe, max_length = _open_optimum(folder, variant["precision"], device, threads)
    return _pipeline_engine(pipe, max_length, variant)


def _open_optimum(folder: Path, precision: str, device: str, threads: int) -> tuple[Any, int]:
    """A pipeline over Optimum's ONNX Runtime model, and the length at which texts are cut."""
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import pipeline

    from export.artifact.folder import open_artifact
    from export.runtime.arithmetic import provider_options
    from export.runtime.session import session_options
    from finetune.models.tokenizer import load_tokenizer

    artifact = open_artifact(folder, verify=False)
    file = artifact.path(precision)
    options = session_options(threads, artifact.manifest.files[precision])
    model = ORTModelForSequenceClassification.from_pretrained(
        artifact.folder,
        subfolder=file.parent.name,
        file_name=file.name,
        session_options=options,
        provider=f"{device.upper()}ExecutionProvider",
        provider_options=provider_options(device),
        local_files_only=True,
        trust_remote_code=False,
    )
    tokenizer = load_tokenizer(artifact.folder)
    pipe = pipeline(
        "text-classification",
        model=model,
        tokenizer=tokenizer,
        device=device,
        trust_remote_code=False,
    )
    return pipe, artifact.max_length


def _pipeline_engine(pipe: Any, max_length: int | None, variant: dict[str, Any]) -> Engine:
    """A text classification pipeline as an engine.

    It prepares no text and plans no batches itself: it is given what the model was trained on,
    in bulk one batch of the plan at a time.
    """
    from finetune.models.encoding import length_batches

    ids, device = pipe.model.config.label2id, variant["device"]
    preparation = Preparation(**variant["preparation"])
    pipe.tokenizer.truncation_side = preparation.truncation_side
    cut = {"truncation": True, "max_length": max_length}

    def answer(text: str) -> int:
        return int(ids[pipe(preparation(text), **cut)[0]["label"]])

    def answer_many(texts: Sequence[str], batch_tokens: int | None) -> list[int]:
        given = list(preparation.many(texts))
        lengths = [len(one) for one in pipe.tokenizer(given, **cut)["input_ids"]]
        answers = [0] * len(given)
        for rows in length_batches(lengths, tokens_for(device, batch_tokens)):
            found = pipe([given[row] for row in rows], batch_size=len(rows), **cut)
            for row, one in zip(rows, found, strict=True):
                answers[row] = int(ids[one["label"]])
        return answers

    return Engine(
        answer,
        answer_many,
        lambda: _peak_vram(device),
        _torch_facts(device),
        count_tokens=lambda text: len(pipe.tokenizer(preparation(text), **cut)["input_ids"]),
    )


def _load_onnx(variant: dict[str, Any], threads: int) -> Engine:
    from export.runtime.classifier import OnnxClassifier

    classifier = OnnxClassifier(
        variant["folder"],
        variant["file"],
        threads=threads,
        provider=variant["device"],
        verify=False,  # the benchmark has done so before it started its workers
        allow_failed=True,  # measured all the same; the report says that it failed
    )

    def answer(text: str) -> int:
        return int(classifier.logits([text])[0].argmax())

    def answer_many(texts: Sequence[str], batch_tokens: int | None) -> list[int]:
        return classifier.logits(texts, batch_tokens=batch_tokens).argmax(axis=1).tolist()

    def answer_batch(texts: Sequence[str]) -> list[int]:
        whole = len(texts) * classifier.manifest.max_length
        return classifier.logits(texts, batch_tokens=whole).argmax(axis=1).tolist()

    def count_tokens(text: str) -> int:
        return len(classifier.encode([text])[0])

    return Engine(answer, answer_many, answer_batch=answer_batch, count_tokens=count_tokens)


def _load_sklearn(variant: dict[str, Any], threads: int) -> Engine:
    from bench.engines.baselines import load_tfidf

    model = load_tfidf(Path(variant["folder"]))

    def answer_many(texts: Sequence[str], batch_tokens: int | None) -> list[int]:
        parts = [
            model.predict(texts[start : start + SPARSE_ROWS])
            for start in range(0, len(texts), SPARSE_ROWS)
        ]
        return np.concatenate(parts).tolist()

    return Engine(lambda text: int(model.predict([text])[0]), answer_many)


def _peak_vram(device: str) -> int | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated()


def _torch_facts(device: str) -> dict[str, Any]:
    if not device.startswith("cuda"):
        return {}
    import torch

    return {"gpu": torch.cuda.get_device_name(), "gpu_libraries": describe_cuda()}


def write_merged(source: Path, target: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Merge a run's adapter, save model and tokenizer; seconds, and bytes of the weights.

    ``base`` of the options is what QLoRA's is merged into.
    """
    from bench.engines.prepare import weights_bytes
    from export.graph.merging import merge_adapter
    from finetune.models.tokenizer import load_tokenizer, save_tokenizer
    from finetune.run_folder import open_run

    run = open_run(source, verify=False)
    began = time.perf_counter()
    model = merge_adapter(run, options["base"])
    seconds = time.perf_counter() - began
    model.save_pretrained(target, safe_serialization=True)
    save_tokenizer(load_tokenizer(run.folder / "model"), target)
    return {"seconds": seconds, "size_bytes": weights_bytes(target)}


def write_tfidf(source: Path, target: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Fit the classical baseline on a run's training rows and save it."""
    from bench.engines.baselines import fit_tfidf, save_tfidf
    from finetune.run_folder import open_run, read_rows

    run = open_run(source, verify=False)
    rows = read_rows(run, "train")
    began = time.perf_counter()
    model = fit_tfidf(
        rows["text"].tolist(),
        rows["label"].tolist(),
        seed=options["seed"],
        preparation=run.preparation,
    )
    seconds = time.perf_counter() - began
    save_tfidf(model, target)
    size = sum(path.stat().st_size for path in target.iterdir())
    parameters = int(model.weights.size + model.bias.size)
    return {"seconds": seconds, "size_bytes": size, "parameters": parameters}


MAKERS = {"merge": write_merged, "fit_tfidf": write_tfidf}
