"""What is compared in speech: PyTorch, every file of the artifacts, on request the base size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.variants.contenders import Contender, Variant, variant_prefixes
from finetune.core.provenance import cpu_has_bf16
from finetune.recipes.methods import METHODS

if TYPE_CHECKING:
    from bench.settings import SpeechBenchSection
    from export.artifact.manifest import FileRecord

BASE = "base"  # the group of base-960h's size with random weights
CONV = "int8conv"
TORCH = {"pytorch": "PyTorch", "merged": "PyTorch, adapter merged"}
RUNTIMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
PRECISIONS = {
    "fp32": "",
    "int8": ", dynamic int8 on MatMul",
    "int8-static": ", static int8 on MatMul, calibrated",
    "int8-weight": ", weights in int8",
    "int4": ", weights in int4",
    "fp16": ", half precision",
    "bf16": ", bfloat16",
    "openvino-int8": ", static int8 on MatMul by NNCF",
    CONV: ", dynamic int8 on MatMul and Conv (ablation)",
}


def list_variants(
    contenders: Sequence[Contender], settings: SpeechBenchSection
) -> tuple[list[Variant], list[Variant]]:
    """Every way to run the trained models, then what ``settings`` adds; nothing is optional.

    ``base_size`` adds base-960h's architecture in the files of the first artifact,
    ``conv_ablation`` int8 convolutions wherever there is a graph in fp32.
    """
    found: list[Variant] = []
    exported = [one for one in contenders if one.artifact is not None]
    for contender, prefix in zip(contenders, variant_prefixes(contenders), strict=True):
        if contender.run is not None:
            found += _trained(contender, prefix)
        if contender.artifact is not None:
            found += _exported(contender, prefix, contender.artifact.manifest.files)
    if settings.base_size:
        files = exported[0].artifact.manifest.files if exported else {}
        found += _base_size(files)
    if settings.conv_ablation:
        for contender, prefix in zip(contenders, variant_prefixes(contenders), strict=True):
            if contender.artifact is not None and "fp32" in contender.artifact.precisions:
                found.append(_file(contender, prefix, CONV, None, group=None))
        if settings.base_size:
            found.append(_file(None, BASE, CONV, None, group=BASE))
    return found, []


def _trained(contender: Contender, prefix: str) -> list[Variant]:
    """PyTorch as trained, and merged where there is an adapter; in bf16 what one would deploy."""
    adapted = METHODS[contender.method].has_adapter
    chosen = [("pytorch", "fp32"), *([("merged", "fp32")] if adapted else [])]
    if cpu_has_bf16():
        chosen.append(("merged" if adapted else "pytorch", "bf16"))
    return [_torch(contender, prefix, *one, group=None) for one in chosen]


def _base_size(files: Mapping[str, FileRecord]) -> list[Variant]:
    precisions = ["fp32", *(["bf16"] if cpu_has_bf16() else [])]
    torch = [_torch(None, BASE, "pytorch", one, group=BASE) for one in precisions]
    return [*torch, *(_file(None, BASE, key, entry, group=BASE) for key, entry in files.items())]


def _exported(contender: Contender, prefix: str, files: Mapping[str, FileRecord]) -> list[Variant]:
    """A variant of every file: ``<method>-<runtime>-<precision>``."""
    return [_file(contender, prefix, key, entry, group=None) for key, entry in files.items()]


def _torch(
    contender: Contender | None, prefix: str, runtime: str, precision: str, *, group: str | None
) -> Variant:
    half = ", under autocast to bfloat16" if precision == "bf16" else ""
    return Variant(
        name=f"{prefix}-{runtime}-{precision}",
        method=contender.method if contender else "full",
        runtime=runtime,
        precision=precision,
        folder=contender.run.folder if contender and runtime == "pytorch" else None,
        source=contender,
        description=TORCH[runtime] + half,
        group=group,
    )


def _file(
    contender: Contender | None,
    prefix: str,
    key: str,
    entry: FileRecord | None,
    *,
    group: str | None,
) -> Variant:
    runtime, precision = (entry and entry.runtime) or "onnx", key.removeprefix("openvino-")
    said = PRECISIONS.get(key) or PRECISIONS.get(precision, f", {precision}")
    failed = contender is not None and contender.artifact.status == "failed"
    made = contender is None or key == CONV
    return Variant(
        name=f"{prefix}-{runtime}-{precision}",
        method=contender.method if contender else "full",
        runtime=runtime,
        precision=precision,
        folder=None if made else contender.artifact.folder,
        source=contender,
        description=RUNTIMES[runtime] + said + ("; its export checks FAILED" if failed else ""),
        group=group,
        file=key,
    )
