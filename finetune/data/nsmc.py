"""The official NSMC files: downloaded once, checked, cached. Lucy Park, 2016, CC0.

Addresses, sizes and SHA-256 as published with the `nsmc` entry of Hugging Face datasets
(datasets/nsmc/dataset_infos.json, version 1.1.0).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from finetune.core.errors import DataError
from finetune.core.files import sha256_file


@dataclass(frozen=True)
class CorpusFile:
    """One file of a corpus: where it lives and what it must be."""

    name: str
    url: str
    size_bytes: int
    sha256: str


BASE = "https://raw.githubusercontent.com/e9t/nsmc/master/"
OFFICIAL = (
    CorpusFile(
        "ratings_train.txt",
        BASE + "ratings_train.txt",
        14_628_807,
        "e03b7d14e9e41be8d464a28057cd25d7396c53e67aa7fd5f7e552c59b0ee2940",
    ),
    CorpusFile(
        "ratings_test.txt",
        BASE + "ratings_test.txt",
        4_893_335,
        "8ac9f64052f11dbf6ae0acb5e038f03d90a76f0eda7820cfb3a92d02edfcebda",
    ),
)


def cache_folder() -> Path:
    """``$KOTUNE_CACHE``, else ``kotune`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("KOTUNE_CACHE") or Path(base) / "kotune")


def fetch_corpus(files: tuple[CorpusFile, ...] = OFFICIAL, folder: Path | None = None) -> Path:
    """The folder that holds ``files``, downloading what is missing; raises DataError."""
    folder = folder or cache_folder() / "nsmc"
    for file in files:
        target = folder / file.name
        if not (target.is_file() and sha256_file(target) == file.sha256):
            _download(file, target)
    return folder


def _download(file: CorpusFile, target: Path) -> None:
    import requests
    from rich.progress import wrap_file

    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with (
            requests.get(file.url, stream=True, timeout=(5, 30)) as answer,
            os.fdopen(handle, "wb") as sink,
        ):
            answer.raise_for_status()
            answer.raw.decode_content = True
            with wrap_file(answer.raw, total=file.size_bytes, description=file.name) as source:
                while block := source.read(1 << 16):
                    sink.write(block)
        found = sha256_file(temporary)
        if found != file.sha256:
            raise DataError(
                f"{file.url} is not the file it was", received=found, allowed=file.sha256
            )
        temporary.replace(target)
    except (requests.RequestException, OSError) as fault:
        raise DataError(
            f"{file.name} could not be downloaded from {file.url}",
            received=type(fault).__name__,
            next_step="data.path=FOLDER with ratings_train.txt and ratings_test.txt, "
            "or data.source=sample for the embedded reviews",
        ) from fault
    finally:
        temporary.unlink(missing_ok=True)
