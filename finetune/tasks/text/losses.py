"""What a classified row costs: cross-entropy, focal loss, weights of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from finetune.core.errors import DataError
from finetune.data import IGNORED
from finetune.recipes.text import TrainingSection


class RowLoss:
    """Mean loss over the rows of a whole step, whichever micro-batch they are in.

    ``weights`` (classes,) multiply each row by its class's; ``focal_gamma`` by (1 - p)^gamma of
    its class's probability p: Lin et al. 2017, Focal Loss, equation 4.
    """

    def __init__(
        self,
        label_smoothing: float,
        weights: Sequence[float] | None = None,
        focal_gamma: float | None = None,
    ) -> None:
        self.label_smoothing = label_smoothing
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.focal_gamma = focal_gamma

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (rows, classes) and labels (rows,), IGNORED where a row does not count."""
        logits = outputs["logits"].float()
        plain = self.weights is None and self.focal_gamma is None
        whole = num_items_in_batch is None
        loss = functional.cross_entropy(
            logits,
            labels,
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction=("mean" if whole else "sum") if plain else "none",
        )
        if not plain:
            loss = self._weigh(loss, logits, labels).sum()
            loss = loss / (labels != IGNORED).sum() if whole else loss
        return loss if whole else loss / num_items_in_batch

    def _weigh(
        self, losses: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Each row's loss, as much as its class and its difficulty count."""
        known = labels.clamp(min=0)  # an ignored row's loss is zero
        if self.focal_gamma is not None:
            share = logits.softmax(dim=-1).gather(1, known[:, None])[:, 0]
            losses = losses * (1 - share) ** self.focal_gamma
        if self.weights is not None:
            losses = losses * self.weights.to(losses.device)[known]
        return losses


def row_loss(
    training: TrainingSection, labels: Mapping[str, str], class_ids: Iterable[int]
) -> RowLoss:
    """The recipe's loss for training rows of these classes. Raises DataError."""
    gamma = training.focal_gamma if training.loss == "focal" else None
    weights = class_weights(training.class_weights, labels, class_ids)
    return RowLoss(training.label_smoothing, weights, gamma)


def class_weights(
    asked: Mapping[str, float] | str | None, labels: Mapping[str, str], class_ids: Iterable[int]
) -> list[float] | None:
    """A weight for each class; of ``balanced`` all classes together count the same.

    The weights of the training rows have the mean 1, so that a learning rate keeps its meaning:
    scikit-learn's ``compute_class_weight("balanced")``. A class that a mapping does not name
    has 1 before that. Raises DataError where a class has no training row to be balanced by.
    """
    if asked is None:
        return None
    counts = Counter(class_ids)
    rows = sum(counts.values())
    if isinstance(asked, Mapping):
        chosen = [float(asked.get(raw, asked.get(name, 1.0))) for raw, name in labels.items()]
    else:
        absent = [name for place, name in enumerate(labels.values()) if not counts[place]]
        if absent:
            raise DataError(
                "classes without a training row cannot be balanced",
                received=", ".join(absent),
                next_step="training.class_weights={LABEL: WEIGHT}, or fewer data.labels",
            )
        chosen = [1 / counts[place] for place in range(len(labels))]
    mean = sum(chosen[place] * count for place, count in counts.items()) / rows
    return [weight / mean for weight in chosen]
