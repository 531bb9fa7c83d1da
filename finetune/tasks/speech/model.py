"""wav2vec2 with a CTC head: from scratch or pretrained, with its characters; frames of audio."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetune.adapters.attach import find_target_modules
from finetune.core.errors import ModelError, TrainingError
from finetune.core.files import write_text
from finetune.models.loading import autocast_context, load_checked, load_whole, run_base
from finetune.models.source import BaseModel
from finetune.models.trained_weights import load_adapter
from finetune.recipes.speech import AugmentSection, SpeechAdapterSection, SpeechArchitectureSection
from finetune.tasks.speech.ctc import SpeechSettings, read_speech_settings
from finetune.tasks.speech.features import check_features

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetune.run_folder import Run

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "|"]  # as facebook/wav2vec2-base-960h has them
UNADAPTED = ("lm_head", "feature_extractor", "feature_projection", "adapter")


def make_processor(characters: Sequence[str], rate_hz: int, folder: Path) -> Any:
    """A Wav2Vec2Processor of these characters, written to ``folder``; the blank is <pad>, id 0."""
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *characters])}
    write_text(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    features = Wav2Vec2FeatureExtractor(
        feature_size=1,
        sampling_rate=rate_hz,
        padding_value=0.0,
        do_normalize=True,
        return_attention_mask=True,
    )
    processor = Wav2Vec2Processor(feature_extractor=features, tokenizer=tokenizer)
    save_processor(processor, folder)
    return processor


def save_processor(processor: Any, folder: Path) -> None:
    """A file for each part, as transformers 4 wrote them and every client reads them.

    Saved whole by transformers 5 the features' settings stand inside processor_config.json.
    """
    processor.feature_extractor.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)


def load_processor(base: BaseModel) -> Any | None:
    """The Wav2Vec2Processor of a pretrained model; None where it has no characters yet."""
    from transformers import Wav2Vec2Processor

    try:
        return Wav2Vec2Processor.from_pretrained(
            base.location,
            revision=base.revision or "main",
            local_files_only=base.local_only,
            trust_remote_code=False,
        )
    except (OSError, TypeError):  # TypeError: a vocabulary file that is not there
        return None


def build_wav2vec2(
    architecture: SpeechArchitectureSection, labels: int, blank_id: int, seed: int
) -> PreTrainedModel:
    """A new Wav2Vec2ForCTC, weights drawn by ``seed``."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(seed)
    return Wav2Vec2ForCTC(
        Wav2Vec2Config(
            vocab_size=labels,
            pad_token_id=blank_id,
            hidden_size=architecture.hidden_size,
            num_hidden_layers=architecture.layers,
            num_attention_heads=architecture.heads,
            intermediate_size=architecture.feed_forward,
            conv_dim=tuple(architecture.conv_dim),
            conv_kernel=tuple(architecture.conv_kernel),
            conv_stride=tuple(architecture.conv_stride),
            num_feat_extract_layers=len(architecture.conv_dim),
            conv_bias=True,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            num_conv_pos_embeddings=architecture.position_kernel,
            num_conv_pos_embedding_groups=architecture.position_groups,
            hidden_dropout=architecture.dropout,
            attention_dropout=0.0,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,
            final_dropout=0.0,
            layerdrop=0.0,
            apply_spec_augment=False,
            mask_time_prob=0.0,  # prepare_training turns masks on
            ctc_loss_reduction="mean",
            ctc_zero_infinity=True,
        )
    )


def load_wav2vec2(base: BaseModel, *, labels: int | None = None, seed: int = 0) -> PreTrainedModel:
    """A pretrained Wav2Vec2ForCTC; ``kotune_new_modules`` names what had no weights.

    ``labels`` is given where the characters are new, and with them the head (blank: id 0).
    Raises ModelError where it is no wav2vec2.
    """
    from transformers import AutoModelForCTC

    torch.manual_seed(seed)
    changed = {} if labels is None else {"vocab_size": labels, "pad_token_id": 0}
    model, info = load_checked(
        AutoModelForCTC,
        base,
        "a wav2vec2 with a CTC head, weights in safetensors",
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        **changed,
    )
    check_wav2vec2(model.config, base.source)
    missing = [key for key in info["missing_keys"] if key.startswith("lm_head")]
    model.kotune_new_modules = ["lm_head"] if missing or labels is not None else []
    return model


def check_wav2vec2(config: Any, source: str) -> None:
    """Raise ModelError for an architecture whose frames we could not count."""
    if config.model_type != "wav2vec2" or getattr(config, "add_adapter", False):
        raise ModelError(
            "the speech model is no plain wav2vec2",
            received=f"{source}: {config.model_type}",
            allowed="wav2vec2 with a CTC head, without convolutional adapter",
        )


def prepare_training(model: PreTrainedModel, augment: AugmentSection, *, frozen: bool) -> None:
    """SpecAugment over time as asked, CTC's mean, and a frozen feature encoder if wanted."""
    config = model.config
    config.apply_spec_augment = augment.mask_time_probability > 0
    config.mask_time_prob = augment.mask_time_probability
    config.mask_time_length = augment.mask_time_length
    config.mask_time_min_masks = 0
    if config.apply_spec_augment and not hasattr(model.wav2vec2, "masked_spec_embed"):
        embedding = torch.empty(config.hidden_size).uniform_()  # left out at probability 0
        model.wav2vec2.masked_spec_embed = torch.nn.Parameter(embedding)
    config.ctc_loss_reduction, config.ctc_zero_infinity = "mean", True
    if frozen:
        model.freeze_feature_encoder()


def attach_speech_adapter(model: PreTrainedModel, adapter: SpeechAdapterSection) -> Any:
    """The model to train: itself, or wrapped by PEFT; a new CTC head is trained in full."""
    if adapter.method == "full":
        return model
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        model,
        LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            target_modules=find_target_modules(model, adapter.target_modules, UNADAPTED),
            modules_to_save=model.kotune_new_modules or None,
        ),
    )


def load_trained_speech(run: Run, *, merge: bool = False) -> torch.nn.Module:
    """The run's model in fp32 and eval mode: LoRA unmerged, or multiplied into the weights.

    Raises ModelError where the base is not the one the run was trained on.
    """
    from transformers import AutoModelForCTC

    if run.method == "full":
        return load_whole(AutoModelForCTC, run.folder / "model").eval()
    labels = len(run.labels) if run.info.new_head else None
    base = load_wav2vec2(run_base(run), labels=labels, seed=run.recipe.seed)
    model = load_adapter(base, run.folder / "model")
    if merge:
        model = model.merge_and_unload(safe_merge=True)
    return model.eval()


def run_settings(run: Run) -> SpeechSettings:
    """Inference settings of a run folder; raises ModelError where it would hear otherwise here."""
    model = run.folder / "model"
    settings = folder_settings(model, run.info.chunk_s, run.info.stride_s, str(run.folder))
    check_features(settings, model)
    return settings


def folder_settings(folder: Path, chunk_s: float, stride_s: float, source: str) -> SpeechSettings:
    """Inference settings of a model folder that is called ``source``; raises ModelError."""
    try:
        return read_speech_settings(folder, chunk_s, stride_s)
    except (OSError, ValueError, KeyError) as fault:
        raise ModelError(
            "the model's folder does not say how it takes audio and what its outputs mean",
            received=f"{source}: {fault}",
            allowed="config.json, preprocessor_config.json, tokenizer_config.json, vocab.json; "
            "added_tokens.json where there are tokens beyond",
        ) from fault


def read_model_settings(base: BaseModel, chunk_s: float, stride_s: float) -> SpeechSettings:
    """Inference settings of a model folder or hub id; raises ModelError."""
    folder = Path(base.location)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        found = snapshot_download(
            base.location,
            revision=base.revision,
            allow_patterns=[
                "*config.json",
                "vocab.json",
                "added_tokens.json",
                "special_tokens_map.json",
            ],
            local_files_only=base.local_only,
        )
        folder = Path(found)
    return folder_settings(folder, chunk_s, stride_s, base.source)


class TorchFrames:
    """A PyTorch wav2vec2 as a function: values (n, samples), mask → logits (n, frames, labels)."""

    def __init__(
        self, model: torch.nn.Module, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        self.model = model.to(device).eval()
        self.device, self.precision = device, precision

    def __call__(self, values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Logits float32."""
        batch = {"input_values": torch.from_numpy(values).to(self.device)}
        if mask is not None:
            batch["attention_mask"] = torch.from_numpy(mask).to(self.device)
        with torch.inference_mode(), autocast_context(self.device, self.precision):
            logits = self.model(**batch).logits.float()
        if not torch.isfinite(logits).all():
            raise TrainingError(
                "the speech model's outputs are not finite numbers; training has diverged",
                next_step="a lower training.learning_rate, or training.precision=fp32",
            )
        return logits.cpu().numpy()
