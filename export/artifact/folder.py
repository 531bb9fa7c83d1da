"""The artifact folder on disk: manifest, hashes, publishing, verifying."""

from __future__ import annotations

import glob
import os
import re
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
from finetune.core.output_lock import lock_output
from finetune.core.seal import list_files

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
    return [name for name in list_files(artifact.folder) if name not in listed]


def check_target(target: Path) -> None:
    """Refuse to replace anything but an artifact or an empty folder; raises FolderError."""
    if not target.exists():
        return
    if target.is_dir() and ((target / MANIFEST).is_file() or not any(target.iterdir())):
        if (target / MANIFEST).is_file():
            read_json(target / MANIFEST, SCHEMA)
            if foreign := unlisted_files(open_artifact(target, verify=False)):
                raise FolderError(
                    "the folder holds what is not of the artifact: a new one would replace it",
                    received=f"{target}: {', '.join(foreign[:5])}",
                    next_step="move it elsewhere, or --output with another folder",
                )
        return
    raise FolderError(
        "the output is in use by something that is not an artifact",
        received=target,
        next_step="--output with another folder",
    )


def failed_target(target: Path) -> Path:
    """Where a failed export is kept, so that an earlier good artifact stays in place."""
    return target.with_name(target.name + ".failed")


def _clear_leftovers(target: Path) -> None:
    """Put back what a killed publication had moved aside, remove what a killed export left."""
    for aside in target.parent.glob(
        f".{glob.escape(target.name)}.old.*/{glob.escape(target.name)}"
    ):
        if not target.exists():
            os.replace(aside, target)
    leftover = re.compile(rf"\.{re.escape(target.name)}\.(old\.|build\.)?[a-z0-9_]{{8}}")
    for path in target.parent.iterdir():
        if leftover.fullmatch(path.name) and path.suffix != ".finished" and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def building_folder(target: Path) -> Iterator[Path]:
    """A hidden folder on the file system of ``target``, removed when the block ends.

    Libraries' temporary files lie in it too. What an export left that was killed goes first;
    another process that works on ``target`` is a FolderError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.build."
    with lock_output(target):
        _clear_leftovers(target)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as folder:
            scratch = Path(folder) / SCRATCH
            (scratch / "tmp").mkdir(parents=True)
            before, tempfile.tempdir = tempfile.tempdir, str(scratch / "tmp")
            try:
                yield Path(folder)
            finally:
                tempfile.tempdir = before


def publish_artifact(built: Path, target: Path) -> None:
    """Give a finished folder its name by one rename; what stood there is replaced."""
    shutil.rmtree(built / SCRATCH, ignore_errors=True)
    with publish_folder(target) as folder:
        for entry in built.iterdir():
            os.replace(entry, folder / entry.name)
