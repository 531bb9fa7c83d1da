"""The torch-free runtime of an artifact: `OnnxClassifier`, `OnnxTranscriber`, `ArtifactError`.

Each name is imported when it is first asked for, so that one needs only its own packages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.runtime.classifier import OnnxClassifier
    from export.runtime.manifest import ArtifactError
    from export.runtime.transcriber import OnnxTranscriber

__all__ = ["ArtifactError", "OnnxClassifier", "OnnxTranscriber"]

_HOMES = {
    "OnnxClassifier": "export.runtime.classifier",
    "OnnxTranscriber": "export.runtime.transcriber",
    "ArtifactError": "export.runtime.manifest",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
