"""From embedded data to an artifact, nothing looks for a host: not even PEFT when it saves."""

from __future__ import annotations

import subprocess
import sys
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


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_nothing_is_asked_of_the_network(method: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCH, method], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "asked for []"
