"""Cores and instruction sets as Linux tells them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from export.runtime.processor import InstructionSet, available_cores, mismatch

VNNI = InstructionSet("avx512_vnni", reduce_range=False)
AVX2 = InstructionSet("avx2", reduce_range=True)


def machine(folder: Path, siblings: list[str]) -> Path:
    for cpu, shared in enumerate(siblings):
        topology = folder / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{shared}\n")
    return folder


def allow(monkeypatch: pytest.MonkeyPatch, cpus: set[int]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus, raising=False)


@pytest.mark.parametrize(
    ("siblings", "allowed", "cores"),
    [
        (["0-1", "0-1", "2-3", "2-3"], {0, 1, 2, 3}, 2),  # hyper-threads count once
        (["0-1", "0-1", "2-3", "2-3"], {0, 2}, 2),
        (["0-1", "0-1", "2-3", "2-3"], {2, 3}, 1),
        ([], {4, 5, 6}, 3),  # nothing is told of the topology
    ],
)
def test_physical_cores_of_the_affinity(tmp_path, monkeypatch, siblings, allowed, cores):
    allow(monkeypatch, allowed)
    assert available_cores(machine(tmp_path / "cpu", siblings), tmp_path / "none") == cores


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 1),  # spinning threads beyond the quota are throttled
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}, 3),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, 8),
        ({}, 8),
    ],
)
def test_the_quota_of_a_container(tmp_path, monkeypatch, files, cores):
    allow(monkeypatch, set(range(8)))
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert available_cores(tmp_path / "none", tmp_path) == cores


def test_what_another_instruction_set_means():
    assert mismatch(VNNI, VNNI) is None
    assert "slower products here" in mismatch(VNNI, AVX2)
    assert "lose accuracy for nothing" in mismatch(AVX2, VNNI)
    assert "arithmetic is the same" in mismatch(VNNI, InstructionSet("amx_int8", False))
