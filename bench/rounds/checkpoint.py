"""A benchmark that was interrupted goes on after the last process that was finished."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.settings import UNMEASURED, BenchSettings
from bench.variants.contenders import Contender
from finetune.core.errors import KotuneError
from finetune.core.files import read_json, sha256_file, write_json
from finetune.core.provenance import package_version

SCHEMA = "kotune.partial/3"


@dataclass
class Measurement:
    """What was measured of one variant, in results.json's own terms; grows process by process.

    ``answers`` to the test rows are class ids or transcripts, from a worker or stored by a run.
    """

    reason: str | None = None
    answers: list[Any] = field(default_factory=list)
    answers_from: str | None = None
    latency: list[dict[str, Any]] = field(default_factory=list)
    throughput: list[dict[str, Any]] = field(default_factory=list)
    first_call_ms: list[float] = field(default_factory=list)
    load_s: list[float] = field(default_factory=list)
    warm_up: list[dict[str, Any]] = field(default_factory=list)
    peak_memory_bytes: list[int] = field(default_factory=list)
    peak_vram_bytes: list[int] = field(default_factory=list)
    device_bytes: list[int] = field(default_factory=list)
    grid: list[dict[str, Any]] = field(default_factory=list)
    server: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Progress:
    """All measurements so far; ``blocks`` has an entry for each finished process, which says
    what shared the machine. ``load`` has an entry for each round: what other programs took.
    ``sittings`` counts the times the benchmark was begun."""

    variants: dict[str, Measurement]
    blocks: list[list[list[str]]] = field(default_factory=list)
    load: list[dict[str, Any]] = field(default_factory=list)
    sittings: int = 1


@dataclass(frozen=True)
class Checkpoint:
    """Where progress is kept, and of which benchmark: another one's is not taken up."""

    path: Path
    key: str

    def load(self, names: Sequence[str]) -> Progress:
        """The progress of this very benchmark, or none yet."""
        fresh = Progress({name: Measurement() for name in names})
        try:
            content = read_json(self.path, SCHEMA)
        except KotuneError:
            return fresh
        if content["key"] != self.key or set(content["variants"]) != set(names):
            return fresh
        measured = {name: Measurement(**content["variants"][name]) for name in names}
        return Progress(measured, content["blocks"], content["load"], content["sittings"] + 1)

    def save(self, progress: Progress) -> None:
        """Store it whole."""
        write_json(self.path, SCHEMA, {"key": self.key, **dataclasses.asdict(progress)})

    def clear(self) -> None:
        """Forget it: the results stand in results.json."""
        self.path.unlink(missing_ok=True)


def checkpoint_for(
    output: Path,
    contenders: Sequence[Contender],
    names: Sequence[str],
    section: BenchSettings,
) -> Checkpoint:
    """The checkpoint of a benchmark: a hidden file beside its report folder."""
    markers = [one.run.folder / "run.json" for one in contenders if one.run]
    markers += [one.artifact.folder / "manifest.json" for one in contenders if one.artifact]
    content = {
        "kotune": package_version("kotune"),
        "inputs": [sha256_file(path) for path in markers],
        "variants": list(names),
        "section": section.model_dump(mode="json", exclude=UNMEASURED),
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Checkpoint(partial_path(output), key)


def partial_path(output: Path) -> Path:
    """Where the progress of the benchmark that will write ``output`` is kept."""
    return output.with_name(f".{output.name}.partial.json")


def kept_words(output: Path) -> str:
    """What is left of a benchmark that was interrupted, for whoever did it."""
    try:
        done = len(read_json(partial_path(output), SCHEMA)["blocks"])
    except KotuneError:
        return "nothing is kept yet: a process of each variant is, once all have been measured"
    noun = "process of each variant is" if done == 1 else "processes of each variant are"
    return f"{done} {noun} measured and kept; the same command goes on from there"
