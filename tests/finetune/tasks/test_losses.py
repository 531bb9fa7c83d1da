"""What a row costs: weights of classes and focal loss, against other ways to the same figures."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from finetune.core.errors import DataError, RecipeError
from finetune.data import IGNORED
from finetune.recipes.files import check_recipe
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.text.losses import RowLoss, class_weights
from finetune.training import finetune

LABELS = {"0": "no", "1": "yes", "2": "maybe"}
LOGITS = torch.tensor([[2.0, -1.0, 0.0], [0.1, 0.2, 0.3], [-1.0, 3.0, 0.5], [0.0, 0.0, 0.0]])
ANSWERS = torch.tensor([0, 2, 1, IGNORED])


def test_balanced_weights_are_scikit_learns() -> None:
    ids = [0] * 90 + [1] * 9 + [2]
    found = class_weights("balanced", LABELS, ids)
    assert found == pytest.approx(
        compute_class_weight("balanced", classes=np.arange(3), y=np.array(ids))
    )
    assert sum(found[one] for one in ids) == pytest.approx(len(ids))


def test_weights_by_value_or_name_keep_the_mean_of_one() -> None:
    ids = [0, 0, 0, 1]
    assert class_weights({"yes": 3}, LABELS, ids) == class_weights({"1": 3}, LABELS, ids)
    first, second, third = class_weights({"yes": 3}, LABELS, ids)
    assert second == pytest.approx(3 * first) and third == first
    assert 3 * first + second == pytest.approx(4)
    assert class_weights(None, LABELS, ids) is None
    with pytest.raises(DataError, match="without a training row"):
        class_weights("balanced", LABELS, ids)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_weights_it_is_cross_entropy(smoothing: float) -> None:
    wanted = functional.cross_entropy(LOGITS, ANSWERS, label_smoothing=smoothing)
    even = RowLoss(smoothing, weights=[1, 1, 1], focal_gamma=0.0)
    for loss in (RowLoss(smoothing), even):
        torch.testing.assert_close(loss({"logits": LOGITS}, ANSWERS), wanted)


def test_focal_loss_is_that_of_its_equation() -> None:
    share = LOGITS.softmax(-1)[torch.arange(3), ANSWERS[:3]]
    wanted = (-((1 - share) ** 1.5) * share.log()).mean()
    torch.testing.assert_close(RowLoss(0.0, focal_gamma=1.5)({"logits": LOGITS}, ANSWERS), wanted)


def test_micro_batches_add_up_to_the_step() -> None:
    loss = RowLoss(0.05, weights=[0.5, 1.0, 2.5], focal_gamma=2.0)
    whole = loss({"logits": LOGITS}, ANSWERS, torch.tensor(3))
    halves = [
        loss({"logits": LOGITS[part]}, ANSWERS[part], torch.tensor(3))
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(sum(halves), whole)
    torch.testing.assert_close(loss({"logits": LOGITS}, ANSWERS), whole)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"class_weights": {"perhaps": 2.0}}, "class_weights names perhaps"),
        ({"class_weights": {"1": 0}}, "greater than 0"),
        ({"focal_gamma": 1.0}, "belongs to training.loss=focal"),
    ],
)
def test_keys_that_do_not_fit_are_refused(training: dict, message: str) -> None:
    content = {"data": {"source": "sample"}, "training": training}
    with pytest.raises(RecipeError, match=message):
        check_recipe(FinetuneRecipe, content, "here")


def test_the_rare_class_is_found_where_weights_say_so(make_base, reviews, tmp_path: Path) -> None:
    """One positive review in twelve: left alone, the model of a few steps answers one class."""
    with reviews.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    positive = [row for row in rows if row["label"] == "1"][:16]
    kept = [row for row in rows if row["label"] == "0"] + positive
    random.Random(1).shuffle(kept)
    path = tmp_path / "rare.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, ["document", "label"])
        table.writeheader()
        table.writerows(kept)

    def recall(name: str, **training) -> float:
        recipe = FinetuneRecipe.model_validate(
            {
                "output": str(tmp_path / name),
                "model": {"source": str(make_base("roberta")), "max_length": 32},
                "data": {"path": str(path), "validation_size": 0.4, "test_size": 0.1},
                "adapter": {"method": "full"},
                "training": {
                    "max_steps": 30,
                    "learning_rate": 5e-4,
                    "batch_size": 16,
                    "device": "cpu",
                    "precision": "fp32",
                    "best_metric": "f1_macro",
                    **training,
                },
            }
        )
        folder = finetune(recipe, report=lambda line: None)
        told = json.loads((folder / "metrics.json").read_text("utf-8"))
        table = np.array(told["validation"]["all"]["confusion"])
        return table[1, 1] / table[1].sum()

    assert recall("balanced", class_weights="balanced") > recall("plain")
