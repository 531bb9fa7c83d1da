"""Where an artifact comes from and what was measured before it: for its manifest and card."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.core.errors import KotuneError
from finetune.core.files import sha256_file
from finetune.models.source import TINY
from finetune.recipes.files import expand_path
from finetune.run_folder import Run, read_data, read_metrics
from finetune.run_records import BaseRecord

SCRIPTS = {  # first word of a letter's Unicode name → the one language that is written so
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "THAI": "th",
    "GREEK": "el",
    "HEBREW": "he",
    "ARMENIAN": "hy",
    "GEORGIAN": "ka",
}
SEEN = ("validation_rows_seen_in_training", "test_rows_seen_in_training")
LEAST_SHARE = {"ja": 0.1}  # of the letters, else 0.3; Japanese is half Chinese characters


def describe_origin(
    run: Run, vocabulary: Path, metrics: Sequence[str], license: str | None
) -> dict[str, Any]:
    """The manifest's parent, tokenizer_sha256, data, signs, metrics and license.

    ``vocabulary`` is the artifact's own file, ``metrics`` the keys of the run's metrics to keep.
    ``license`` is the recipe's; None takes the base model's own, where its card says one.
    """
    data = read_data(run)
    return {
        "parent": {
            "run": run.name,
            "run_sha256": sha256_file(run.folder / "run.json"),
            "files": run.info.files,
        },
        "tokenizer_sha256": sha256_file(vocabulary),
        "data": {
            "origin": data.origin,
            "fingerprint": run.info.data_fingerprint,
            **data.model_dump(include=set(SEEN), exclude_unset=True),
        },
        "signs": [sign.as_dict() for sign in run.info.signs],
        "metrics": _trained_metrics(run, metrics),
        "license": license or base_license(run.base),
    }


def tell_language(stated: str | None, texts: Sequence[str]) -> str | None:
    """The language stated, else that of the texts' script where it writes one alone, else None.

    A stated language whose script is nowhere in the texts is not believed: recipes of before
    stated Korean where nobody had.
    """
    found = Counter(
        language
        for character in "".join(texts)
        if character.isalpha()
        for language in [SCRIPTS.get(unicodedata.name(character, "").split(" ")[0], "")]
    )
    if stated is not None and (stated not in SCRIPTS.values() or found[stated]):
        return stated
    letters = found.total()
    told = [one for one in found if one and found[one] >= LEAST_SHARE.get(one, 0.3) * letters]
    return told[0] if len(told) == 1 else None


def base_license(base: BaseRecord) -> str | None:
    """The license the base model's card states, from its folder or the hub's cache; else None."""
    from huggingface_hub import ModelCard

    card = _base_card(base)
    if card is None:
        return None
    try:
        return ModelCard.load(card, ignore_metadata_errors=True).data.license
    except (OSError, ValueError):
        return None


def _base_card(base: BaseRecord) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    if base.revision is not None:
        found = try_to_load_from_cache(base.source, "README.md", revision=base.revision)
        return Path(found) if isinstance(found, str) else None
    try:
        folder = TINY if base.source == "tiny" else expand_path(base.source, "model.source")
    except KotuneError:
        return None
    return folder / "README.md" if (folder / "README.md").is_file() else None


def _trained_metrics(run: Run, wanted: Sequence[str]) -> dict[str, Any]:
    """Figures of the model as it was trained, by split, over all rows of it."""
    metrics = read_metrics(run)
    return {
        split: {key: found[key] for key in wanted if key in found}
        for split in ("validation", "test")
        if (found := metrics.split(split))
    }
