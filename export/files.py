"""Facts about model files that several exporters need."""

from __future__ import annotations

from pathlib import Path

PROTOBUF_LIMIT_BYTES = 2**31 - 2**24  # protobuf cannot hold 2 GiB; some room for the graph


def external_data_needed(path: Path) -> bool:
    """Whether an ONNX model's weights do not fit into one protobuf file."""
    data = path.with_name(path.name + "_data")
    size = path.stat().st_size + (data.stat().st_size if data.exists() else 0)
    return size > PROTOBUF_LIMIT_BYTES
