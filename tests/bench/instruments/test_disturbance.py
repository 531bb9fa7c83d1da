"""Foreign load is told from our own; energy and GPU counters are read where they are."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from results_factory import make_results

from bench.engines.engine import Engine
from bench.engines.worker import Worker
from bench.instruments import meters
from bench.instruments.disturbance import CpuWatch, cpu_seconds, gpu_disturbance
from bench.instruments.meters import EnergyMeter, Gpu, find_device, open_gpu, rapl_domains
from bench.report.notes import is_disturbed, load_notes
from bench.results.records import Results
from bench.rounds.block import ENERGY_WINDOW_S
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
    meter = EnergyMeter([], Gpu(Counters([], {})))
    assert not meter.counts


class Silent:
    """NVML on a MIG instance or a vGPU: it knows the device and answers nothing about it."""

    class NVMLError(Exception):
        pass

    def __getattr__(self, name: str) -> Callable[[int], None]:
        def refuse(device: int) -> None:
            raise self.NVMLError("Not Supported")

        return refuse

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index


def test_a_gpu_that_tells_nothing_ends_no_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(Silent())
    assert (gpu.energy_j(), gpu.used_bytes(), gpu.free_bytes()) == (None, None, None)
    assert (gpu.process_bytes(7), gpu.compute_pids(), gpu.utilisation_percent()) == (None, [], None)
    meter = EnergyMeter([], gpu)
    meter.start()
    assert meter.stop() == {}
    monkeypatch.setattr("bench.instruments.disturbance.GPU_SETTLE_S", 0)
    assert gpu_disturbance(gpu, [7]) == {}
    plan = SimpleNamespace(task=TextTask(), settings=BenchSection(device="cuda"), sizes={})
    monkeypatch.setattr("bench.rounds.processes.open_gpu", lambda device: gpu)
    variant = Variant("one", "full", "onnx", "fp32", None, None, "", "cuda")
    assert 0 < memory_shares([variant], plan)["one"] < 1


class Driver:
    """CUDA's driver with one visible device."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGet(self, device: object, ordinal: int) -> int:
        return 0 if ordinal == 0 else 101  # CUDA_ERROR_INVALID_DEVICE

    def cuDeviceGetUuid_v2(self, told: Any, device: object) -> int:
        told._obj[:] = self.raw
        return 0


class Named:
    """NVML of a host with two GPUs; the second is cut into MIG instances."""

    class NVMLError(Exception):
        pass

    names = ("GPU-00000000-0000-0000-0000-00000000000a", "MIG-00000000-0000-0000-0000-00000000000b")

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:
        if name not in self.names:
            raise self.NVMLError("Not Found")
        return name

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index


@pytest.mark.parametrize(
    ("last", "found"), [(10, Named.names[0]), (11, Named.names[1]), (12, None)]
)
def test_nvmls_device_is_cudas_by_its_uuid(
    monkeypatch: pytest.MonkeyPatch, last: int, found: str | None
) -> None:
    """CUDA_VISIBLE_DEVICES=1 makes the second GPU CUDA's first; NVML's first is another one."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(meters.ctypes, "CDLL", lambda name: Driver(bytes(15) + bytes([last])))
    assert find_device(Named(), 0) == found


def test_without_a_driver_to_ask_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "cuda_uuid", lambda ordinal: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"3,{Named.names[1]}")
    assert (find_device(Named(), 0), find_device(Named(), 1)) == (3, Named.names[1])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert find_device(Named(), 1) == 1


def test_energy_is_counted_over_seconds_not_over_a_turn() -> None:
    worker, calls = Worker(), []
    worker.latency_rows = ["a", "b", "c", "d"]
    worker.engine = Engine(
        lambda text: calls.append(text) or time.sleep(0.002), lambda texts, n: []
    )
    worker.meter = EnergyMeter([], Gpu(Counters([0, 10_000, 18_000], {})))
    told = worker.energy({"start": 1, "stop": 3, "seconds": 0.05})
    assert set(calls) == {"b", "c"} and len(calls) >= 4
    assert told["energy_j"] == {"gpu": pytest.approx(8.0 / len(calls))}
    assert "energy_j" not in worker.latency({})
    assert ENERGY_WINDOW_S >= 2


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
