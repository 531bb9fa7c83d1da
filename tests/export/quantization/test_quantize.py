"""int8 means int8 in the encoder and float in the head."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from export.graph.fusion import fuse_graph
from export.quantization.dynamic import (
    InstructionSet,
    host_instruction_set,
    quantize_dynamic,
    verify_quantized,
)
from finetune.core.errors import ModelError

HEAD = ("classifier",)
VNNI = InstructionSet("avx512_vnni", reduce_range=False)
AVX2 = InstructionSet("avx2", reduce_range=True)


@pytest.fixture
def fused(make_artifact, tmp_path):
    source = make_artifact("lora", "roberta") / "onnx" / "model.onnx"
    assert fuse_graph(source, tmp_path / "fused.onnx", heads=4, hidden_size=64) == 2
    return tmp_path / "fused.onnx"


def initializers(path) -> dict[str, np.ndarray]:
    return {
        weights.name: numpy_helper.to_array(weights)
        for weights in onnx.load(str(path)).graph.initializer
    }


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_the_head_is_never_quantised(make_artifact, kind):
    folder = make_artifact("lora", kind) / "onnx"
    graph = onnx.load(str(folder / "model_quantized.onnx")).graph
    head = [node for node in graph.node if node.name.startswith("/classifier")]
    products = [node for node in head if node.op_type in ("MatMul", "Gemm")]
    assert len(products) == (2 if kind == "roberta" else 1)
    assert not [node for node in head if "Integer" in node.op_type or "Quant" in node.op_type]
    plain, quantised = (
        initializers(folder / name) for name in ("model.onnx", "model_quantized.onnx")
    )
    for node in products:
        kept, original = quantised[node.input[1]], plain[node.input[1]]
        assert kept.dtype == np.float32
        assert np.array_equal(kept, original) or np.array_equal(kept, original.T)


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_every_matrix_of_the_encoder_is_int8(make_artifact, kind):
    path = make_artifact("lora", kind) / "onnx" / "model_quantized.onnx"
    count = Counter(node.op_type for node in onnx.load(str(path)).graph.node)
    assert count["QAttention"] == 2  # two layers
    assert count["MatMulInteger"] == 2 * 3  # attention output, and both of the feed-forward
    assert count["Attention"] == 0
    int8 = [name for name, value in initializers(path).items() if value.dtype == np.int8]
    assert len([name for name in int8 if name.endswith("_quantized")]) == 2 * 4


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_weights_left_on_disk_change_neither_the_fused_nor_the_int8_graph(
    make_artifact, tmp_path, monkeypatch, kind
):
    source = make_artifact("lora", kind) / "onnx" / "model.onnx"
    for name, large_bytes in (("memory", 2**30), ("disk", 2**10)):
        (tmp_path / name).mkdir()
        monkeypatch.setattr("export.graph.fusion.LARGE_BYTES", large_bytes)
        fused = tmp_path / name / "fused.onnx"
        assert fuse_graph(source, fused, heads=4, hidden_size=64) == 2
        quantize_dynamic(fused, tmp_path / name / "int8.onnx", head_modules=HEAD)
    assert (tmp_path / "disk" / "fused.onnx_data").is_file()
    assert not (tmp_path / "disk" / "int8.onnx_data").exists()
    for file in ("fused.onnx", "int8.onnx"):
        assert logits_of(tmp_path / "disk" / file) == logits_of(tmp_path / "memory" / file)


def logits_of(path) -> list[list[float]]:
    session = onnxruntime.InferenceSession(str(path))
    ids = np.arange(5, 45, dtype=np.int64).reshape(2, 20)
    mask = np.ones_like(ids)
    mask[1, 12:] = 0
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    names = [node.name for node in session.get_inputs()]
    return session.run(["logits"], {name: feed[name] for name in names})[0].tolist()


def test_external_data_is_taken_in_where_one_file_can_hold_it(fused):
    from export.graph.files import store_as_one_file

    expected = logits_of(fused)
    onnx.save_model(
        onnx.load(str(fused)), str(fused), save_as_external_data=True, location="fused.onnx_data"
    )
    store_as_one_file(fused)
    assert not fused.with_name("fused.onnx_data").exists()
    assert logits_of(fused) == expected


def test_quantising_the_head_is_noticed(fused, tmp_path):
    from onnxruntime.quantization import quantize_dynamic as carelessly

    carelessly(fused, tmp_path / "int8.onnx", extra_options={"DefaultTensorType": 1})
    with pytest.raises(ModelError, match="/classifier/out_proj/Gemm"):
        verify_quantized(tmp_path / "int8.onnx", HEAD)


def test_a_float_graph_is_not_taken_for_int8(fused):
    with pytest.raises(ModelError, match="no int8 product"):
        verify_quantized(fused, HEAD)


@pytest.mark.parametrize(("instructions", "largest"), [(VNNI, 127), (AVX2, 64)])
def test_weights_keep_to_seven_bits_without_vnni(fused, tmp_path, instructions, largest):
    target = tmp_path / "int8.onnx"
    quantize_dynamic(fused, target, head_modules=HEAD, instruction_set=instructions)
    weights = [
        np.abs(value.astype(np.int32)).max()
        for name, value in initializers(target).items()
        if name.endswith("_quantized")
    ]
    assert set(weights) == {largest}


@pytest.mark.parametrize(
    ("flags", "machine", "expected"),
    [
        ({"avx2", "avx512bw", "avx512_vnni"}, "x86_64", VNNI),
        ({"avx2", "avx_vnni"}, "x86_64", InstructionSet("avx_vnni", False)),
        ({"avx2", "avx512bw"}, "x86_64", InstructionSet("avx512bw", True)),
        ({"avx2"}, "x86_64", AVX2),
        (set(), "arm64", InstructionSet("arm64", False)),
        (set(), "AMD64", InstructionSet("unknown", True)),
    ],
)
def test_the_range_follows_the_instruction_set(monkeypatch, flags, machine, expected):
    monkeypatch.setattr("export.runtime.processor.cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert host_instruction_set() == expected
