"""What a GPU changes in a training, told to code that runs without one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from bench.training.suite import PlanSuite, TrainingSuite, case_recipe
from finetune.core import provenance
from finetune.core.errors import RecipeError
from finetune.hardware import gpu, streaming
from finetune.hardware.frozen_base import place_model
from finetune.hardware.precision import choose_precision, exact_fp32, tf32_products
from finetune.loop import ledger
from finetune.loop.trainer_setup import training_arguments
from finetune.models.loading import autocast_context, load_base
from finetune.models.source import resolve_base
from finetune.planning import planning
from finetune.recipes.files import check_recipe, read_yaml
from finetune.recipes.text import FinetuneRecipe, TrainingSection
from finetune.run_folder import open_run
from finetune.tasks.text.job import adapt_model

ROOT = Path(__file__).parents[3]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A PyTorch that says it sees two GPUs; accelerate's shared state is put back."""
    before = PartialState._shared_state.copy(), AcceleratorState._shared_state.copy()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA GeForce RTX")
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._shared_state.update(before[0])
    AcceleratorState._shared_state.update(before[1])


def test_a_second_gpu_does_not_double_the_batch(two_gpus, tmp_path: Path) -> None:
    arguments = training_arguments(
        TrainingSection(),
        accumulation=1,
        device="cuda",
        precision="fp32",
        seed=0,
        checkpoints=tmp_path,
        per_device_train_batch_size=16,
    )
    assert arguments.device.type == "cuda"
    assert arguments.n_gpu == 1  # more, and Trainer wraps the model in DataParallel
    assert arguments.train_batch_size == 16


def test_the_second_gpu_is_told_of(two_gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = gpu.gpu_notes("auto", "cuda")
    assert "one of 2 GPUs" in line and "--launch 2" in line
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert gpu.gpu_notes("auto", "cuda") == []


def test_qlora_is_placed_on_this_process_gpu(two_gpus, make_base, monkeypatch) -> None:
    """accelerate refuses a quantised model whose device map has no index, on every rank."""
    from accelerate import Accelerator

    assert gpu.placement("cuda") == 1
    assert gpu.placement("cpu") == "cpu"
    model = load_base(resolve_base(str(make_base("roberta"))), ["a", "b"], quantize_4bit=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    accelerator = Accelerator(cpu=True)
    accelerator.state._shared_state["device"] = torch.device("cuda:1")
    accelerator.state._shared_state["distributed_type"] = DistributedType.NO
    for where, accepted in (("cuda", False), (gpu.placement("cuda"), True)):
        model.hf_device_map = {"": where}
        try:
            accelerator.prepare_model(model, device_placement=False)
            refused = False
        except ValueError:
            refused = True
        assert refused is not accepted, where


def test_an_old_driver_is_told_where_auto_takes_the_cpu(tmp_path: Path, monkeypatch) -> None:
    driver = tmp_path / "version"
    monkeypatch.setattr(gpu, "DRIVER", driver)
    assert gpu.gpu_notes("auto", "cpu") == []
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  450.80.02")
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11000).")

    monkeypatch.setattr(torch.cuda, "init", too_old)
    (line,) = gpu.gpu_notes("auto", "cpu")
    assert line.startswith("training on the CPU") and "too old" in line and "CUDA 13.0" in line
    assert gpu.gpu_notes("cpu", "cpu") == []
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in gpu.gpu_notes("auto", "cpu")[0]


@pytest.mark.parametrize(("precision", "half"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_a_frozen_base_goes_to_the_gpu_in_its_half_precision(
    make_base, monkeypatch, precision: str, half: str
) -> None:
    """A GPU with room for the halves need not have it for fp32, which loading must not ask."""
    recipe = FinetuneRecipe.model_validate({"data": {"source": "sample"}})
    base = load_base(resolve_base(str(make_base("roberta"))), ["a", "b"])
    model = adapt_model(base, recipe, "cuda")
    before = {name: one.clone() for name, one in model.named_parameters()}
    moved: list[set[torch.dtype]] = []

    def move(self: torch.nn.Module, where: str) -> torch.nn.Module:
        assert where == "cuda"
        moved.append({one.dtype for one in self.parameters() if not one.requires_grad})
        return self

    monkeypatch.setattr(torch.nn.Module, "to", move)
    originals = place_model(model, recipe, precision, "cuda")
    assert moved == [{getattr(torch, half)}]
    trained = {one.dtype for one in model.parameters() if one.requires_grad}
    assert trained == {torch.float32}  # fp16's loss scaler asks for it
    originals.give_back(model)
    assert all(torch.equal(one, before[name]) for name, one in model.named_parameters())


def test_an_earlier_peak_is_not_this_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building and loading, the trial step, and the run of another seed in this process."""
    peak = {"now": 100, "most": 100}

    def need(count: int) -> None:
        peak["now"], peak["most"] = count, max(peak["most"], count)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak["most"])
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda: peak.update(most=peak["now"])
    )
    need(900)  # an earlier run
    need(10)
    ledger.forget_peaks()
    need(700)  # loading
    with ledger.unrecorded_peak():
        need(800)
        need(50)
    assert ledger.peak_vram_bytes() == 700
    ledger.forget_vram_peak()
    need(300)  # a step
    need(50)
    assert ledger.peak_vram_bytes() == 300
    ledger.forget_peaks()
    assert ledger.peak_vram_bytes() == 50
    assert ledger.peak_memory_bytes() >= 0.5 * psutil.Process().memory_info().rss


def test_weights_on_the_host_give_the_same_answers(make_base) -> None:
    recipe = FinetuneRecipe.model_validate({"data": {"source": "sample"}})
    base = load_base(resolve_base(str(make_base("roberta"))), ["a", "b"])
    model, tokens = adapt_model(base, recipe, "cuda").eval(), torch.tensor([[5, 6, 7]])
    before = {name: one.clone() for name, one in model.named_parameters()}
    with torch.inference_mode():
        expected = model(input_ids=tokens).logits
    with streaming.weights_on_host(model, "cpu"):
        waiting = {one.device.type for one in model.parameters()}
        with torch.inference_mode():
            found = model(input_ids=tokens).logits
    assert waiting == {"meta"}
    assert torch.equal(found, expected)
    assert all(torch.equal(one, before[name]) for name, one in model.named_parameters())
    weights = 4 * sum(one.numel() for one in model.parameters())
    assert not streaming.outgrows(model, None)
    assert streaming.outgrows(model, weights) and not streaming.outgrows(model, 2 * weights)


def test_tf32_is_a_key_of_the_steps_alone(tmp_path: Path) -> None:
    training = TrainingSection(tf32=True, dataloader_workers=2)
    with exact_fp32():
        with tf32_products(training.tf32):
            assert torch.get_float32_matmul_precision() == "high"
            assert torch.backends.cudnn.allow_tf32
            with autocast_context("cpu", "fp32"):  # an evaluation in between
                assert torch.get_float32_matmul_precision() == "highest"
                assert not torch.backends.cudnn.allow_tf32
            assert torch.get_float32_matmul_precision() == "high"
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32  # convolutions in fp32 too, speech's
        with tf32_products(False):
            assert torch.get_float32_matmul_precision() == "highest"
    arguments = training_arguments(
        training,
        accumulation=1,
        device="cpu",
        precision="fp32",
        seed=0,
        checkpoints=tmp_path,
    )
    assert arguments.dataloader_num_workers == 2
    cpu = FinetuneRecipe.model_validate(
        {"data": {"source": "sample"}, "training": {"tf32": True, "device": "cpu"}}
    )
    assert "training.tf32 is not used on a CPU" in cpu.unused


def test_provenance_names_driver_and_cuda(tmp_path: Path, monkeypatch) -> None:
    driver = tmp_path / "version"
    driver.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024"
    )
    monkeypatch.setattr(provenance, "NVIDIA_DRIVER", driver)
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=0: "NVIDIA GeForce RTX 2060")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 90100)
    told = provenance.describe_hardware().as_dict()
    assert told["gpus"] == ["NVIDIA GeForce RTX 2060"]
    assert (told["nvidia_driver"], told["cuda"]) == ("550.54.15", "12.4")
    assert (told["compute_capability"], told["cudnn"]) == ("7.5", "90100")
    assert {"onnxruntime-gpu", "nvidia-ml-py"} <= set(provenance.PACKAGES)


def test_what_is_free_is_read_by_the_plan_itself(monkeypatch) -> None:
    recipe = FinetuneRecipe.model_validate(
        {"data": {"source": "sample"}, "training": {"device": "cuda"}}
    )
    with pytest.raises(RecipeError, match=r"(?s)sees no GPU.*--memory 6"):
        planning.free_bytes(recipe)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (5 << 30, 6 << 30))
    assert planning.free_bytes(recipe) == (5 << 30) + planning.CUDA_CONTEXT_BYTES
    on_cpu = recipe.model_copy(
        update={"training": recipe.training.model_copy(update={"device": "cpu"})}
    )
    assert 0 < planning.free_bytes(on_cpu) < 2 * psutil.virtual_memory().total


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_gpu_installs_nothing_in_an_environment_that_is_there() -> None:
    def told(*words: str) -> str:
        command = ["make", "--dry-run", "gpu", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    here = told("GPU_PYTHON=python3")
    assert "pip" not in here and "venv" not in here
    pieces = (
        "tests/gpu",
        "bench plan bench/gpu-plan-roberta-large",
        "bench training",
        "suites/gpu-",
    )
    assert all(one in here for one in pieces)
    own = told("GPU=absent")
    assert "venv --clear absent" in own  # a second call begins anew, onnxruntime does not come back
    for kind, name in (
        (PlanSuite, "gpu-plan-roberta-large"),
        (TrainingSuite, "gpu-training-roberta-large"),
    ):
        path = ROOT / "configs" / "bench" / f"{name}.yaml"
        suite = check_recipe(kind, read_yaml(path), name)
        for way in suite.ways:
            recipe = case_recipe(suite, way, suite.methods[0], path.parent)
            assert recipe.training.device == "cuda"
            assert (recipe.training.batch_size, recipe.model.max_length) == (16, 64)


def test_bf16_is_refused_where_a_gpu_would_emulate_it(two_gpus, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    assert choose_precision("auto", "cuda") == "fp16"
    assert choose_precision("fp32", "cuda") == "fp32"
    with pytest.raises(RecipeError, match=r"(?s)bf16 needs a GPU of 2020.*GeForce.*fp16"):
        choose_precision("bf16", "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert choose_precision("bf16", "cuda") == choose_precision("auto", "cuda") == "bf16"


def test_segments_grow_unless_the_environment_says_otherwise(monkeypatch) -> None:
    for name in gpu.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpu.sys, "platform", "linux")
    gpu.let_segments_grow()
    assert gpu.os.environ["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    gpu.let_segments_grow()
    assert gpu.os.environ["PYTORCH_CUDA_ALLOC_CONF"] == "max_split_size_mb:64"
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_an_adapter_is_read_to_where_its_base_is(make_run, monkeypatch, method: str) -> None:
    """PEFT takes a GPU where there is one, for a variant that is measured on the CPU too."""
    import peft.peft_model

    from finetune.models.loading import load_trained

    monkeypatch.setattr(peft.peft_model, "infer_device", lambda: "cuda")
    model = load_trained(open_run(make_run(method)))
    assert {one.device.type for one in model.parameters()} == {"cpu"}
