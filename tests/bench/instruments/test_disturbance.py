"""Foreign load is told from our own; energy and GPU counters are read where they are."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from results_factory import make_results

from bench.instruments.disturbance import CpuWatch, cpu_seconds, gpu_disturbance
from bench.instruments.meters import EnergyMeter, Gpu, open_gpu, rapl_domains
from bench.report.notes import is_disturbed, load_notes
from bench.results.records import Results
from bench.rounds.processes import CONTEXT_BYTES, memory_shares
from bench.settings import BenchSection
from bench.tasks.text import TextTask
from bench.variants.contenders import Variant

SPIN = "import time\nend = time.time() + 30\nwhile time.time() < end: pass"


@contextmanager
def busy_process() -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-S", "-c", SPIN]) as process:
        try:
            time.sleep(0.3)
            yield psutil.Process(process.pid)
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux accounts for CPU time per core")
def test_a_foreign_process_is_seen_and_a_worker_is_not() -> None:
    """What the machine does besides is in both laps; only the busy process makes the difference."""
    with busy_process() as other:
        watch, before = CpuWatch(), cpu_seconds(other.pid)
        watch.start([])
        began = time.monotonic()
        time.sleep(1.5)
        foreign = watch.stop()
        taken = (cpu_seconds(other.pid) - before) / (time.monotonic() - began)
        assert foreign >= 0.8 * taken - 0.05
        watch.start([other.pid])
        before, began = cpu_seconds(other.pid), time.monotonic()
        busy = CpuWatch()
        busy.start([])
        time.sleep(1.5)
        with_it, without = busy.stop(), watch.stop()
        taken = (cpu_seconds(other.pid) - before) / (time.monotonic() - began)
        assert with_it - without == pytest.approx(taken, abs=0.15)


def test_processes_that_are_gone_took_nothing() -> None:
    assert cpu_seconds(2**22 + 1) == 0.0


def write_domain(root: Path, name: str, kind: str, energy: int) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "name").write_text(f"{kind}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text("1000000\n")
    return folder


def test_rapl_counts_packages_and_wraps_around(tmp_path: Path) -> None:
    first = write_domain(tmp_path, "intel-rapl:0", "package-0", 900_000)
    second = write_domain(tmp_path, "intel-rapl:1", "package-1", 100)
    write_domain(tmp_path, "intel-rapl:0:0", "core", 5)
    write_domain(tmp_path, "intel-rapl:2", "psys", 5)
    meter = EnergyMeter(rapl_domains(tmp_path))
    meter.start()
    (first / "energy_uj").write_text("100000\n")
    (second / "energy_uj").write_text("300100\n")
    assert meter.stop() == {"cpu": pytest.approx(0.5)}


def test_without_counters_energy_is_absent(tmp_path: Path) -> None:
    broken = tmp_path / "intel-rapl:0"
    broken.mkdir()
    meter = EnergyMeter(rapl_domains(tmp_path))
    meter.start()
    assert meter.stop() == {}


class Counters:
    """NVML's functions over numbers of this test: there is no GPU to ask."""

    class NVMLError(Exception):
        pass

    def __init__(self, millijoules: list[int], pids: dict[int, int], busy: int = 0) -> None:
        self.millijoules, self.pids, self.busy = millijoules, pids, busy

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:
        if not self.millijoules:
            raise self.NVMLError
        return self.millijoules.pop(0) if len(self.millijoules) > 1 else self.millijoules[0]

    def nvmlDeviceGetMemoryInfo(self, device: int) -> SimpleNamespace:
        used = sum(self.pids.values())
        return SimpleNamespace(used=used, free=10**9 - used)

    def nvmlDeviceGetComputeRunningProcesses(self, device: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=p, usedGpuMemory=used) for p, used in self.pids.items()]

    def nvmlDeviceGetUtilizationRates(self, device: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=self.busy)


def test_a_gpus_energy_and_memory_are_read() -> None:
    gpu = Gpu(Counters([1000, 1000, 3500], {7: 300, 8: 500}))
    meter = EnergyMeter([], gpu)
    meter.start()
    assert meter.stop() == {"gpu": pytest.approx(2.5)}
    assert (gpu.process_bytes(7), gpu.process_bytes(9), gpu.used_bytes()) == (300, None, 800)
    assert gpu.free_bytes() == 10**9 - 800
    assert EnergyMeter([], Gpu(Counters([], {}))).stop() == {}


def test_workers_share_the_gpus_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = BenchSection(device="cuda", memory_share=0.5)
    sizes = {"small": 10**6, "large": 10**9, "int8": 1}
    plan = SimpleNamespace(task=TextTask(), settings=settings, sizes=sizes)
    variants = [
        Variant(name, "full", "onnx", "fp32", None, None, "", device)
        for name, device in (("small", "cuda"), ("large", "cuda"), ("int8", "cpu"))
    ]
    monkeypatch.setattr("bench.rounds.processes.free_memory_bytes", lambda: 10**12)
    monkeypatch.setattr("bench.rounds.processes.open_gpu", lambda device: Gpu(Counters([], {})))
    shares = memory_shares(variants, plan)
    assert shares["small"] == pytest.approx((CONTEXT_BYTES + 2.5e6) / 0.5e9)
    assert shares["large"] > 5
    assert shares["int8"] < 0.001


def test_other_processes_of_the_gpu_are_counted_where_ours_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.instruments.disturbance.GPU_SETTLE_S", 0)
    gpu = Gpu(Counters([], {7: 1, 8: 1, 9: 1}, busy=35))
    assert gpu_disturbance(gpu, [7, 8]) == {"foreign_gpu_percent": 35, "foreign_gpu_processes": 1}
    assert gpu_disturbance(gpu, [70, 80]) == {"foreign_gpu_percent": 35}
    assert gpu_disturbance(None, [7]) == {}


def test_there_is_no_gpu_on_a_cpu() -> None:
    assert open_gpu("cpu") is None


def test_the_report_tells_of_foreign_load() -> None:
    content = make_results()
    assert not is_disturbed(Results.model_validate(content))
    content["load"] = [
        {"process": 0, "round": number, "foreign_cores": cores, "foreign_gpu_percent": 12}
        for number, cores in enumerate([0.02, 0.9, 1.1])
    ]
    told = Results.model_validate(content)
    assert is_disturbed(told)
    cpu, advice, gpu = load_notes(told)
    assert "0.90 of 2 cores" in cpu
    assert "2 of 3 rounds" in cpu
    assert "`threads=1`" in advice
    assert "12 %" in gpu
    content["settings"]["threads"] = 1
    assert len(load_notes(Results.model_validate(content))) == 2
