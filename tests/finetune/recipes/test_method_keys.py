"""Which keys of a recipe belong to which method."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from finetune.recipes.text import AdapterSection


@pytest.mark.parametrize(
    ("adapter", "told"),
    [
        ({"method": "lora", "learning_rate_ratio": 4}, "belongs to `method` lora"),
        ({"method": "pissa", "dropout": 0.1}, "must be 0 with `method` pissa"),
        ({"method": "prefix"}, "'lora', 'qlora', 'dora'"),
    ],
)
def test_keys_that_do_not_fit_the_method_are_refused(adapter: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        AdapterSection.model_validate(adapter)


def test_keys_that_mean_nothing_to_the_method_are_told() -> None:
    assert AdapterSection(method="ia3", rank=4, alpha=32).unused == ["rank"]
    assert AdapterSection(method="head", target_modules="attention").unused == ["target_modules"]
    assert AdapterSection(method="dora", rank=4).unused == []
