"""Two processes on one output: the second is told who holds it; what is left is cleared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from export.artifact.folder import building_folder
from finetune.core.errors import FolderError
from finetune.core.output_lock import lock_output

HOLD = """
import sys, time
from pathlib import Path
from finetune.core.surroundings import end_in_order
from export.artifact.folder import building_folder
end_in_order()
with building_folder(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """A process that builds tmp_path/out, and its hidden folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "out"], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()


def test_the_second_is_told_who_holds_it(holder, tmp_path: Path) -> None:
    told = rf"held by process {holder[0].pid} on "
    with pytest.raises(FolderError, match=told), lock_output(tmp_path / "out"):
        pass
    with lock_output(tmp_path / "other"):
        pass


def test_a_process_asked_to_end_leaves_nothing(holder, tmp_path: Path) -> None:
    process, folder = holder
    assert folder.is_dir()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert os.listdir(tmp_path) == []


def test_the_next_start_clears_what_a_killed_one_left(holder, tmp_path: Path) -> None:
    process, folder = holder
    process.kill()
    process.wait()
    assert folder.is_dir()
    aside = tmp_path / ".out.old.abcd_123" / "out"
    aside.mkdir(parents=True)
    (aside / "kept").touch()
    with building_folder(tmp_path / "out"):
        assert not folder.exists()
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out" / "kept").exists()


def test_one_process_may_hold_it_twice(tmp_path: Path) -> None:
    with lock_output(tmp_path / "out"), lock_output(tmp_path / "out"):
        time.sleep(0)
    assert os.listdir(tmp_path) == []


def test_temporary_files_lie_in_the_hidden_folder(tmp_path: Path) -> None:
    import tempfile

    before = tempfile.gettempdir()
    with building_folder(tmp_path / "out") as folder:
        assert Path(tempfile.mkdtemp()).is_relative_to(folder)
    assert tempfile.gettempdir() == before
