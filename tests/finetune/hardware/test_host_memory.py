"""What the process holds beside its tensors: holes of freed blocks, a checkpoint's mapped file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.hardware.host_memory import wants_compact_memory
from finetune.models.loading import load_base
from finetune.models.source import resolve_base
from finetune.recipes.text import FinetuneRecipe

linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc and /proc are Linux's")
HOLES = """
import json, sys, torch
from finetune.hardware.host_memory import keep_compact
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
keep_compact(sys.argv[1] == "compact")
before = resident()
blocks = [torch.ones(1 << 19) for _ in range(64)]  # 2 MiB each
full = resident() - before
del blocks[::2]
print(json.dumps([full, resident() - before]))
"""


@linux
@pytest.mark.parametrize("memory", ["compact", "fast"])
def test_freed_blocks_go_back_or_stay_as_holes(memory: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", HOLES, memory], capture_output=True, text=True, check=True
    )
    full, half = json.loads(told.stdout)
    assert full > 120 << 20
    if memory == "compact":
        assert half < 0.6 * full
    else:
        assert half > 0.9 * full


@pytest.mark.parametrize(
    ("method", "training", "compact"),
    [
        ("lora", {}, False),
        ("lora", {"gradient_checkpointing": True}, True),
        ("lora", {"cpu_memory": "compact"}, True),
        ("qlora", {}, True),
        ("qlora", {"cpu_memory": "fast"}, False),
        ("full", {}, False),
    ],
)
def test_who_gave_time_for_memory_gets_it(method: str, training: dict, compact: bool) -> None:
    recipe = FinetuneRecipe.model_validate(
        {
            "model": {"source": "tiny"},
            "data": {"source": "sample"},
            "adapter": {"method": method},
            "training": training,
        }
    )
    assert wants_compact_memory(recipe) is compact


@linux
def test_a_quantised_model_lets_go_of_its_checkpoint(
    make_base: Callable[[str], Path], tmp_path: Path
) -> None:
    base = shutil.copytree(make_base("bert"), tmp_path / "base")  # that no other test has mapped
    model = load_base(resolve_base(str(base)), ["a", "b"], quantize_4bit=True)
    mapped = Path("/proc/self/maps").read_text()
    assert str(base) not in mapped, model.config
