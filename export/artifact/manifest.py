"""manifest.json as the export writes it and the card, the benchmark and the hub read it.

The runtime reads its own, smaller part of it without pydantic: export/runtime/manifest.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from export.runtime.manifest import SCHEMA, Manifest, parse_manifest
from finetune.core.documents import Document, check_document, write_document
from finetune.core.files import sha256_file, write_json
from finetune.core.provenance import Provenance
from finetune.core.seal import list_files
from finetune.run_records import BaseRecord, SignRecord
from finetune.tasks.registry import TEXT

MANIFEST = "manifest.json"
SCRATCH = ".work"  # inside a folder under construction; never published


class FileRecord(Document):
    """A model file and how it was made; what only one way of quantising has is kept beside it."""

    path: str
    bytes: int | None = None
    runtime: str | None = None
    instruction_set: dict[str, Any] | None = None
    arithmetic: str | None = None
    checked_in: str | None = None


class ParentRecord(Document):
    """The run that was exported: its name, the hash of its run.json, those of its files."""

    run: str
    run_sha256: str
    files: dict[str, str] = Field({})


class TrainedOn(Document):
    """Where the run's data come from, and how much of them it had seen in training."""

    origin: str = "the run's data"
    fingerprint: str | None = None
    validation_rows_seen_in_training: int = 0
    test_rows_seen_in_training: int = 0


class ArtifactManifest(Document):
    """manifest.json; figures of the checks and searches are open, each task has its own.

    ``files`` is precision → file, ``ladder`` the steps of the export's checks, ``preferred``
    provider → the fastest precision, ``metrics`` split → figures of the trained model. ``merges``,
    ``search`` and ``stability`` are tables of the card: names or lists of records.
    ``provider_options``: provider → the options that the runtime gives ONNX Runtime for it.
    """

    name: str
    task: str = TEXT
    status: Literal["building", "passed", "failed"]
    method: str
    base: BaseRecord
    labels: tuple[str, ...]
    max_length: int | None
    language: str | None = None
    preparation: dict[str, Any] | None = None
    padding_side: str | None = None
    pad_token_id: int | None
    example: str | None = None
    sampling_rate_hz: int | None = None
    chunk_s: float | None = None
    stride_s: float | None = None
    opset: int | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    merge_base: str | None = None
    merges: Any = None
    parent: ParentRecord
    tokenizer_sha256: str | None = None
    data: TrainedOn = Field(TrainedOn())
    signs: tuple[SignRecord, ...] = ()
    metrics: dict[str, dict[str, Any]] = Field({})
    license: str | None = None
    files: dict[str, FileRecord]
    settings: dict[str, Any] = Field({})
    provider_options: dict[str, dict[str, str]] = Field({})
    ladder: tuple[dict[str, Any], ...] = ()
    provenance: Provenance
    fused_attentions: int | None = None
    search: Any = None
    preferred: dict[str, str] = Field({})
    stability: Any = None
    notes: tuple[str, ...] = ()
    sha256: dict[str, str]


@dataclass
class Draft:
    """The manifest of a folder under construction.

    ``facts`` are its entries so far, ``files`` those of the model files. ``write`` lets the
    runtime open the folder meanwhile; ``record`` is what it has become.
    """

    folder: Path
    facts: dict[str, Any]
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def opened(self) -> Manifest:
        """As the runtime reads it."""
        content = {**self.facts, "files": self.files, "sha256": {}}
        return parse_manifest(content, str(self.folder / MANIFEST))

    def write(self, **trials: dict[str, Any]) -> None:
        """Write manifest.json without hashes; ``trials`` are entries of files being tried."""
        files = {**self.files, **trials}
        content = {**self.facts, "files": files, "sha256": {}}
        write_json(self.folder / MANIFEST, SCHEMA, content)

    def record(self, **last: Any) -> ArtifactManifest:
        """The manifest with its last entries; the hashes are still missing."""
        content = {**self.facts, "files": self.files, **last, "sha256": {}}
        return check_document(ArtifactManifest, content, self.folder / MANIFEST, SCHEMA)


def write_manifest(folder: Path, manifest: ArtifactManifest) -> None:
    """Write manifest.json with the SHA-256 of every other file of the folder."""
    names = [name for name in list_files(folder) if name != MANIFEST]
    kept = [name for name in names if not name.startswith(f"{SCRATCH}/")]
    hashes = {name: sha256_file(folder / name) for name in kept}
    sealed = manifest.model_copy(update={"sha256": hashes})
    write_document(folder / MANIFEST, SCHEMA, sealed)
