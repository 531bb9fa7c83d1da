"""The artifact folder on disk: manifest, hashes, publishing, verifying."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from export.artifact.manifest import MANIFEST, SCRATCH, ArtifactManifest
from export.runtime.manifest import SCHEMA, ArtifactError, read_manifest, verify_files
from finetune.core.documents import read_document
from finetune.core.errors import FolderError
from finetune.core.files import publish_folder, read_json

FP32_FILE = "onnx/model.onnx"  # the name transformers.js and Optimum look for


@dataclass(frozen=True)
class Artifact:
    """A published artifact; ``manifest`` is the whole of manifest.json."""

    folder: Path
    manifest: ArtifactManifest

    @property
    def name(self) -> str:
        """The run's name."""
        return self.manifest.name

    @property
    def method(self) -> str:
        """How the run was trained: full, lora, …"""
        return self.manifest.method

    @property
    def status(self) -> str:
        """``passed`` or ``failed``: the export's checks."""
        return self.manifest.status

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, or the characters of a transcript; index = class id."""
        return self.manifest.labels

    @property
    def max_length(self) -> int | None:
        """Tokens of a text at most; None of speech."""
        return self.manifest.max_length

    @property
    def precisions(self) -> tuple[str, ...]:
        """Keys of the model files."""
        return tuple(self.manifest.files)

    def path(self, precision: str) -> Path:
        """The model file of a precision; raises FolderError where there is none."""
        if precision not in self.precisions:
            raise FolderError(
                f"the artifact has no {precision} model",
                received=self.folder,
                allowed=", ".join(self.precisions),
            )
        return self.folder / self.manifest.files[precision].path


def open_artifact(folder: Path | str, *, verify: bool = True) -> Artifact:
    """Read an artifact folder; ``verify`` compares every file's SHA-256. Raises FolderError."""
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise FolderError(
            "not an artifact folder: it has no manifest.json"
            if folder.is_dir()
            else "the artifact folder does not exist",
            received=folder,
            next_step="kotune export RUN makes one",
        )
    try:
        opened = read_manifest(folder)
        if verify:
            verify_files(folder, opened)
    except ArtifactError as fault:
        raise FolderError(str(fault), next_step="export the run again") from fault
    return Artifact(folder, read_document(folder / MANIFEST, ArtifactManifest, SCHEMA))


def unlisted_files(artifact: Artifact) -> list[str]:
    """Files that lie in the folder and are none of the manifest's: nobody vouches for them."""
    listed = {MANIFEST, *artifact.manifest.sha256}
    found = (path for path in artifact.folder.rglob("*") if path.is_file())
    names = (path.relative_to(artifact.folder) for path in found)
    return sorted(name.as_posix() for name in names if name.as_posix() not in listed)


def check_target(target: Path) -> None:
    """Refuse to replace anything but an artifact or an empty folder; raises FolderError."""
    if not target.exists():
        return
    if target.is_dir() and ((target / MANIFEST).is_file() or not any(target.iterdir())):
        if (target / MANIFEST).is_file():
            read_json(target / MANIFEST, SCHEMA)
        return
    raise FolderError(
        "the output is in use by something that is not an artifact",
        received=target,
        next_step="--output with another folder",
    )


def failed_target(target: Path) -> Path:
    """Where a failed export is kept, so that an earlier good artifact stays in place."""
    return target.with_name(target.name + ".failed")


@contextmanager
def building_folder(target: Path) -> Iterator[Path]:
    """A hidden folder on the file system of ``target``, removed when the block ends."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.build.") as folder:
        (Path(folder) / SCRATCH).mkdir()
        yield Path(folder)


def publish_artifact(built: Path, target: Path) -> None:
    """Give a finished folder its name by one rename; what stood there is replaced."""
    shutil.rmtree(built / SCRATCH, ignore_errors=True)
    with publish_folder(target) as folder:
        for entry in built.iterdir():
            os.replace(entry, folder / entry.name)
