"""Fusion is an extra: where it fails the export goes on with the plain graph and says so."""

from __future__ import annotations

import onnx
import pytest

from export.artifact.manifest import Draft
from export.exporting import _fuse
from export.graph import fusion
from export.tasks.task import Exported


@pytest.fixture(scope="module")
def distilbert(tmp_path_factory):
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    from export.graph.to_onnx import export_onnx

    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=48)
    path = tmp_path_factory.mktemp("distilbert") / "model.onnx"
    export_onnx(DistilBertForSequenceClassification(config).eval(), path, opset=17)
    return path


def test_a_weight_left_on_disk_that_fusion_reads_is_fetched(distilbert, tmp_path, monkeypatch):
    """DistilBERT's embedding tables; onnx raises a ValidationError of its own."""
    monkeypatch.setattr(fusion, "LARGE_BYTES", 2**10)
    target = tmp_path / "fused.onnx"
    assert fusion.fuse_graph(distilbert, target, heads=4, hidden_size=32) == 2
    onnx.checker.check_model(str(target), full_check=True)


@pytest.mark.parametrize("where", ["pattern", "kernel"])
def test_a_failed_fusion_falls_back_to_the_plain_graph(distilbert, tmp_path, monkeypatch, where):
    (tmp_path / "onnx").mkdir()
    (tmp_path / ".work").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(distilbert.read_bytes())

    def fail(*arguments, **options):
        raise RuntimeError(f"no such {where}\nat line 3")

    if where == "pattern":
        monkeypatch.setattr(fusion, "_fuse", fail)
    climb = fail if where == "kernel" else lambda *step: None
    draft, told = Draft(tmp_path, {}), []
    exported = Exported({}, ("classifier",), heads=4, hidden_size=32)
    assert _fuse(draft, told.append, exported, climb) == (None, "onnx-fp32")
    assert (draft.files, draft.facts) == ({}, {"fused_attentions": 0})
    assert told == [
        f"attention could not be fused (RuntimeError: no such {where} at line 3); "
        "int8 is made from the plain graph"
    ]
