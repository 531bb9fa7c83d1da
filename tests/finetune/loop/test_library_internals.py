"""What we override or swap inside libraries is still there, still called, and takes the same.

A library that changes one of these would not fail by itself: our method would just not be called.
"""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from transformers import Trainer

from finetune.loop.planned_batches import PlannedTrainer
from finetune.loop.resumable import ResumableTrainer
from finetune.tasks.text.trainer import RowsTrainer

OVERRIDDEN = {
    ResumableTrainer: (
        "training_step",
        "_inner_training_loop",
        "_determine_best_metric",
        "_maybe_log_save_evaluate",
        "_save_checkpoint",
        "_load_rng_state",
        "_load_from_checkpoint",
        "_load_optimizer_and_scheduler",
        "_load_scaler",
        "_load_callback_state",
    ),
    RowsTrainer: ("evaluate", "_get_train_sampler", "_get_eval_sampler"),
    PlannedTrainer: ("_get_train_sampler",),
}
PAIRS = [(kind, name) for kind, names in OVERRIDDEN.items() for name in names]


@pytest.mark.parametrize(("kind", "name"), PAIRS, ids=lambda one: getattr(one, "__name__", one))
def test_trainer_still_calls_what_we_override(kind: type, name: str) -> None:
    theirs, ours = getattr(Trainer, name, None), vars(kind)[name]
    assert theirs is not None, f"Trainer has no {name} any more"
    calls = [f"self.{name}(", f"self.{name},", f"self.{name})"]
    assert any(call in inspect.getsource(Trainer) for call in calls), f"nothing calls {name}"
    given = inspect.signature(theirs).parameters
    needed = [one for one in given.values() if one.default is one.empty]
    inspect.signature(ours).bind(*needed)


@pytest.mark.parametrize("kind", [ResumableTrainer, RowsTrainer, PlannedTrainer])
def test_every_private_override_is_listed(kind: type) -> None:
    private = {name for name in vars(kind) if name.startswith("_") and not name.startswith("__")}
    found = {name for name in private if hasattr(Trainer, name)}
    assert found == {name for name in OVERRIDDEN[kind] if name.startswith("_")}


def test_peft_s_layer_holds_what_the_packed_one_reads() -> None:
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import Linear

    model = get_peft_model(nn.Sequential(nn.Linear(8, 8)), LoraConfig(r=2, target_modules=["0"]))
    (layer,) = [one for one in model.modules() if isinstance(one, Linear)]
    (name,) = layer.active_adapters
    assert layer.lora_A[name].weight.shape == (2, 8) and layer.lora_B[name].weight.shape == (8, 2)
    assert layer.scaling[name] and callable(layer.lora_dropout[name])
    assert layer.base_layer.weight.shape == (8, 8)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_torch_still_packs_linear_weights() -> None:
    assert torch.ops.mkldnn._reorder_linear_weight and torch.ops.mkldnn._linear_pointwise
