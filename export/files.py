"""Facts about model files that several exporters need."""

from __future__ import annotations

from pathlib import Path

PROTOBUF_LIMIT_BYTES = 2**31 - 2**24  # protobuf cannot hold 2 GiB; some room for the graph


def model_bytes(path: Path) -> int:
    """Size of an ONNX file with its external data (``model.onnx_data``, ``model.onnx.data``)."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))


def external_data_needed(path: Path) -> bool:
    """Whether an ONNX model's weights do not fit into one protobuf file."""
    return model_bytes(path) > PROTOBUF_LIMIT_BYTES


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
