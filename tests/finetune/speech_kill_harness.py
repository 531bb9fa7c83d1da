"""Train a speech run in forked children and cut it off; one JSON line of what was seen.

python tests/finetune/speech_kill_harness.py FOLDER
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from forking import fork, wait_for
from kill_harness import outcome, watch_files
from tones import tones_recipe, write_folder

import finetune.tasks.speech.task
import finetune.training
from finetune.loop.work_folder import work_root
from finetune.recipes.speech import SpeechRecipe

MOMENTS = (0.3, 0.3)  # shares of a whole run's file events, counted anew at each start


def make_recipe(root: Path, name: str) -> SpeechRecipe:
    """The tones, briefly: masks in time and dropout, so that random numbers matter."""
    content = tones_recipe(root / "data", root / name)
    content["augment"] |= {"noise_db": 20, "mask_time_probability": 0.1, "mask_time_length": 2}
    content["architecture"]["dropout"] = 0.1
    content["training"] |= {
        "max_steps": 12,
        "eval_steps": 4,
        "save_steps": 5,
        "logging_steps": 7,
        "gradient_accumulation_steps": 2,
    }
    return SpeechRecipe.model_validate(content)


def train(recipe: SpeechRecipe, number: int | None = None, event: int = 0) -> None:
    """Fine-tune; send oneself signal ``number`` at that file event of the run's own folders."""
    if number is not None:
        watch_files(recipe, lambda seen: seen == event and os.kill(os.getpid(), number))
    finetune.training.finetune(recipe)


def count_events(recipe: SpeechRecipe, tally: Path) -> None:
    """Fine-tune and write the number of file events to ``tally``."""
    seen: list[int] = []
    watch_files(recipe, seen.append)
    finetune.training.finetune(recipe)
    tally.write_text(str(len(seen)))


def cut(root: Path, name: str, number: int, events: list[int]) -> dict[str, Any]:
    """One run, ended at each of the file events in turn, then left alone."""
    recipe, log = make_recipe(root, name), root / f"{name}.log"
    codes = [
        wait_for(fork(lambda event=event: train(recipe, number, event), log)) for event in events
    ]
    codes.append(wait_for(fork(lambda: train(recipe), log)))
    folder = Path(recipe.folder)
    return {
        "codes": codes,
        "outcome": outcome(folder),
        "left": work_root(folder).exists(),
        "log": log.read_text("utf-8"),
    }


def main() -> None:
    """A whole run, one killed twice, one interrupted."""
    root = Path(sys.argv[1])
    torch.set_num_threads(1)
    write_folder(root / "data" / "train", 80, seed=1)
    write_folder(root / "data" / "test", 8, seed=2)
    whole = make_recipe(root, "whole")
    code = wait_for(fork(lambda: count_events(whole, root / "tally"), root / "whole.log"))
    assert code == 0, (root / "whole.log").read_text("utf-8")
    events = int((root / "tally").read_text())
    moments = [int(share * events) for share in MOMENTS]
    result = {
        "whole": outcome(Path(whole.folder)),
        "killed": cut(root, "killed", signal.SIGKILL, moments),
        "interrupted": cut(root, "interrupted", signal.SIGTERM, [events // 3]),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
