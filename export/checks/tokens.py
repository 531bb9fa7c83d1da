"""Whether the artifact's tokenizer.json alone gives the tokens that training saw.

transformers applies more than that file says (switches of tokenizer_config.json, the side texts
are cut on); runtimes read that file alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.runtime.texts import TextEncoder
from finetune.core.errors import ModelError
from finetune.core.preparation import Preparation
from finetune.models.encoding import encode_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EDGES = (
    "",
    " ",
    "가",
    "영화 정말 재미있어요",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",  # 한글 in NFD
    "두  칸,\t탭,\u00a0줄\n바꿈\r\n\u3000끝 ",
    "The QUICK brown Fox, don't; ÀÉÎ ß İ",
    "映画はとても面白い 😀👍🏽 \u200b\ufeff \ufffd",
    "\x00\x07",
)


def check_tokens(
    tokenizer: PreTrainedTokenizerBase, folder: Path, preparation: Preparation, max_length: int
) -> None:
    """Compare token ids of made-up texts, long ones and special tokens among them.

    Raises ModelError where the folder's tokenizer.json gives others than ``tokenizer``.
    """
    special = " ".join(tokenizer.all_special_tokens)
    long = " ".join(f"{word}{EDGES[3]}" for word in range(max_length))
    texts = [*EDGES, f"앞 {special} 뒤", special, long, f"{special} {long}", long.replace(" ", "")]
    padding = tokenizer.pad_token_id
    encode = TextEncoder(folder, preparation, max_length=max_length, pad_token_id=padding)
    shipped = encode(texts)
    trained = encode_texts(tokenizer, texts, preparation, max_length=max_length)["input_ids"]
    for text, theirs, ours in zip(texts, trained, shipped, strict=True):
        if theirs != ours:
            raise ModelError(
                "the tokenizer cannot be exported: tokenizer.json alone gives other tokens than "
                "transformers gave in training",
                received=f"{text!r:.60}: {tokenizer.convert_ids_to_tokens(ours)[:12]}, "
                f"in training {tokenizer.convert_ids_to_tokens(theirs)[:12]}",
                next_step="a base model whose tokenizer_config.json adds nothing to tokenizer.json",
            )
