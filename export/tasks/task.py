"""The joint of the export: what its one story asks a task for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from export.artifact.card import CardSections
    from export.checks.ladder import Checks, Ladder
    from export.checks.stability import Stability
    from export.graph.feeds import Feed
    from export.runtime.bundle import Bundle
    from export.runtime.manifest import Manifest
    from finetune.run_folder import Run


@dataclass(frozen=True)
class Exported:
    """What later stages must know of a model after its weights have been let go.

    ``facts`` are entries of the manifest. ``heads`` is 0 where attention cannot be fused.
    """

    facts: dict[str, Any]
    head_modules: tuple[str, ...]
    heads: int = 0
    hidden_size: int = 0


class Task(ABC):
    """A guest of ``export/exporting.py``, made for one run and the settings of its export.

    Made before anything is written: its constructor reads the check rows and whatever else may
    be missing, and raises KotuneError. Answers are what a stage's model gives for rows; only the
    task and its ``checks`` look into them.
    """

    name: ClassVar[str]  # of the recipe
    bundle: ClassVar[Bundle]  # the parts of predict.py
    call: ClassVar[str]  # of the runtime: takes a list of rows as strings; for what is timed
    card: ClassVar[CardSections]
    loss_key: ClassVar[str]  # of the recipe's export section: what a file may lose
    vocabulary_file: ClassVar[str]  # in the artifact; its hash says what made the inputs
    trained_metrics: ClassVar[tuple[str, ...]]  # of metrics.json, for the manifest and the card
    float_types: ClassVar[tuple[str, ...]] = ()  # OpenVINO's operators that NNCF leaves alone

    checks: Checks

    def __init__(self, run: Run, settings: Any) -> None:
        self.run = run
        self.settings = settings

    @abstractmethod
    def climb_trained(self, ladder: Ladder) -> None:
        """The first rungs: what training stored, and the model read back from disk ("reloaded")."""

    @abstractmethod
    def export_merged(self, ladder: Ladder, folder: Path) -> Exported:
        """Climb "merged"; write the fp32 graph, config.json and what prepares inputs.

        PyTorch is done after this.
        """

    @abstractmethod
    def open_runtime(self, folder: Path, precision: str, *, provider: str = "cpu") -> Any:
        """The shipped runtime on a folder under construction."""

    @abstractmethod
    def answer(self, runtime: Any, rows: Sequence[Any], *, alone: bool = False) -> Any:
        """Answers of the runtime opened; ``alone``: each row in a batch of its own."""

    def run_file(
        self,
        folder: Path,
        precision: str,
        rows: Sequence[Any],
        *,
        provider: str = "cpu",
        alone: bool = False,
    ) -> Any:
        """Answers of a file of a folder under construction."""
        runtime = self.open_runtime(folder, precision, provider=provider)
        return self.answer(runtime, rows, alone=alone)

    @abstractmethod
    def climb_fp32(self, ladder: Ladder, folder: Path, name: str, before: str) -> None:
        """Climb the fp32 file as ``name``, and once more with other company in the batch."""

    @property
    @abstractmethod
    def texts(self) -> Sequence[str]:
        """What is written in the check rows: the language of the card is told from it."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The task's own entries of the manifest, known before anything is exported."""

    @abstractmethod
    def make_feeds(self, folder: Path, manifest: Manifest) -> list[Feed]:
        """Calibration batches of training rows, none padded."""

    @abstractmethod
    def list_timed(self, folder: Path) -> list[str]:
        """Check rows for ``call``, as many as are timed; files are written into ``folder``."""

    @abstractmethod
    def keep_rows(self, folder: Path, count: int) -> list[str]:
        """At most ``count`` check rows for ``answers/``: texts, or files written there."""

    @abstractmethod
    def measure_stability(self, folder: Path, manifest: Manifest, precision: str) -> Stability:
        """Whether a file's answers depend on a row's company."""

    @property
    @abstractmethod
    def max_unstable(self) -> float:
        """The share of answers that may."""
