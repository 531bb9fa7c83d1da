"""Train in forked children and cut them off: killed, interrupted, out of disk, in two processes.

Run as a program it imports PyTorch once, forks every training from there, and prints one JSON
line of what it saw; test_never_lose_a_run.py judges it.

    python tests/finetune/kill_harness.py FOLDER KILLS SEED
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from forking import fork, fork_pair, wait_for
from sharded_pair import check_round_trip

import finetune.training  # what the children need is imported before they are forked
from finetune.core.files import sha256_file
from finetune.loop.checkpoints import last_checkpoint
from finetune.loop.work_folder import work_root
from finetune.recipes.text import FinetuneRecipe

FILE_EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link"}
KILLS_A_RUN = 4
COMMON = {"device": "cpu", "precision": "fp32", "batch_size": 8, "learning_rate": 5e-3}
SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {
        "adapter": {"method": "lora", "rank": 4, "dropout": 0.1},
        "training": {
            **COMMON,
            "epochs": 2,
            "gradient_accumulation_steps": 2,
            "save_steps": 4,
            "logging_steps": 3,
        },
    },
    "full": {
        "adapter": {"method": "full"},
        "training": {
            **COMMON,
            "max_steps": 26,
            "eval_steps": 5,
            "save_steps": 3,
            "logging_steps": 4,
            "early_stopping_patience": 2,
            "learning_rate": 5e-4,
        },
    },
    "qlora": {
        "adapter": {"method": "qlora", "rank": 4},
        "training": {
            **COMMON,
            "precision": "bf16",
            "batch_size": 4,
            "max_steps": 12,
            "eval_steps": 4,
            "save_steps": 2,
            "logging_steps": 5,
        },
    },
}


def make_recipe(root: Path, setting: str, name: str) -> FinetuneRecipe:
    """One of the settings, writing to ``root/name``."""
    return FinetuneRecipe.model_validate(
        {
            "name": name,
            "output": str(root / name),
            "model": {"source": str(root / "base"), "max_length": 32, "dropout": 0.1},
            "data": {"path": str(root / "reviews.csv"), "rows": 160, "test_size": 0.1},
            **SETTINGS[setting],
        }
    )


def outcome(folder: Path) -> dict[str, Any]:
    """What has to be the same, bit for bit, however often the run was cut off."""
    files = [*folder.glob("model/*"), *folder.glob("predictions/*"), folder / "metrics.json"]
    info = json.loads((folder / "run.json").read_text("utf-8"))
    hashes = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(files)}
    digest = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    return {"digest": digest, "steps": info["steps"], "timed": len(info["step_times_s"])}


def train(recipe: FinetuneRecipe, number: int | None = None, event: int = 0) -> None:
    """Fine-tune; send oneself signal ``number`` at that file event of the run's own folders."""
    if number is not None:
        watch_files(recipe, lambda seen: seen == event and os.kill(os.getpid(), number))
    finetune.training.finetune(recipe)


def watch_files(recipe: FinetuneRecipe, act: Callable[[int], Any]) -> None:
    """From now on call ``act`` with the count at each file event under the run's folders."""
    seen = 0

    def count(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if name in FILE_EVENTS and recipe.name in str(arguments[0]):
            seen += 1
            act(seen)

    sys.addaudithook(count)


def count_events(recipe: FinetuneRecipe, tally: Path) -> None:
    """Fine-tune and write the number of file events to ``tally``."""
    seen: list[int] = []
    watch_files(recipe, seen.append)
    finetune.training.finetune(recipe)
    tally.write_text(str(len(seen)))


def kill_until_done(root: Path, kills: int, source: random.Random) -> dict[str, Any]:
    """Kill runs of every setting at random moments until ``kills`` are reached."""
    whole: dict[str, dict[str, Any]] = {}
    for setting in SETTINGS:
        began = time.monotonic()
        recipe = make_recipe(root, setting, f"whole-{setting}")
        log = root / f"{recipe.name}.log"
        code = wait_for(fork(lambda r=recipe: count_events(r, root / "tally"), log))
        whole[setting] = {
            "code": code,
            "duration_s": time.monotonic() - began,
            "events": int((root / "tally").read_text()),
            "outcome": outcome(Path(recipe.folder)),
        }
    runs, moments = [], []
    while len(moments) < kills:
        setting = list(SETTINGS)[len(runs) % len(SETTINGS)]
        recipe = make_recipe(root, setting, f"cut-{len(runs)}")
        cut = _cut_run(root, recipe, whole[setting], min(KILLS_A_RUN, kills - len(moments)), source)
        moments += cut.pop("moments")
        runs.append({"setting": setting, **cut})
    return {"whole": whole, "runs": runs, "moments": moments}


def _cut_run(
    root: Path, recipe: FinetuneRecipe, whole: dict[str, Any], kills: int, source: random.Random
) -> dict[str, Any]:
    """One run, killed up to so many times by the clock or at a file event, then left alone."""
    moments: list[str] = []
    log = root / f"{recipe.name}.log"
    while len(moments) < kills and not _is_done(recipe):
        if source.random() < 0.5:
            after_s = source.uniform(0.1, 1.0) * whole["duration_s"]
            child = fork(lambda: train(recipe), log)
            time.sleep(after_s)
            os.kill(child, signal.SIGKILL)
            moment = f"{after_s:.2f} s"
        else:
            event = source.randint(1, whole["events"])
            child = fork(lambda event=event: train(recipe, signal.SIGKILL, event), log)
            moment = f"file event {event}"
        if wait_for(child) != -signal.SIGKILL or _is_done(recipe):
            break
        moments.append(moment)
    code = 0 if _is_done(recipe) else wait_for(fork(lambda: train(recipe), log))
    left = [path.name for path in root.glob(f".{recipe.name}.*") if "finished" not in path.name]
    same = code == 0 and outcome(Path(recipe.folder)) == whole["outcome"]
    return {"code": code, "same": same, "left": left, "moments": moments}


def _is_done(recipe: FinetuneRecipe) -> bool:
    target = Path(recipe.folder)
    return (target / "run.json").is_file() and not work_root(target).exists()


def interrupt(root: Path, number: int, whole: dict[str, Any]) -> dict[str, Any]:
    """Signal a run in the middle of its training, then start it again."""
    recipe = make_recipe(root, "lora", f"signal-{number}")
    log = root / f"{recipe.name}.log"
    code = wait_for(fork(lambda: train(recipe, number, whole["events"] // 3), log))
    saved = _checkpoint(recipe)
    full = _fill_disk(root, recipe) if number == signal.SIGTERM else None
    again = wait_for(fork(lambda: train(recipe), log))
    return {
        "code": code,
        "step": saved.step,
        "finished": saved.finished,
        "again": again,
        "same": outcome(Path(recipe.folder)) == whole["outcome"],
        "full_disk": full,
        "log": log.read_text("utf-8"),
    }


def _fill_disk(root: Path, recipe: FinetuneRecipe) -> dict[str, Any]:
    """Go on where no file may grow beyond 20 kB: what the system says of a full disk."""

    def starve() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        train(recipe)

    log = root / "disk.log"
    before = _checkpoint(recipe).step
    code = wait_for(fork(starve, log))
    return {"code": code, "log": log.read_text("utf-8"), "kept": _checkpoint(recipe).step == before}


def _checkpoint(recipe: FinetuneRecipe) -> Any:
    (steps,) = work_root(Path(recipe.folder)).glob("*/steps")
    return last_checkpoint(steps)


def two_processes(root: Path) -> dict[str, Any]:
    """The same recipe in two processes over gloo: whole, and both killed and started again."""
    whole, cut = (make_recipe(root, "lora", name) for name in ("pair-whole", "pair-cut"))
    steps = work_root(Path(cut.folder))
    log, sharded = root / "pair-cut.log", root / "sharded.log"
    codes = fork_pair(lambda: train(whole), root / "pair-whole.log")
    fork_pair(lambda: train(cut), log, until=lambda: any(steps.glob("*/steps/checkpoint-*")))
    codes += fork_pair(lambda: train(cut), log)
    codes += fork_pair(lambda: check_round_trip(root / "base", root), sharded)
    figures = [json.loads((Path(one.folder) / "metrics.json").read_text()) for one in (whole, cut)]
    alone = json.loads((root / "whole-lora" / "metrics.json").read_text())
    return {
        "codes": codes,
        "same": outcome(Path(whole.folder)) == outcome(Path(cut.folder)),
        "rows": [one["validation"]["all"]["rows"] for one in (*figures, alone)],
        "log": log.read_text("utf-8"),
        "sharded": sharded.read_text("utf-8"),
    }


def main() -> None:
    """Everything, in this order; one JSON line."""
    root, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    result = kill_until_done(root, kills, random.Random(seed))
    whole = result["whole"]["lora"]
    result["signals"] = [interrupt(root, one, whole) for one in (signal.SIGINT, signal.SIGTERM)]
    result["pair"] = two_processes(root)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
