"""Reports kept under docs/results are what kotune makes of the results.json beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from report_folder import report_files

from bench.report.speech import is_speech_report, write_speech_report
from bench.report.writing import write_report

RESULTS = Path(__file__).parent.parent.parent / "docs" / "results"
KEPT = sorted(path.parent for path in RESULTS.glob("*/results.json"))


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_kept_report_is_made_again_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    """After a change of the report's code: ``kotune report docs/results/NAME``."""
    shutil.copyfile(folder / "results.json", tmp_path / "results.json")
    (write_speech_report if is_speech_report(tmp_path) else write_report)(tmp_path)
    made = report_files(tmp_path)
    differing = [name for name in made if (folder / name).read_bytes() != made[name]]
    assert differing == []
