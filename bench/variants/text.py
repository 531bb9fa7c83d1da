"""What is compared in text classification: PyTorch, pipelines, ONNX Runtime and a classic."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bench.variants.added import RUNTIMES
from bench.variants.contenders import Contender, Variant, variant_prefixes
from bench.variants.cuda import cuda_choices
from finetune.core.provenance import cpu_has_bf16
from finetune.recipes.methods import METHODS

TFIDF = "tfidf-sklearn-fp64"
DESCRIPTIONS = {
    "pytorch": "PyTorch, as trained",
    "pipeline": "transformers.pipeline with its defaults",
    "merged": "PyTorch, adapter merged into the weights",
    "compiled": "PyTorch, merged, torch.compile",
    "optimum": "Optimum's ORTModelForSequenceClassification in transformers.pipeline",
    "onnx": "tokenizers + ONNX Runtime",
    "openvino": "tokenizers + OpenVINO",
    "sklearn": "character n-gram TF-IDF + logistic regression on the same training rows",
}
FILES = {  # keys of an artifact's files
    "fp32": "",
    "fp16": ", float16",
    "int8": ", dynamic int8",
    "int8-static": ", static int8, calibrated",
    "int8-weight": ", weights in int8",
    "int4": ", weights in int4",
    "openvino-fp32": "",
    "openvino-bf16": ", bfloat16",
    "openvino-int8": ", static int8 by NNCF",
}
ON_DEVICE = ("fp32", "fp16")  # the others are measured on the CPU
CONVERTED = {
    "bf16": ", weights converted to bfloat16",
    "fp16": ", weights converted to float16",
    "tf32": ", products in TF32",
    "nf4-bf16": ", computed in bfloat16",
    "nf4-fp16": ", computed in float16",
}


def list_variants(
    contenders: Sequence[Contender], *, device: str = "cpu"
) -> tuple[list[Variant], list[Variant]]:
    """The default variants, and those that are measured on request (bf16, Optimum)."""
    default: list[Variant] = []
    optional: list[Variant] = []
    for contender, prefix in zip(contenders, variant_prefixes(contenders), strict=True):
        if contender.run is not None:
            method = METHODS[contender.method]
            chosen = [("pytorch", "nf4" if method.quantised else "fp32")]
            chosen += [("merged", "fp32")] if method.has_adapter else []
            chosen += cuda_choices(contender.method) if device == "cuda" else []
            default += [_pytorch(contender, prefix, *one, device) for one in chosen]
            if cpu_has_bf16() and device == "cpu":
                half = "merged" if method.has_adapter else "pytorch"
                optional.append(_pytorch(contender, prefix, half, "bf16", device))
        if contender.artifact is not None:
            default += [
                _onnx(contender, prefix, precision, device)
                for precision in contender.artifact.precisions
            ]
            optional += [
                _onnx(contender, prefix, precision, device, runtime="optimum")
                for precision in contender.artifact.precisions
                if not precision.startswith("openvino")
            ]
            optional += [
                _onnx(contender, prefix, precision, device, runtime=name)
                for name, runtime in RUNTIMES.items()
                for precision in runtime.precisions
                if precision in contender.artifact.precisions
            ]
    pipe = next((one for one in default if one.runtime == "pytorch" and one.method == "full"), None)
    if pipe is not None:
        name = pipe.name.replace("-pytorch-", "-pipeline-")
        default.insert(
            default.index(pipe) + 1,
            dataclasses.replace(
                pipe,
                name=name,
                runtime="pipeline",
                folder=pipe.source.run.folder / "model",
                description=DESCRIPTIONS["pipeline"],
            ),
        )
    if any(one.run for one in contenders):
        default.append(
            Variant(TFIDF, "tfidf", "sklearn", "fp64", None, None, DESCRIPTIONS["sklearn"])
        )
    return default, optional


def _pytorch(
    contender: Contender, prefix: str, runtime: str, precision: str, device: str
) -> Variant:
    text = DESCRIPTIONS[runtime]
    if runtime == "pytorch":
        text += METHODS[contender.method].as_trained
    if runtime in ("merged", "compiled") and METHODS[contender.method].quantised:
        text += f" of the {merge_base(contender)} base"
    return Variant(
        name=f"{prefix}-{runtime}-{precision}",
        method=contender.method,
        runtime=runtime,
        precision=precision,
        folder=contender.run.folder if runtime == "pytorch" else None,
        source=contender,
        description=text + CONVERTED.get(precision, ""),
        device=device,
    )


def _onnx(
    contender: Contender, prefix: str, precision: str, device: str, *, runtime: str = "onnx"
) -> Variant:
    entry = contender.artifact.manifest.files.get(precision)
    runtime = (entry and entry.runtime) or runtime
    told = RUNTIMES[runtime].description if runtime in RUNTIMES else DESCRIPTIONS[runtime]
    text = told + FILES.get(precision, f", {precision}")
    if contender.artifact.status == "failed":
        text += "; its export checks FAILED"
    return Variant(
        name=f"{prefix}-{runtime}-{precision.removeprefix('openvino-')}",
        method=contender.method,
        runtime=runtime,
        precision=precision.removeprefix("openvino-"),
        folder=contender.artifact.folder,
        source=contender,
        description=text,
        device=device if precision in ON_DEVICE else "cpu",
        file=precision,
    )


def merge_base(contender: Contender) -> str:
    """What a QLoRA adapter is merged into: as the export chose, where there is one."""
    from export.graph.merging import chosen_base

    exported = contender.artifact and contender.artifact.manifest.merge_base
    return chosen_base(exported, contender.run.recipe.export.merge_base)
