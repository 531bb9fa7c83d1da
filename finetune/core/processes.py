"""One process or several: what accelerate and torchrun tell each of them, and how to start them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune.core.errors import RecipeError
from finetune.core.exactness import EXACT_ENVIRONMENT


def process_count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the one that writes and speaks."""
    return process_rank() == 0


def divide_batch(micro_batch: int, processes: int) -> int:
    """Rows of a micro-batch for each process; raises RecipeError where it does not divide."""
    if micro_batch % processes:
        raise RecipeError(
            "training.batch_size does not divide among the processes",
            received=f"{micro_batch} rows, {processes} processes",
            allowed=f"a multiple of {processes}",
            next_step=f"training.batch_size={-(-micro_batch // processes) * processes}",
        )
    return micro_batch // processes


def join_processes(device: str) -> None:
    """Meet the other processes before anything is loaded, each on its own device."""
    if process_count() > 1:
        from accelerate import PartialState

        PartialState(cpu=device == "cpu")


def wait_for_processes() -> None:
    """Go on once every process has come this far."""
    if process_count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def is_sharded() -> bool:
    """Whether FSDP spreads the model over the processes."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def leave_processes() -> None:
    """Say goodbye to the other processes; what follows is one's own."""
    if process_count() > 1:
        import torch

        torch.distributed.destroy_process_group()


def launch_finetune(arguments: Sequence[str], processes: int) -> int:
    """``accelerate launch -m finetune …`` in so many processes; the exit code of the first to fail.

    On a CPU the processes talk through gloo, on GPUs through NCCL; accelerate chooses.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    options += ["--main_process_port", "0"]  # a free one
    if "OMP_NUM_THREADS" not in os.environ:
        share = max(1, (os.cpu_count() or 1) // processes)
        options += ["--num_cpu_threads_per_process", str(share)]
    launch = launch_command_parser().parse_args([*options, "-m", "finetune", *arguments])
    os.environ |= package_environment()  # or they would run a finetune.py of the working folder
    try:
        launch_command(launch)
    except ChildFailedError as fault:
        return abs(fault.get_first_failure()[1].exitcode)
    except SignalException:  # the processes have saved themselves
        return 130
    return 0


def end_with_parent() -> None:
    """On Linux, be killed when the parent ends, stopped or in the middle of a call (prctl(2))."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def package_environment() -> dict[str, str]:
    """This environment with our packages first on a child's path, and no file of its folder.

    A Python that is told ``-m`` imports from the working folder first; PYTHONSAFEPATH keeps it,
    and those that it starts, from that.
    """
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        **EXACT_ENVIRONMENT,
        "PYTHONPATH": root + (os.pathsep + path if path else ""),
        "PYTHONSAFEPATH": "1",
        "PYTHONIOENCODING": "utf-8",
    }
