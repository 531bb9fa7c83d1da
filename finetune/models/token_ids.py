"""The fingerprint of a tokenizer: its ids of fixed texts, kept beside it and compared on opening.

Libraries change how they read a tokenizer's files: transformers 5 builds another tokenizer than
4.57 of klue/roberta's (a RoBERTa with a WordPiece vocabulary), and says nothing
(transformers#45701, transformers#47706). A model that is given other ids answers nonsense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.core.errors import FolderError, ModelError
from finetune.core.files import read_json, write_json
from finetune.core.libraries import installed_versions, name_versions, pin_versions
from finetune.core.processes import is_main_process

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKEN_IDS = "token_ids.json"
SCHEMA = "kotune.token_ids/1"
LIBRARIES = ("transformers", "tokenizers", "sentencepiece")

_KOREAN = """영화 정말 재미있어요|최악의 영화, 돈이 아깝다!|그냥 그랬음...|배우들의 연기가 훌륭했다
별점 10점 만점에 10점|ㅋㅋㅋㅋㅋㅋ|ㅠㅠ 너무 슬퍼|ㅇㅇ ㄴㄴ ㄱㄱ|ㅏㅑㅓㅕ|뷁 쀍 췕 똠방각하|아 햏햏
밤·낮 ‘따옴표’ “큰따옴표”|그녀는 “안녕하세요”라고 말했다.|재밌다ㅎㅎ|재미없다;;|완전 노잼ㅡㅡ
한국어와English를섞어쓴문장|2019년 3월 1일 오후 7:30|₩12,000원|서울특별시 강남구 테헤란로 152
대한민국헌법제1조제1항대한민국은민주공화국이다|띄 어 쓰 기|띄어쓰기없이붙여쓴긴문장이다
(괄호) [대괄호] {중괄호} <꺾쇠>|가나다라마바사아자차카타파하|각갂갃간갅갆갇갈갉갊갋갌갍갎갏감
아름다운 금수강산|값싼 물건|닭을 잡다|꽃잎이 떨어지다|읽다 읽고 읽어요|않는다 않고|물고기가 뛴다"""
_OTHERS = """The QUICK brown Fox|don't can't won't|It's 5 o'clock.|ALL CAPS AND lower
e-mail: a.b@example.org|https://example.org/path?q=1&r=2#top|C++ & C# > Java|snake_case camelCase
kebab-case
x = y ** 2 // 3 % 4|3.14159 1,234,567 -0.5e-10|1st 2nd 3rd
$9.99 €5 £3 ¥100|50% off!!!|?!?!|...|---|***|#hashtag @mention
naïve café résumé|Straße ÀÉÎÕÜ ñ ç|İstanbul ıI ß|Ω α β γ|Привет мир|שלום עולם|مرحبا بالعالم|สวัสดี
映画はとても面白い|这部电影很好看|這部電影很好看|カタカナ ｶﾀｶﾅ|ａｂｃ １２３|ﬁ ﬂ ½ ² ™ ℃|Ａ＋Ｂ＝Ｃ
😀|👍🏽 👩‍👩‍👧‍👦 🇰🇷|영화 😀 최고 🎬|♥ ♡ ★ ☆ → ←|(^_^) (ㅜㅜ) :-) T_T|<s> </s> <pad> <unk> <mask>
[CLS] [SEP] [PAD] [UNK] [MASK]|a|가|1|.|▁ _ ##ing ##는|Ġ Ċ|antidisestablishmentarianism"""
TEXTS = (
    "",
    " ",
    "\n",
    "  앞과 뒤에 빈칸  ",
    "두  칸   세 칸",
    "탭\t줄\n바꿈\r\n끝",
    "\u00a0\u3000\u2009특별한 빈칸",
    "\u200b\ufeff너비 없는\u200d글자",
    "\u1112\u1161\u11ab\u1100\u1173\u11af \u110c\u1161\u1106\u1169",  # 한글 자모 in NFD
    "e\u0301a\u0300 n\u0303",  # Latin letters in NFD
    "\x00\x07\x1b",
    "\ufffd",
    *_KOREAN.replace("\n", "|").split("|"),
    *_OTHERS.replace("\n", "|").split("|"),
    " ".join(f"{word}번째 영화는 good이었다" for word in range(60)),
    "ㅋ" * 200,
    "a" * 200,
    "가" * 200,
)


@dataclass(frozen=True)
class TokenIds:
    """Texts, the ids of each without cutting, and versions of the libraries that gave them."""

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    libraries: dict[str, str]

    def matches(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether a tokenizer gives the same ids here."""
        return _encode(tokenizer, self.texts) == self.ids

    def check(self, ids: Sequence[Sequence[int]], source: Path | str) -> None:
        """Raise ModelError naming the first text with other ids, the libraries then and now."""
        now_here = installed_versions(LIBRARIES)
        for text, then, now in zip(self.texts, self.ids, ids, strict=True):
            if tuple(now) != then:
                raise ModelError(
                    f"the tokenizer gives other ids here than when {source} was made",
                    received=f"{text!r:.60}: {list(now)[:12]} with {name_versions(now_here)}",
                    allowed=f"{list(then)[:12]}, as with {name_versions(self.libraries)}",
                    next_step=pin_versions(self.libraries),
                )


def take_token_ids(tokenizer: PreTrainedTokenizerBase) -> TokenIds:
    """The fingerprint of a tokenizer with the installed libraries."""
    return TokenIds(TEXTS, _encode(tokenizer, TEXTS), installed_versions(LIBRARIES))


def write_token_ids(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Keep the fingerprint in ``folder``."""
    taken = take_token_ids(tokenizer)
    content = {
        "libraries": taken.libraries,
        "texts": taken.texts,
        "ids": [" ".join(map(str, ids)) for ids in taken.ids],
    }
    write_json(folder / TOKEN_IDS, SCHEMA, content)


def read_token_ids(folder: Path) -> TokenIds | None:
    """The fingerprint a folder keeps; None where it was made before there were any.

    Raises FolderError where the file is damaged.
    """
    if not (folder / TOKEN_IDS).is_file():
        return None
    content = read_json(folder / TOKEN_IDS, SCHEMA)
    try:
        texts = tuple(content["texts"])
        ids = tuple(tuple(map(int, one.split())) for one in content["ids"])
        libraries = dict(content["libraries"])
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise FolderError("damaged token ids", received=folder / TOKEN_IDS) from fault
    if len(texts) != len(ids):
        raise FolderError("damaged token ids", received=folder / TOKEN_IDS)
    return TokenIds(texts, ids, libraries)


def check_token_ids(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Hold a tokenizer against the fingerprint of ``folder``, where it keeps one; ModelError."""
    kept = read_token_ids(folder)
    if kept is not None:
        kept.check(_encode(tokenizer, kept.texts), folder)


def hold_token_ids(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Keep the fingerprint at the first start of a training, compare it at the next ones.

    Raises ModelError.
    """
    if (folder / TOKEN_IDS).is_file():
        check_token_ids(tokenizer, folder)
    elif is_main_process():
        write_token_ids(tokenizer, folder)


def check_shipped_ids(folder: Path) -> None:
    """Hold tokenizer.json alone, which is what the runtime reads, against the fingerprint.

    Raises ModelError where the installed tokenizers gives other ids.
    """
    kept = read_token_ids(folder)
    if kept is not None:
        kept.check(file_ids(folder / "tokenizer.json", kept.texts), folder)


def file_ids(path: Path, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """What a tokenizer.json alone gives, special tokens included, nothing cut."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tuple(tuple(one.ids) for one in tokenizer.encode_batch(list(texts)))


def _encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    encoded = tokenizer(list(texts), truncation=False, padding=False, verbose=False)
    return tuple(tuple(one) for one in encoded["input_ids"])
