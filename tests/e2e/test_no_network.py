"""Nothing looks for a host and nothing is written outside a command's folders.

Not by PEFT as it saves, nor by ONNX Runtime and OpenVINO, which report their use to their makers.
Python's own hooks do not see what native code does: its files are looked for, and in the slow tests
its connections too where strace is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

WATCH = """
import os, socket, sys
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ.pop(name, None)
asked = []
def refuse(host, *rest, **more):
    asked.append(str(host))
    raise OSError("no network in this test")
socket.getaddrinfo = refuse
from finetune.recipes.text import FinetuneRecipe
from finetune.recipes.files import load_recipe
from finetune.training import finetune
from export.exporting import export_run
small = ["training.max_steps=2", "data.rows=64", "data.test_size=20", "export.max_accuracy_drop=1",
         "export.max_flipped_above_margin=1", "export.max_unstable_labels=1"]
run = finetune(load_recipe(FinetuneRecipe, f"finetune/demo-{sys.argv[1]}", small))
export_run(run)
print("asked for", asked)
"""


VARIABLES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI")
TRACED = "connect,openat,mkdir,mkdirat,creat"


class Place:
    """A home, a folder for temporary files and a working folder that only one command uses."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("home", "tmp", "work"):
            (root / name).mkdir()

    def run(self, words: Sequence[str | Path], *, traced: bool = False) -> str:
        """The output of a Python command, nothing of whose use may have been recorded.

        ``traced``: no connection may have been opened either, where strace can tell.
        """
        environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        environment |= {
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        log, strace = self.root / "trace", shutil.which("strace") if traced else None
        trace = (
            [strace, "-f", "--seccomp-bpf", "-qq", "-e", f"trace={TRACED}", "-o", log]
            if strace
            else []
        )
        done = subprocess.run(
            [*trace, sys.executable, *words],
            cwd=self.root / "work",
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert self.strays() == []
        if strace:
            lines = log.read_text("utf-8", "replace").splitlines()
            assert [line for line in lines if "connect(" in line and "AF_INET" in line] == []
        return done.stdout

    def strays(self) -> list[str]:
        """What lies in the home folder or among the temporary files now."""
        found = [path for name in ("home", "tmp") for path in (self.root / name).rglob("*")]
        return [str(path) for path in found if not path.name.startswith("torchinductor_")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_nothing_is_asked_of_the_network(method: str, place: Place) -> None:
    out = place.run(["-c", WATCH, method])
    assert out.splitlines()[-1] == "asked for []"


def test_predictions_are_nobodys_business(
    make_artifact: Callable[[str], Path], place: Place
) -> None:
    artifact = make_artifact("lora")
    assert "감동" in place.run([artifact / "predict.py", "정말 감동"])
    assert "감동" in place.run(["-m", "kotune", "predict", artifact, "정말 감동"])


def test_openvino_finds_no_reporter(make_artifact: Callable[[str], Path], place: Place) -> None:
    for name in ("openvino", "nncf"):
        pytest.importorskip(name)
    code = """
import sys
from pathlib import Path
from export.quantization.openvino import convert_to_openvino
convert_to_openvino(Path(sys.argv[1]), Path("model.xml"), precision="fp32")
import nncf
print(sys.modules["openvino_telemetry"])
"""
    graph = make_artifact("lora") / "onnx" / "model.onnx"
    assert place.run(["-c", code, graph]).split()[-1] == "None"


@pytest.mark.slow
def test_a_benchmark_is_nobodys_business(
    make_artifact: Callable[[str], Path], make_run: Callable[[str], Path], place: Place
) -> None:
    quick = ["processes=1", "rounds=3", "target_half_width=null", "warmup_s=0.1"]
    words = ["-m", "kotune", "bench", make_run("lora"), make_artifact("lora"), *quick]
    place.run([*words, "latency_rows=4", "throughput_rows=8"], traced=True)


@pytest.mark.slow
def test_no_connection_is_opened(make_artifact: Callable[[str], Path], place: Place) -> None:
    place.run([make_artifact("lora") / "predict.py", "정말 감동"], traced=True)
    place.run(["-c", WATCH, "lora"], traced=True)
