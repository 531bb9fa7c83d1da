"""What the makers of quantised files share: graphs, calibration batches, running a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from export.artifact.manifest import SCRATCH, Draft
from export.graph.feeds import Feed
from export.graph.reading import load_graph
from export.quantization.dynamic import InstructionSet, host_instruction_set

TRIAL = "trial"  # the manifest's key of a file that is only being tried


class RunFile(Protocol):
    """The shipped runtime on a folder under construction."""

    def __call__(self, precision: str, rows: Sequence[Any], *, alone: bool = False) -> Any:
        """Answers of a precision's file; ``alone``: each row in a batch of its own."""


@dataclass
class Workshop:
    """The folder under construction; ``fused`` is None where the patterns did not match."""

    draft: Draft
    head_modules: tuple[str, ...]
    plain: Path
    make_feeds: Callable[[], list[Feed]]
    run_file: RunFile
    smooth_alpha: float
    device: str
    float_types: tuple[str, ...] = ()  # OpenVINO's operators that NNCF leaves alone
    fused: Path | None = None
    heads: int = 0  # of the fused graph
    hidden_size: int = 0
    int8_embeddings: bool = False

    @property
    def folder(self) -> Path:
        """Where everything is made."""
        return self.draft.folder

    @cached_property
    def instruction_set(self) -> InstructionSet:
        """The int8 instruction set the files are made for: this machine's."""
        return host_instruction_set()

    @cached_property
    def feeds(self) -> list[Feed]:
        """Calibration batches of training rows, none padded."""
        return self.make_feeds()

    @property
    def balances(self) -> bool:
        """Whether SmoothQuant is wanted and finds normalisations that it can balance."""
        from export.quantization.smooth import find_norms

        if not self.smooth_alpha:
            return False
        return bool(find_norms(load_graph(self.plain, weights=False).graph, self.head_modules))

    @cached_property
    def balanced(self) -> Path:
        """The plain graph after SmoothQuant."""
        from export.quantization.smooth import smooth_graph

        target = self.scratch("balanced") / "model.onnx"
        smooth_graph(
            self.plain, target, self.feeds, head_modules=self.head_modules, alpha=self.smooth_alpha
        )
        return target

    @cached_property
    def fused_int8_embeddings(self) -> tuple[Path, int]:
        """The fused graph with int8 tables and their number: fusion would hide BERT's tables."""
        from export.graph.embeddings import quantize_embeddings
        from export.graph.fusion import fuse_graph

        folder = self.scratch("embeddings")
        count = quantize_embeddings(self.plain, folder / "plain.onnx")
        if not count:
            return self.fused, 0
        target, sizes = (
            folder / "fused.onnx",
            {"heads": self.heads, "hidden_size": self.hidden_size},
        )
        try:
            fused = fuse_graph(folder / "plain.onnx", target, **sizes)
        except Exception:  # of the library's patterns: the graph that was fused before is good
            fused = 0
        return (target, count) if fused else (self.fused, 0)

    def scratch(self, name: str) -> Path:
        """A folder that is not published."""
        folder = self.folder / SCRATCH / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def show(self, path: Path) -> None:
        """Let the runtime see ``path`` as the precision TRIAL of the folder."""
        entry = {"path": path.relative_to(self.folder).as_posix()}
        self.draft.write(**{TRIAL: entry})

    def answer(self, path: Path, rows: Sequence[Any], *, alone: bool = False) -> Any:
        """Answers of a model file, with the shipped runtime; ``alone``: a batch for each row."""
        self.show(path)
        return self.run_file(TRIAL, rows, alone=alone)
