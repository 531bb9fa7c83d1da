"""What fp16 and 8-bit optimizers ask of the loop, on a CPU: overflow, state that comes back."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from finetune.loop.checkpoints import read_state, write_state
from finetune.loop.resumable import ResumableTrainer


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.layer(x).squeeze(-1) - labels).square().mean()}


class Rows(Dataset):
    def __len__(self) -> int:
        return 48

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        return {"x": torch.full((4,), float(place % 5)), "labels": torch.tensor(100.0)}


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused"])
def test_a_step_skipped_on_overflow_is_none_of_the_schedule(tmp_path: Path, optimizer: str) -> None:
    """The scale begins so high that the first updates overflow; fp16's scaler, on a CPU."""
    torch.manual_seed(0)
    trainer = ResumableTrainer(
        model=Line(),
        args=TrainingArguments(
            output_dir=str(tmp_path),
            report_to=[],
            use_cpu=True,
            optim=optimizer,
            per_device_train_batch_size=4,
            max_steps=40,
            save_strategy="no",
            disable_tqdm=True,
            max_grad_norm=0.0,
        ),
        train_dataset=Rows(),
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=1000)
    trainer.accelerator.scaler = scaler
    trainer.train()
    skipped = round(126 - torch.tensor(scaler.get_scale()).double().log2().item())
    assert 0 < skipped < 40
    assert trainer.state.global_step == 40
    assert trainer.lr_scheduler.last_epoch == 40 - skipped


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_an_8bit_optimizer_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(128, 128), torch.nn.Linear(128, 4))
    arguments = TrainingArguments(
        output_dir=str(tmp_path), report_to=[], use_cpu=True, optim=name, learning_rate=1e-3
    )
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)

    def step(one: torch.nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        rows = torch.randn(8, 128, generator=torch.Generator().manual_seed(number))
        one(rows).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    optimizer = kind(model.parameters(), **options)
    for number in range(3):
        step(model, optimizer, number)
    states = optimizer.state[model[0].weight]
    assert states["state1"].dtype == states["state2"].dtype == torch.uint8
    write_state(tmp_path, "optimizer", optimizer.state_dict())
    again = copy.deepcopy(model)
    resumed = kind(again.parameters(), **options)
    resumed.load_state_dict(read_state(tmp_path, "optimizer"))
    for number in range(3, 6):
        step(model, optimizer, number)
        step(again, resumed, number)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
