"""The fused graph: attention, GELU and skip-normalisation each as one ONNX Runtime operator."""

from __future__ import annotations

from pathlib import Path

from export.files import external_data_needed


def fuse_graph(source: Path, target: Path, *, heads: int, hidden_size: int) -> int:
    """Write ``source`` with fused operators to ``target``; the number of fused attentions.

    The raw two-dimensional mask is kept: ONNX Runtime's default for BERT reduces the mask to
    row lengths and so demands right padding (fusion_options.AttentionMaskFormat). 0 means that
    the patterns did not match this architecture and ``target`` is not worth keeping.
    """
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    options = FusionOptions("bert")
    options.use_raw_attention_mask(True)
    model = optimize_model(
        str(source),
        model_type="bert",
        num_heads=heads,
        hidden_size=hidden_size,
        optimization_options=options,
        opt_level=1,
    )
    model.save_model_to_file(str(target), use_external_data_format=external_data_needed(source))
    return int(model.get_fused_operator_statistics()["Attention"])
