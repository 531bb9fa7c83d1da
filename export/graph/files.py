"""Facts about model files that several exporters need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

PROTOBUF_LIMIT_BYTES = 2**31 - 2**24  # protobuf cannot hold 2 GiB; some room for the graph


def model_bytes(path: Path) -> int:
    """Size of an ONNX file with its external data (``model.onnx_data``, ``model.onnx.data``),
    or of an OpenVINO .xml with its .bin."""
    if path.suffix == ".xml":
        return path.stat().st_size + path.with_suffix(".bin").stat().st_size
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))


def external_data_needed(path: Path) -> bool:
    """Whether an ONNX model's weights do not fit into one protobuf file."""
    return model_bytes(path) > PROTOBUF_LIMIT_BYTES


def save_graph(model: ModelProto, path: Path, *, external: bool) -> None:
    """Write a model, its weights beside it in ``<name>_data`` where ``external``."""
    import onnx

    beside = path.with_name(f"{path.name}_data")
    beside.unlink(missing_ok=True)  # onnx would append to it
    onnx.save_model(model, str(path), save_as_external_data=external, location=beside.name)


def store_as_one_file(path: Path) -> None:
    """Take an ONNX model's external data into the file itself, where protobuf can hold it.

    transformers.js and Optimum look for one file first.
    """
    import onnx

    beside = [part for part in path.parent.glob(f"{path.name}*") if part != path]
    if not beside or external_data_needed(path):
        return
    onnx.save_model(onnx.load(str(path)), str(path))
    for part in beside:
        part.unlink()
