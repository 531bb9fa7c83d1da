"""A model's tokenizer, loaded so that it gives the ids its files were made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import KotuneError
from finetune.core.libraries import transformers_major
from finetune.models.optional_packages import CONVERTED, READY, explain_tokenizer, tokenizer_folder
from finetune.models.token_ids import (
    TEXTS,
    TokenIds,
    check_token_ids,
    file_ids,
    read_token_ids,
    write_token_ids,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(source: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a folder or cached hub id, padding on the right.

    Raises ModelError, also where it gives other ids than those that the folder keeps
    (``token_ids.json``).
    """
    try:
        tokenizer = _open(source, revision)
    except (MemoryError, KotuneError):
        raise
    except Exception as fault:  # a package that is not installed shows as any exception
        raise explain_tokenizer(fault, str(source), tokenizer_folder(source, revision)) from fault
    if Path(source).is_dir():
        check_token_ids(tokenizer, Path(source))
    tokenizer.padding_side = "right"
    if "attention_mask" not in tokenizer.model_input_names:  # checks/parts.py asks the model
        tokenizer.model_input_names = [*tokenizer.model_input_names, "attention_mask"]
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the tokenizer's files, readable by both majors of transformers, and its fingerprint.

    transformers 5 names a class and a form of special tokens that 4.57 does not know.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    told = json.loads(path.read_text("utf-8"))
    before = dict(told)
    if told.get("tokenizer_class") == "TokenizersBackend":
        told["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(told.get("extra_special_tokens"), list):
        told["additional_special_tokens"] = told.pop("extra_special_tokens")
    if told != before:
        path.write_text(json.dumps(told, ensure_ascii=False, indent=2) + "\n", "utf-8")
    write_token_ids(tokenizer, folder)


def _open(source: str | Path, revision: str | None) -> Any:
    from transformers import AutoTokenizer, BertTokenizerFast

    named = {"revision": revision or "main"}
    if _is_wordpiece_alone(tokenizer_folder(source, revision)):
        return BertTokenizerFast.from_pretrained(str(source), trust_remote_code=False, **named)
    tokenizer = AutoTokenizer.from_pretrained(
        str(source), use_fast=True, trust_remote_code=False, **named
    )
    folder = tokenizer_folder(source, revision)
    if folder is None or not tokenizer.is_fast or transformers_major() < 5:
        return tokenizer
    return _as_filed(tokenizer, folder, source, named)


def _as_filed(tokenizer: Any, folder: Path, source: str | Path, named: dict[str, Any]) -> Any:
    """The same, or what tokenizer.json says where transformers 5 has built something else.

    Of several of its classes it takes no more than the vocabulary from the file, and puts their
    own normaliser, splitting and special tokens around it. Which of the two a run was trained
    with its fingerprint tells. Raises OSError where there are no files: it would be content with
    a handful of special tokens.
    """
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        if not any(path for name in (*READY, *CONVERTED) for path in folder.glob(name)):
            raise OSError(f"no tokenizer files in {folder}")
        return tokenizer
    kept = read_token_ids(folder)
    if kept is None:
        kept = TokenIds(TEXTS, file_ids(folder / "tokenizer.json", TEXTS), {})
    if kept.matches(tokenizer):
        return tokenizer
    filed = PreTrainedTokenizerFast.from_pretrained(str(source), trust_remote_code=False, **named)
    return filed if kept.matches(filed) else tokenizer


def _is_wordpiece_alone(folder: Path | None) -> bool:
    """Whether vocab.txt is all there is, of a model type whose own tokenizer does not read it.

    klue/roberta's shape; where a class is named, transformers knows what to do.
    """
    from transformers import AutoConfig
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

    if folder is None or [name for name in READY if (folder / name).is_file()] != ["vocab.txt"]:
        return False
    if _named_class(folder) is not None:
        return False
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    kinds = TOKENIZER_MAPPING.get(type(config), None) or ()
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    files = {name for kind in kinds if kind for name in kind.vocab_files_names.values()}
    return bool(files) and "vocab.txt" not in files


def _named_class(folder: Path) -> str | None:
    for name in ("tokenizer_config.json", "config.json"):
        if (folder / name).is_file():
            told = json.loads((folder / name).read_text("utf-8")).get("tokenizer_class")
            if told is not None:
                return told
    return None
