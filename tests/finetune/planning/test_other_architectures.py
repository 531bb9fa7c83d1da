"""Plans of encoders that are no BERT: figures, or one message; never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from architectures import write_architecture

from finetune.core.errors import ModelError
from finetune.models.source import resolve_base
from finetune.planning.fake_model import plain_functions
from finetune.planning.memory import MemoryNeed, StepShape, estimate_memory
from finetune.planning.planning import make_plan
from finetune.recipes.text import FinetuneRecipe

SHAPE = StepShape(rows=4, length=24, eval_rows=4, device="cpu", precision="fp32")


@pytest.fixture
def plan(make_base, tmp_path: Path) -> Callable[..., MemoryNeed]:
    """A function: architecture, training keys → what it needs."""

    def make(name: str, method: str = "lora", **training) -> MemoryNeed:

        folder = tmp_path / name
        if not folder.exists():
            write_architecture(name, folder, make_base("roberta"))
        recipe = FinetuneRecipe.model_validate(
            {
                "model": {"source": str(folder), "max_length": 32},
                "data": {"source": "sample"},
                "adapter": {"method": method, "rank": 4, "alpha": 8},
                "training": {"batch_size": 4, **training},
            }
        )
        return estimate_memory(recipe, resolve_base(str(folder)), SHAPE)

    return make


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        "deberta",
        "distilbert",
        pytest.param("deberta-v2", marks=SLOW),
        pytest.param("longformer", marks=SLOW),
        pytest.param("canine", marks=SLOW),
    ],
)
def test_other_encoders_are_planned(plan, name: str) -> None:
    lora, full = plan(name), plan(name, "full")
    assert lora.trainable_parameters < full.trainable_parameters == full.parameters
    assert full.optimizer_bytes == pytest.approx(8 * full.parameters, rel=0.01)
    assert lora.activations_bytes > 0 and lora.peak_bytes > lora.weights_bytes


@pytest.mark.parametrize("name", ["funnel", "fnet"])
def test_what_cannot_be_planned_is_said_in_one_message(plan, name: str, capfd) -> None:
    with pytest.raises(ModelError) as fault:
        plan(name)
    assert "cannot be planned" in str(fault.value) and name in str(fault.value)
    assert "Traceback" not in capfd.readouterr().err


def test_a_plan_tells_what_a_training_would_warn_of(make_base, tmp_path: Path) -> None:
    """Also where the recipe has an export section, with which the training is refused."""
    folder = write_architecture("canine", tmp_path / "canine", make_base("roberta"))
    recipe = FinetuneRecipe.model_validate(
        {
            "model": {"source": str(folder), "max_length": 32},
            "data": {"source": "sample", "rows": 200},
            "training": {"batch_size": 4, "device": "cpu"},
            "export": {"check_rows": 100},
        }
    )
    notes = make_plan(recipe, probe=False, report=lambda line: None).notes
    assert any("could not be exported: CanineTokenizer" in note for note in notes)


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adafactor"])
def test_every_optimizer_is_planned(plan, optimizer: str) -> None:
    """adamw_torch divides by what it makes of its step number."""
    need = plan("distilbert", "full", optimizer=optimizer)
    assert (need.optimizer_bytes > 4 * need.parameters) == (optimizer != "adafactor")


def test_scripted_functions_are_python_only_within_the_plan() -> None:
    """Held against the library: ``torch.jit.script`` keeps what it compiled."""
    from transformers import DebertaV2Config, DebertaV2Model
    from transformers.models.deberta_v2 import modeling_deberta_v2 as code

    config = DebertaV2Config(vocab_size=9, hidden_size=8, num_hidden_layers=1, intermediate_size=8)
    config.num_attention_heads = 2
    model = DebertaV2Model(config)
    scripted = code.make_log_bucket_position
    assert isinstance(scripted, torch.jit.ScriptFunction)
    with plain_functions(model):
        assert not isinstance(code.make_log_bucket_position, torch.jit.ScriptFunction)
        distance = torch.arange(6)[:, None] - torch.arange(6)[None]
        assert torch.equal(
            code.make_log_bucket_position(distance, 4, 16), scripted(distance, 4, 16)
        )
    assert code.make_log_bucket_position is scripted
