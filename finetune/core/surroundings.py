"""What a container, a cluster or a shell may leave about: put right before anything is loaded.

Texts are UTF-8 whatever the locale; libraries read their docstrings, which ``-OO`` takes away;
standard streams may be closed; a batch system ends a program by SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

CLUSTER = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def settle_surroundings() -> None:
    """Start this program over in UTF-8 and with docstrings where it has neither; open streams."""
    if (needs_utf8() or sys.flags.optimize > 1) and sys.orig_argv[1:]:
        words = [word for word in sys.orig_argv[1:] if word != "-OO"]
        os.environ |= {"PYTHONUTF8": "1", "PYTHONOPTIMIZE": "1" if sys.flags.optimize else ""}
        os.environ.pop("PYTHONIOENCODING", None)
        os.execv(sys.executable, [sys.executable, *words])
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # a log file shows progress as a terminal does; a file's name may be no text
        own = stream.encoding if stream.isatty() else "utf-8"
        stream.reconfigure(line_buffering=True, encoding=own, errors="backslashreplace")


def needs_utf8() -> bool:
    """Whether the locale reads arguments otherwise than they were written: as UTF-8."""
    if sys.flags.utf8_mode or sys.getfilesystemencoding().lower().replace("-", "") == "utf8":
        return False
    try:
        for word in sys.argv:
            os.fsencode(word).decode("utf-8")
    except UnicodeError:
        return False  # they are in the locale's own encoding
    return True


def end_in_order() -> None:
    """Let SIGTERM and SIGHUP unwind the program, so that what it began is cleared away."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, leave)


def forget_strays() -> None:
    """Drop a cluster's variables that do not tell of processes that train together.

    A launcher sets all of them, as numbers that fit; a few alone would wait for processes that
    never come.
    """
    told = [os.environ.get(name, "") for name in CLUSTER]
    numbers = [int(word) if word.isdecimal() else -1 for word in told]
    size, rank, local, _, port = numbers
    if not (told[3] and port > 0 and 0 <= rank < size and 0 <= local <= rank):
        for name in CLUSTER:
            os.environ.pop(name, None)
