"""Mixed precision: the layers whose quantisation moves the logits most stay in float."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from export.quantization.candidates import Candidate, build_candidate, candidate_layers
from export.quantization.workshop import Workshop


def rank_layers(
    candidate: Candidate,
    workshop: Workshop,
    texts: Sequence[str],
    reference: np.ndarray,
    report: Callable[[str], None],
) -> list[tuple[str, float]]:
    """(layer, mean logit difference) with that layer alone quantised, the most sensitive first.

    ``reference`` are the float logits (n, labels) of ``texts``. For OpenVINO, whose calibration
    takes far longer, the layers are ranked in ONNX Runtime's static int8.
    """
    if candidate.precision == "openvino-int8":
        candidate = Candidate("int8-static", calibration="minmax", balanced=workshop.balances)
    layers = list(candidate_layers(candidate, workshop))
    path = workshop.scratch("sensitivity") / "model.onnx"
    found = []
    for layer in layers:
        others = tuple(name for name in layers if name != layer)
        build_candidate(replace(candidate, float_layers=others), workshop, path)
        difference = float(np.abs(workshop.answer(path, texts) - reference).mean())
        found.append((layer, difference))
        for part in path.parent.iterdir():
            part.unlink()
    found.sort(key=lambda entry: -entry[1])
    told = ", ".join(f"{layer} ({difference:.2g})" for layer, difference in found[:5])
    report(f"{candidate.name}: most sensitive layers {told}")
    return found


def mixed_candidates(
    candidate: Candidate, ranking: Sequence[tuple[str, float]]
) -> Iterator[Candidate]:
    """The candidate with ever more layers in float, the most sensitive first, all but one."""
    count = 1
    while count < len(ranking):
        kept = tuple(layer for layer, _ in ranking[:count])
        yield replace(candidate, float_layers=kept)
        count += max(1, count // 2)
