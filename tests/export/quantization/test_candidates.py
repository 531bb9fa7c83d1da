"""Every file that can be made: what is in it, and that it still answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.graph.embeddings import quantize_embeddings
from export.graph.reading import encoder_layers, in_head, load_graph
from export.quantization.calibration import calibration_texts
from export.quantization.candidates import (
    FILES,
    Candidate,
    build_candidate,
    refusal,
    search_candidates,
)
from export.quantization.dynamic import InstructionSet
from export.quantization.smooth import smooth_graph
from export.quantization.static import quantize_static
from finetune.run_folder import open_run, read_rows

TEXTS = ["최고 감동 명작 추천 영화", "최악 졸작 실망 별로 영화", "그냥 오늘 친구 음악 최고"]
DRIFT = {"int4": 0.5, "openvino-bf16": 0.05, "fp16": 0.01, "openvino-fp32": 1e-4}


def ops(path) -> Counter:
    return Counter(node.op_type for node in load_graph(path).graph.node)


@pytest.mark.parametrize(
    "candidate",
    [
        Candidate("int8-dynamic", graph="fused"),
        Candidate("int8-dynamic", graph="plain", int8_embeddings=True),
        Candidate("int8-static", calibration="minmax"),
        Candidate("int8-static", calibration="entropy", balanced=True),
        Candidate("int8-static", calibration="percentile"),
        Candidate("int4"),
        Candidate("int8-weight"),
        Candidate("fp16"),
        Candidate("openvino-fp32"),
        Candidate("openvino-bf16"),
        Candidate("openvino-int8", float_layers=("1",)),
    ],
    ids=lambda candidate: candidate.name,
)
def test_a_candidate_is_made_and_answers_like_fp32(make_workshop, tmp_path, candidate):
    reason = refusal(candidate.precision, "cpu")
    if reason:
        pytest.skip(f"{candidate.precision}: {reason}")
    workshop = make_workshop("roberta")
    suffix = ".xml" if candidate.precision.startswith("openvino") else ".onnx"
    path = workshop.scratch(candidate.name) / f"model{suffix}"
    facts = build_candidate(candidate, workshop, path)
    expected = workshop.answer(workshop.plain, TEXTS)
    drift = np.abs(workshop.answer(path, TEXTS) - expected).max()
    assert drift < DRIFT.get(candidate.precision, 0.1)
    if "quantization" in facts:
        assert drift > 0
    if candidate.precision == "openvino-int8":
        assert facts["integer_constants"] == 9  # six products of layer 0, three embedding tables
    if suffix == ".onnx":
        assert path.stat().st_size < workshop.plain.stat().st_size
        heads = [
            node for node in load_graph(path).graph.node if in_head(node.name, ("classifier",))
        ]
        assert not [node for node in heads if "Integer" in node.op_type or "NBits" in node.op_type]


def test_static_int8_has_integer_weights_in_the_encoder_and_float_ones_in_the_head(
    make_workshop, tmp_path
):
    workshop, target = make_workshop("bert"), tmp_path / "static.onnx"
    made = quantize_static(
        workshop.plain,
        target,
        workshop.feeds,
        calibration="minmax",
        head_modules=("classifier",),
        instruction_set=InstructionSet("avx2", reduce_range=True),
    )
    assert made.integer_nodes == 12  # six products a layer
    weights = [
        numpy_helper.to_array(one)
        for one in load_graph(target).graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 2
    ]
    assert len(weights) == 12
    assert max(int(np.abs(one.astype(int)).max()) for one in weights) == 64  # seven bits on AVX2
    count = ops(target)
    assert count["Gemm"] == 2  # pooler and classifier
    assert count["QuantizeLinear"] < count["DequantizeLinear"]  # no output was rounded


def test_calibration_takes_training_rows_and_no_padding(make_workshop, make_run):
    run = open_run(make_run("lora", "roberta"))
    texts = calibration_texts(run, 24)
    assert len(texts) == 24 == len(set(texts))
    assert set(texts) <= set(read_rows(run, "train")["text"])
    assert texts == calibration_texts(run, 24)
    for feed in make_workshop("roberta").feeds:
        assert feed["attention_mask"].all()


@pytest.mark.parametrize("precision", ["int8-dynamic", "int8-static", "int8-weight", "int4"])
def test_layers_kept_in_float_are_float(make_workshop, tmp_path, precision):
    workshop = make_workshop("roberta")
    candidate = next(one for one in search_candidates(precision, workshop) if one.graph == "plain")
    build_candidate(candidate, workshop, tmp_path / "all.onnx")
    build_candidate(replace(candidate, float_layers=("1",)), workshop, tmp_path / "mixed.onnx")
    kept = encoder_layers(tmp_path / "mixed.onnx", ("classifier",)).get("1")
    stored = [
        tuple(one.dims)
        for one in load_graph(tmp_path / "mixed.onnx").graph.initializer
        if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) == 2 and 64 in one.dims
    ]
    assert kept and len(kept) == 6
    assert Counter(stored)[(64, 64)] >= 4


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_layers_are_found_in_plain_and_fused_graphs(make_workshop, kind):
    workshop = make_workshop(kind)
    plain = encoder_layers(workshop.plain, workshop.head_modules)
    fused = encoder_layers(workshop.fused, workshop.head_modules)
    assert {layer: len(names) for layer, names in plain.items()} == {"0": 6, "1": 6}
    assert {layer: len(names) for layer, names in fused.items()} == {"0": 4, "1": 4}
    assert fused["1"][0] == "Attention_1"


def test_embedding_tables_become_int8_before_bert_s_are_fused_away(make_workshop):
    workshop = make_workshop("bert")
    assert quantize_embeddings(workshop.fused, workshop.scratch("none") / "m.onnx", smallest=0) == 0
    path = workshop.scratch("tables") / "model.onnx"
    count = quantize_embeddings(workshop.plain, path, smallest=64 * 66 * 4)
    assert count == 2  # words and positions; the two segments are too small
    kinds = {one.name: one.data_type for one in load_graph(path).graph.initializer}
    assert kinds["bert.embeddings.word_embeddings.weight_int8"] == onnx.TensorProto.INT8
    assert "bert.embeddings.word_embeddings.weight" not in kinds
    expected = workshop.answer(workshop.plain, TEXTS)
    assert 0 < np.abs(workshop.answer(path, TEXTS) - expected).max() < 0.05


def test_names_and_files_follow_transformers_js():
    assert FILES["int8-dynamic"][1] == "onnx/model_quantized.onnx"
    assert FILES["int4"][1] == "onnx/model_q4.onnx"
    assert FILES["fp16"][1] == "onnx/model_fp16.onnx"
    assert len({file for _, file in FILES.values()}) == len(FILES)
    mixed = Candidate("int8-static", calibration="entropy", balanced=True, float_layers=("3", "0"))
    assert mixed.name == "int8-static-entropy-balanced-float2"


@pytest.mark.parametrize(
    ("precision", "device", "reason"),
    [
        ("int8-dynamic", "cuda", "no CUDA kernels"),
        ("openvino-int8", "cuda", "does not run on CUDA"),
        ("fp16", "cuda", "onnxruntime-gpu"),
        ("int8-static", "cpu", None),
    ],
)
def test_what_cannot_run_is_refused_with_a_reason(monkeypatch, precision, device, reason):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    told = refusal(precision, device)
    assert (told is None) if reason is None else reason in told


def test_openvino_is_refused_where_it_is_missing_or_would_be_slow(monkeypatch):
    monkeypatch.setattr("finetune.core.provenance.cpu_has_bf16", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert "no bf16" in refusal("openvino-bf16", "cpu")
    assert refusal("openvino-int8", "cpu") is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 'pip install "kotune[openvino]"' in refusal("openvino-int8", "cpu")


def test_balancing_is_shared_by_all_calibrations(make_workshop, monkeypatch):
    calls = []
    original = smooth_graph
    monkeypatch.setattr(
        "export.quantization.smooth.smooth_graph",
        lambda *a, **k: calls.append(1) or original(*a, **k),
    )
    workshop = replace(make_workshop("roberta"))
    assert workshop.balanced == workshop.balanced
    assert calls == [1]
