"""A worker is a process of its own that imports what its variant needs and fails alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from bench.engines.baselines import fit_tfidf, load_tfidf, save_tfidf
from bench.engines.text import load_engine
from finetune.core.preparation import DEFAULT
from finetune.core.processes import package_environment
from finetune.core.worker_process import WorkerFailed, WorkerProcess

TEXTS = [
    "정말 재미있다 최고",
    "지루하다 실망",
    "영화 배우",
    "감동 추천 명작 영화",
    "최악 별로 졸작",
]


def job(method: str, runtime: str, precision: str, folder: Path) -> dict[str, Any]:
    return {
        "name": f"{method}-{runtime}-{precision}",
        "method": method,
        "runtime": runtime,
        "precision": precision,
        "file": precision,
        "folder": str(folder),
        "device": "cpu",
        "max_length": 32,
        "preparation": DEFAULT.as_dict(),
    }


@contextmanager
def loaded_worker(variant: dict[str, Any], timeout_s: float = 120) -> Iterator[WorkerProcess]:
    worker = WorkerProcess("bench.engines.worker", 1, timeout_s)
    try:
        worker.ask(
            "prepare",
            engines="bench.engines.text",
            variant=variant,
            threads=1,
            latency_rows=TEXTS,
            throughput_rows=TEXTS,
        )
        worker.ask("load")
        yield worker
    finally:
        worker.close()


def onnx_worker(make_artifact: Callable[[str, str], Path]) -> AbstractContextManager:
    return loaded_worker(job("lora", "onnx", "int8", make_artifact("lora", "roberta")))


@pytest.fixture(scope="module")
def tfidf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tfidf")
    save_tfidf(fit_tfidf(TEXTS * 4, [1, 0, 1, 1, 0] * 4), folder)
    return folder


def test_an_onnx_worker_imports_no_torch(make_artifact) -> None:
    with onnx_worker(make_artifact) as worker:
        worker.ask("latency")
        worker.ask("throughput", batch_tokens=60)
        modules = set(worker.ask("modules")["modules"])
        assert {"onnxruntime", "tokenizers"} <= modules
        assert not modules & {"torch", "transformers", "sklearn", "pandas", "scipy", "typer"}


def test_optimum_answers_as_our_runtime_does(make_artifact) -> None:
    folder = make_artifact("lora", "roberta")
    answers = []
    for runtime in ("onnx", "optimum"):
        engine = load_engine(job("lora", runtime, "fp32", folder), 1)
        answers.append(engine.answer_many(TEXTS, 60))
        assert [engine.answer(text) for text in TEXTS] == answers[-1]
    assert answers[0] == answers[1]


def test_a_tfidf_worker_imports_no_runtime(tfidf: Path) -> None:
    with loaded_worker(job("tfidf", "sklearn", "fp64", tfidf)) as worker:
        assert worker.ask("answer", rows=TEXTS, batch_tokens=60)["answers"] == [1, 0, 1, 1, 0]
        modules = set(worker.ask("modules")["modules"])
        assert "sklearn" in modules
        assert not modules & {"torch", "transformers", "onnxruntime"}


def test_a_worker_measures_what_it_was_given(make_artifact) -> None:
    with onnx_worker(make_artifact) as worker:
        assert worker.ask("warm_up", limit_s=1)["calls"] >= 8
        samples = worker.ask("latency")["samples_ms"]
        assert len(samples) == len(TEXTS)
        assert all(0 < sample < 1000 for sample in samples)
        assert len(worker.ask("latency", start=1, stop=3)["samples_ms"]) == 2
        bulk = worker.ask("throughput", batch_tokens=60)
        assert bulk["rows"] == len(bulk["answers"]) == len(TEXTS)
        peak = worker.ask("memory")
        assert 20e6 < peak["peak_memory_bytes"] < 1e9
        assert peak["peak_vram_bytes"] is None


def test_every_runtime_gives_the_classes_of_the_model(make_run, make_artifact) -> None:
    """PyTorch, the pipeline and ONNX Runtime, one text at a time and in bulk."""
    run, artifact = make_run("full", "roberta"), make_artifact("full", "roberta")
    engines = [
        load_engine(variant, 1)
        for variant in (
            job("full", "pytorch", "fp32", run),
            job("full", "pipeline", "fp32", run / "model"),
            job("full", "onnx", "fp32", artifact),
        )
    ]
    answers = [[engine.answer(text) for text in TEXTS] for engine in engines]
    answers += [engine.answer_many(TEXTS, 60) for engine in engines]
    assert all(answer == answers[0] for answer in answers)
    assert len(set(answers[0])) == 2


def test_a_pipeline_worker_predicts_in_the_order_it_was_asked(make_run) -> None:
    folder = make_run("full", "roberta") / "model"
    with loaded_worker(job("full", "pipeline", "fp32", folder)) as worker:
        predicted = worker.ask("answer", rows=TEXTS, batch_tokens=60)["answers"]
    engine = load_engine(job("full", "pipeline", "fp32", folder), 1)
    assert predicted == [engine.answer(text) for text in TEXTS]
    assert len(set(predicted)) == 2


def test_a_failing_worker_gives_its_reason_in_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(WorkerFailed, match=r"manifest\.json") as told,
        loaded_worker(job("lora", "onnx", "fp32", tmp_path)),
    ):
        pass
    assert "\n" not in str(told.value)


def test_a_worker_that_dies_is_noticed(make_artifact) -> None:
    with onnx_worker(make_artifact) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerFailed, match="signal 9"):
            worker.ask("latency")


def test_a_silent_worker_is_given_up(make_artifact) -> None:
    with onnx_worker(make_artifact) as worker:
        worker.timeout_s = 0.2
        with pytest.raises(WorkerFailed, match=r"no answer within 0\.2 s"):
            worker.receive()


def test_an_unasked_worker_sleeps(make_artifact) -> None:
    with onnx_worker(make_artifact) as worker:
        assert psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED


def test_a_worker_has_the_highest_priority_that_may_be_had(make_artifact) -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import os; print(os.nice(-100))"], capture_output=True, text=True
    )
    allowed = int(told.stdout) if told.returncode == 0 else os.getpriority(os.PRIO_PROCESS, 0)
    with onnx_worker(make_artifact) as worker:
        assert worker.ask("load")["facts"]["priority"] == allowed
        assert psutil.Process(worker.pid).nice() == allowed
        assert os.getsid(worker.pid) == worker.pid


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_workers_end_with_a_parent_that_was_killed() -> None:
    code = (
        "import time; from finetune.core.worker_process import WorkerProcess\n"
        "worker = WorkerProcess('bench.engines.worker', 1, 60); worker.ask('modules')\n"
        "print(worker.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=package_environment()
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        assert not psutil.pid_exists(pid)


def test_tfidf_survives_saving(tfidf: Path) -> None:
    fitted = fit_tfidf(TEXTS * 4, [1, 0, 1, 1, 0] * 4)
    again = load_tfidf(tfidf)
    np.testing.assert_allclose(
        fitted.vectorizer.transform(TEXTS).toarray(), again.vectorizer.transform(TEXTS).toarray()
    )
    np.testing.assert_array_equal(fitted.predict(TEXTS), again.predict(TEXTS))


def test_tfidf_knows_more_than_two_classes() -> None:
    model = fit_tfidf(["가가", "나나", "다다"] * 5, [0, 1, 2] * 5)
    assert model.predict(["다다", "가가", "나나"]).tolist() == [2, 0, 1]


def test_tfidf_reaches_its_known_accuracy_on_nsmc(nsmc_folder: Path) -> None:
    """78.8 % is the reference at 2,000 training rows; 10,000 test rows give ± 0.8 points."""
    from finetune.data.reviews import load_corpus
    from finetune.recipes.text import DataSection

    section = DataSection(path=str(nsmc_folder), rows=2500, validation_size=500, test_size=10_000)
    corpus = load_corpus(section, 42)
    model = fit_tfidf(corpus.train["text"].tolist(), corpus.train["label"].tolist())
    accuracy = np.mean(model.predict(corpus.test["text"].tolist()) == corpus.test["label"])
    assert 0.77 < accuracy < 0.81
