"""Where the majors of transformers and huggingface_hub differ, one place knows."""

from __future__ import annotations

import math
from contextlib import closing
from socket import create_server
from threading import Thread

import pytest
from transformers import TrainingArguments

from finetune.core.libraries import connection_faults, warmup_arguments


@pytest.mark.parametrize(
    ("steps", "share", "total", "expected"),
    [(0, 0.0, 50, 0), (0, 0.06, 50, 3), (0, 0.1, 7, 1), (5, 0.5, 50, 5), (0, 1.0, 50, 50)],
)
def test_a_warm_up_is_the_same_number_of_steps(tmp_path, steps, share, total, expected) -> None:
    arguments = TrainingArguments(
        str(tmp_path), report_to=[], use_cpu=True, **warmup_arguments(steps, share)
    )
    assert math.ceil(arguments.get_warmup_steps(total)) == expected


def test_a_connection_that_breaks_off_is_caught() -> None:
    """By the client of the installed huggingface_hub: requests or httpx."""
    from huggingface_hub import HfApi

    with closing(create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
        with pytest.raises(connection_faults()):
            HfApi(f"http://127.0.0.1:{port}").create_repo("someone/model", token="hf_x")
