"""Libraries' expected warnings kept from the reader; KOTUNE_VERBOSE shows them."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries(*loggers: str) -> Iterator[None]:
    """Within the block, no Python warnings and only errors from these loggers ("": the root)."""
    if os.environ.get("KOTUNE_VERBOSE"):
        yield
        return
    levels = {name: logging.getLogger(name or None).level for name in loggers}
    for name in loggers:
        logging.getLogger(name or None).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name or None).setLevel(level)
