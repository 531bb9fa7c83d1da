"""A WordPiece vocabulary from a corpus, with the conventions of KLUE's tokenizers.

klue/roberta-* (Park et al. 2021, "KLUE: Korean Language Understanding Evaluation"): cased,
nothing decomposed, ``[CLS] [PAD] [SEP] [UNK] [MASK]`` at 0 to 4, BertTokenizerFast.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import BertTokenizerFast

SPECIAL_TOKENS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
ALPHABET_SHARE = 0.25  # of the vocabulary: syllables beyond it are rare enough to be [UNK]


def train_tokenizer(
    texts: Iterable[str], *, vocabulary_size: int, min_frequency: int, max_length: int
) -> BertTokenizerFast:
    """A cased WordPiece tokenizer of at most ``vocabulary_size`` pieces.

    ``strip_accents`` must be False: BERT's accent stripping decomposes Hangul syllables (NFD).
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import BertTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        min_frequency=min_frequency,
        limit_alphabet=max(32, round(vocabulary_size * ALPHABET_SHARE)),
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 0), ("[SEP]", 2)],
    )
    # A RoBERTa has one token type: without model_input_names a pair of texts would send a second.
    return BertTokenizerFast(
        tokenizer_object=tokenizer,
        do_lower_case=False,
        strip_accents=False,
        tokenize_chinese_chars=True,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
    )
