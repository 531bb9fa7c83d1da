"""A WordPiece vocabulary from a corpus, with the conventions of KLUE's tokenizers.

klue/roberta-* (Park et al. 2021, "KLUE: Korean Language Understanding Evaluation"): cased,
nothing decomposed, ``[CLS] [PAD] [SEP] [UNK] [MASK]`` at 0 to 4, BertTokenizerFast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import BertTokenizerFast

SPECIAL_TOKENS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
CONTINUES = "##"
ALPHABET_SHARE = 0.25  # of the vocabulary: syllables beyond it are rare enough to be [UNK]


def train_tokenizer(
    texts: Sequence[str], *, vocabulary_size: int, min_frequency: int, max_length: int
) -> BertTokenizerFast:
    """A cased WordPiece tokenizer of at most ``vocabulary_size`` pieces, the same every time.

    ``strip_accents`` must be False: BERT's accent stripping decomposes Hangul syllables (NFD).
    The trainer numbers the pieces that continue a word (``##…``) as it comes upon them in a hash
    table, whose order differs from process to process, and breaks ties between pairs by number;
    so it is given the alphabet and those pieces in order, as special tokens before all others.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = _count_words(tokenizer, texts)
    alphabet = _alphabet(words, max(32, round(vocabulary_size * ALPHABET_SHARE)))
    kept = set(alphabet)
    continuing = sorted({one for word in words for one in word[1:] if one in kept})
    pieces = [CONTINUES + one for one in continuing]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        min_frequency=min_frequency,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=[*SPECIAL_TOKENS, *pieces],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _as_bert(tokenizer, max_length)


def _count_words(tokenizer: Any, texts: Sequence[str]) -> Counter[str]:
    """How often each word of the texts occurs, words as the tokenizer cuts them."""
    words: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    return words


def _alphabet(words: Counter[str], most: int) -> list[str]:
    """The most frequent characters, at most so many, in the order of their code points."""
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for character in word:
            counts[character] += times
    frequent = sorted(counts, key=lambda one: (-counts[one], one))
    return sorted(frequent[:most])


def _as_bert(trained: Any, max_length: int) -> BertTokenizerFast:
    """The trained pieces in KLUE's shape; only KLUE's five special tokens are special."""
    from tokenizers import Tokenizer, decoders, models
    from tokenizers.processors import TemplateProcessing
    from transformers import BertTokenizerFast

    vocabulary = trained.get_vocab(with_added_tokens=True)
    tokenizer = Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=CONTINUES)
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = trained.normalizer, trained.pre_tokenizer
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
