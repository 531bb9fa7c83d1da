"""The arguments of each learning-rate schedule, as ``transformers.get_scheduler`` passes them on.

transformers drops what it is given for the constant ones and inverse_sqrt, and raises a TypeError
at the first step for what another schedule does not know. Imports nothing heavy; a test holds the
table against the library's signatures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "polynomial": ("lr_end", "power"),
    "constant": (),
    "constant_with_warmup": (),
    "inverse_sqrt": (),
}
ENDS = {"lr_end": 1e-7, "min_lr": None}  # learning rates to arrive at, with the library's default


def schedule_faults(
    schedule: str, arguments: Mapping[str, Any], learning_rate: float
) -> Iterator[str]:
    """What of ``training.scheduler_kwargs`` the schedule cannot be given, a sentence each."""
    known = ARGUMENTS.get(schedule)
    if known is None:  # one that takes none from the recipe
        known = ()
    for name, value in arguments.items():
        if name not in known:
            allowed = ", ".join(known) or "none"
            yield f"`scheduler_kwargs` {name} is no argument of `scheduler` {schedule}: {allowed}"
        elif isinstance(value, bool) or not isinstance(value, int | float):
            yield f"`scheduler_kwargs` {name} must be a number, not {value!r}"
        elif name == "num_cycles" and schedule == "cosine_with_restarts" and value != int(value):
            yield f"`scheduler_kwargs` num_cycles of cosine_with_restarts is whole, not {value}"
    if schedule == "cosine_with_min_lr" and len({"min_lr", "min_lr_rate"} & set(arguments)) != 1:
        yield "`scheduler` cosine_with_min_lr needs one of min_lr, min_lr_rate in scheduler_kwargs"
    for name, default in ENDS.items():
        end = arguments.get(name, default if name in known else None)
        if isinstance(end, int | float) and end >= learning_rate:
            yield f"`scheduler_kwargs` {name}={end:g}: not below `learning_rate` {learning_rate:g}"
    rate = arguments.get("min_lr_rate")
    if isinstance(rate, int | float) and not 0 <= rate < 1:
        yield f"`scheduler_kwargs` min_lr_rate={rate:g} is a share of the learning rate, below 1"
