"""The doctor: what it finds on this machine, and on machines that are made up."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from finetune import doctor
from finetune.core.errors import GateError
from kotune import app


def look(what) -> list[doctor.Finding]:
    return list(what())


def test_this_machine_is_examined_and_json_says_the_same() -> None:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    found = json.loads(done.stdout)
    topics = {one["topic"] for one in found}
    assert {"packages", "processor", "threads", "memory", "gpu", "4-bit", "onnxruntime"} <= topics
    assert {"disk", "hub"} <= topics
    by_topic = {one["topic"]: one for one in found}
    assert by_topic["4-bit"]["status"] == "ok"
    assert "CPUExecutionProvider" in by_topic["onnxruntime"]["told"]
    assert done.exit_code == int(any(one["status"] == "fault" for one in found))


def test_a_broken_library_is_a_fault_and_no_traceback(monkeypatch) -> None:
    def look_at_runtimes():
        raise ImportError("libthing.so: cannot open shared object file\nmore")
        yield

    monkeypatch.setattr(doctor, "look_at_runtimes", look_at_runtimes)
    found = {one.topic: one for one in doctor.examine()}
    assert found["runtimes"].told == "ImportError: libthing.so: cannot open shared object file"
    with pytest.raises(GateError, match="found a fault: runtimes"):
        doctor.check_findings([found["runtimes"]])


def test_limits_of_a_control_group_are_read(tmp_path, monkeypatch) -> None:
    assert doctor.cpu_quota(tmp_path) is None and doctor.memory_limit(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert doctor.cpu_quota(tmp_path) == 1.5 and doctor.memory_limit(tmp_path) == 1 << 30
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor.cpu_quota(tmp_path) is None and doctor.memory_limit(tmp_path) is None
    for name in doctor.THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "cpu_quota", lambda: 0.5)
    (found,) = look(doctor.look_at_threads)
    assert (found.status, found.next_step) == ("warning", "export OMP_NUM_THREADS=1")
    monkeypatch.setattr(doctor, "cpu_quota", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "512")
    (found,) = look(doctor.look_at_threads)
    assert found.status == "warning" and found.next_step == "unset OMP_NUM_THREADS"


@pytest.mark.parametrize(
    ("flags", "int8", "bf16"),
    [
        ({"avx2"}, "7 bits", "trains in fp32"),
        ({"avx2", "avx512f", "avx512_vnni"}, "8 bits", "trains in fp32"),
        ({"avx2", "avx512_vnni", "avx512_bf16"}, "8 bits", "trains in bf16"),
        ({"avx2", "amx_int8", "amx_bf16"}, "8 bits", "trains in bf16"),
    ],
)
def test_instruction_sets_are_told_by_what_they_mean(monkeypatch, flags, int8, bf16) -> None:
    monkeypatch.setattr(doctor, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr("finetune.core.provenance.cpu_flags", lambda: frozenset(flags))
    found = {one.topic: one for one in look(doctor.look_at_processor)}
    assert int8 in found["int8"].told and bf16 in found["bf16"].told
    monkeypatch.setattr(doctor, "cpu_flags", lambda: frozenset({"sse4_2"}))
    assert [one.status for one in look(doctor.look_at_processor)] == ["warning"]


def test_versions_are_held_against_the_ranges_and_the_tested_ones(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "CONSTRAINTS", tmp_path / "constraints.txt")
    asked = ["pip>=1", "not-there>=2", "pytest<1", "absent-extra; extra == 'gpu'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: asked)
    (found,) = look(doctor.look_at_packages)
    assert found.status == "fault"
    assert "not-there>=2 (here: not installed)" in found.told and "pytest<1 (here:" in found.told
    assert "absent-extra" not in found.told and "pip>=1" not in found.told
    (tmp_path / "constraints.txt").write_text("pytest==0.1\nnowhere==1.0\n")
    tested = look(doctor.look_at_packages)[-1]
    assert tested.status == "warning" and "(tested: 0.1)" in tested.told


def test_a_full_disk_and_a_folder_of_another_are_told(tmp_path, monkeypatch) -> None:
    usage = doctor.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    assert {one.status for one in look(doctor.look_at_disk)} == {"warning"}
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert {one.status for one in look(doctor.look_at_disk)} == {"fault"}
