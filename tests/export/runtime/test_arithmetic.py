"""What a library would choose by the processor is pinned; files say what they were checked in."""

from __future__ import annotations

import json
import runpy
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import export.runtime.session as session_module
from export.quantization.candidates import Candidate, build_candidate
from export.quantization.openvino import convert_to_openvino, quantize_openvino
from export.runtime.arithmetic import onnx_options, openvino_options, provider_options
from export.runtime.classifier import OnnxClassifier
from export.runtime.manifest import ArtifactError, FileEntry
from export.runtime.openvino_session import openvino_core
from export.runtime.processor import InstructionSet
from export.runtime.session import open_session, session_options, warn_of_instructions

INNER, OUTER = 64, 24
EIGHT_BITS = FileEntry("a", instruction_set={"name": "avx512_vnni", "reduce_range": False})
SEVEN_BITS = FileEntry("a", instruction_set={"name": "avx2", "reduce_range": True})
FLOAT = FileEntry("a", "fp32")
TEXTS = ["최고 감동 명작 추천 영화", "최악 졸작 실망 별로 영화"]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One product whose pairs of int8 products leave 16 bits: large weights, large activations."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    path = tmp_path_factory.mktemp("product") / "model.onnx"
    weights = np.random.default_rng(0).uniform(0.5, 1, (INNER, OUTER)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weights"], ["sums"], name="/encoder/product"),
            helper.make_node("Add", ["sums", "bias"], ["logits"], name="/encoder/bias"),
        ],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, INNER])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, OUTER])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.ones(OUTER, np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).uniform(3.5, 4, (16, INNER)).astype(np.float32)


def run(path: Path, rows: np.ndarray, entry: FileEntry) -> np.ndarray:
    return open_session(path, "cpu", 1, entry).run(["logits"], {"x": rows})[0]


def test_eight_bit_weights_do_not_overflow_on_any_processor(product, rows, tmp_path) -> None:
    """Without VNNI two products are summed in 16 bits: plain, these logits are off by a quarter."""
    from export.quantization.dynamic import quantize_dynamic

    made = tmp_path / "int8.onnx"
    wide = InstructionSet(**EIGHT_BITS.instruction_set)
    quantize_dynamic(product, made, head_modules=(), instruction_set=wide)
    exact = run(product, rows, FLOAT)
    assert np.abs(run(made, rows, EIGHT_BITS) - exact).max() < 0.01 * exact.max()


def test_openvino_s_int8_does_not_overflow_on_any_processor(product, rows, tmp_path) -> None:
    pytest.importorskip("nncf", reason="an extra: pip install 'kotune[openvino]'")
    made = tmp_path / "int8.xml"
    assert quantize_openvino(product, made, [{"x": rows}], head_modules=()) == 1
    exact = run(product, rows, FLOAT)
    assert np.abs(run(made, rows, FLOAT) - exact).max() < 0.01 * exact.max()


def test_an_older_openvino_file_of_eight_bits_is_told_where_it_overflows(monkeypatch) -> None:
    """Its sums cannot be pinned by the runtime."""
    older = FileEntry("openvino/model.xml", integer_constants=7)
    monkeypatch.setattr(
        "export.runtime.session.host_instruction_set", lambda: InstructionSet("avx2", True)
    )
    with pytest.warns(RuntimeWarning, match="8-bit weights of this OpenVINO file overflow on avx2"):
        warn_of_instructions(older)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_instructions(replace(older, weight_bits=7))


def test_only_files_of_eight_bits_take_the_slower_products() -> None:
    asked = {
        "8": onnx_options(EIGHT_BITS),
        "7": onnx_options(SEVEN_BITS),
        "float": onnx_options(FLOAT),
    }
    assert [one["session.x64quantprecision"] for one in asked.values()] == ["1", "0", "0"]
    for one in (EIGHT_BITS, SEVEN_BITS, FLOAT):
        options = session_options(1, one)
        name = "mlas.enable_gemm_fastmath_arm64_bfloat16"
        assert options.get_session_config_entry(name) == "0"


def test_tf32_and_bf16_are_not_taken_by_themselves() -> None:
    assert provider_options("cuda")["use_tf32"] == "0"
    assert provider_options("cpu") == {}
    assert openvino_options(2, "fp32")["INFERENCE_PRECISION_HINT"] == "f32"
    assert openvino_options(2, "bf16")["INFERENCE_PRECISION_HINT"] == "bf16"


def test_the_manifest_states_what_is_asked_of_cuda(make_artifact, monkeypatch) -> None:
    """The session gets it, whoever opens it; no search at every length, no doubled memory."""
    manifest = json.loads((make_artifact("lora", "roberta") / "manifest.json").read_text("utf-8"))
    stated = manifest["provider_options"]["cuda"]
    assert stated == provider_options("cuda")
    assert stated["cudnn_conv_algo_search"] != "EXHAUSTIVE"
    assert stated["arena_extend_strategy"] == "kSameAsRequested"
    asked = []

    class Session:
        def __init__(self, path, options, providers):
            asked.extend(providers)

        def get_providers(self):
            return ["CUDAExecutionProvider"]

    runtime = session_module.onnxruntime
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(runtime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(runtime, "InferenceSession", Session)
    session_module._open_onnx(Path("model.onnx"), "cuda", 1, FLOAT)
    assert asked == [("CUDAExecutionProvider", stated)]


def test_every_file_says_what_it_was_checked_in(make_artifact) -> None:
    manifest = json.loads((make_artifact("lora", "roberta") / "manifest.json").read_text("utf-8"))
    for entry in manifest["files"].values():
        assert (entry["arithmetic"], entry["checked_in"]) == ("fp32", "fp32")


@pytest.fixture
def shown(make_workshop, tmp_path):
    """A copy of a folder with OpenVINO files of fp32 and bf16, and its manifest to be changed."""
    pytest.importorskip("openvino", reason="an extra: pip install 'kotune[openvino]'")
    workshop = make_workshop("bert")
    path = workshop.scratch("arithmetic") / "model.xml"
    facts = build_candidate(Candidate("openvino-fp32"), workshop, path)
    half = path.with_name("half.xml")
    convert_to_openvino(workshop.plain, half, precision="bf16")
    folder = tmp_path / "shown"
    shutil.copytree(workshop.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    files = {
        "whole": {"path": ".work/arithmetic/model.xml", **facts},
        "half": {"path": ".work/arithmetic/half.xml", "arithmetic": "bf16", "checked_in": "bf16"},
    }

    def show(**changes) -> Path:
        changed = {key: {**entry, **changes.get(key, {})} for key, entry in files.items()}
        content = {**manifest, "status": "passed", "files": changed}
        (folder / "manifest.json").write_text(json.dumps(content), "utf-8")
        return folder

    return show


def test_openvino_runs_in_what_the_file_says(shown) -> None:
    """Whatever the processor has; that bf16 is executed can be seen only where it has bf16."""

    able = "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert OnnxClassifier(shown(), "whole", verify=False).executed == "fp32"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        executed = OnnxClassifier(shown(), "half", verify=False).executed
    assert executed == ("bf16" if able else "fp32")
    assert any("checked in bf16" in str(one.message) for one in told) == (not able)


def test_a_file_from_before_runs_in_fp32(shown) -> None:
    """Neither the manifest nor the IR states anything: openvino alone would choose."""
    import openvino

    older = {"path": "older.xml", "arithmetic": None}
    folder = shown(whole=older)
    assert "inference_precision" in (folder / ".work/arithmetic/model.xml").read_text("utf-8")
    model = openvino_core().read_model(str(folder / "onnx" / "model.onnx"))
    openvino.save_model(model, str(folder / "older.xml"), compress_to_fp16=False)
    assert "inference_precision" not in (folder / "older.xml").read_text("utf-8")
    classifier = OnnxClassifier(folder, "whole", verify=False)
    assert (classifier.executed, classifier._session.stated) == ("fp32", "fp32")


def test_a_manifest_that_says_otherwise_is_refused(shown) -> None:
    with pytest.raises(ArtifactError, match="made for bf16, the manifest says fp32"):
        OnnxClassifier(shown(half={"arithmetic": "fp32"}), "half", verify=False)


def test_a_file_checked_in_another_precision_is_told(shown) -> None:
    with pytest.warns(RuntimeWarning, match="checked in bf16, this machine computes it in fp32"):
        OnnxClassifier(shown(whole={"checked_in": "bf16"}), "whole", verify=False)


def test_predict_py_pins_the_same(make_artifact) -> None:
    path = make_artifact("lora", "roberta") / "predict.py"
    shipped = runpy.run_path(str(path), run_name="shipped")
    assert shipped["openvino_options"](1, "fp32") == openvino_options(1, "fp32")
    assert shipped["onnx_options"](EIGHT_BITS) == onnx_options(EIGHT_BITS)
    assert shipped["provider_options"]("cuda") == provider_options("cuda")
