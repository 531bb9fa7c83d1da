"""ONNX in float16 for a GPU, made of an artifact's fp32 graph."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from export.graph.validity import finish_graph
from finetune.core.files import write_text

GRAPH = "onnx/model_fp16.onnx"
COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json")


def write_half(artifact: Path, target: Path) -> dict[str, Any]:
    """Convert the fp32 graph to float16 into ``target``, an artifact folder with nothing else.

    Inputs and outputs keep their types (ONNX Runtime's converter, ``keep_io_types``); its result
    is measured, not checked by a ladder. Returns the bytes of the graph.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    manifest = json.loads((artifact / "manifest.json").read_text("utf-8"))
    model = onnx.load(str(artifact / manifest["files"]["fp32"]["path"]))
    half = convert_float_to_float16(model, keep_io_types=True)
    graph = target / GRAPH
    graph.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(half, str(graph))
    finish_graph(graph)
    for name in COPIED:
        if (artifact / name).is_file():
            shutil.copyfile(artifact / name, target / name)
    files = {"fp16": {"path": GRAPH, "arithmetic": "fp16"}}
    content = {**manifest, "files": files, "sha256": {}}
    write_text(target / "manifest.json", json.dumps(content, ensure_ascii=False))
    return {"seconds": 0.0, "size_bytes": graph.stat().st_size}
