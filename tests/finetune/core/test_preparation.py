"""Texts are prepared alike wherever they are read: in Python, in a page, in old and new folders."""

from __future__ import annotations

import json
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest

from finetune.core.preparation import (
    DEFAULT,
    FOLDED,
    UNPREPARED,
    Preparation,
    read_preparation,
    well_formed,
)

PAGE = Path(__file__).parents[3] / "examples" / "browser" / "prepare.js"
HANGUL = "한글 영화 재미있어요"
WAYS = [
    Preparation(unicode=form, casing=casing, whitespace=spaces)
    for form in ("NFC", "NFKC", "none")
    for casing in ("keep", "lower")
    for spaces in ("fold", "keep")
]


def test_hangul_of_a_mac_becomes_what_the_model_was_trained_on() -> None:
    assert DEFAULT(unicodedata.normalize("NFD", HANGUL)) == HANGUL
    assert UNPREPARED(unicodedata.normalize("NFD", HANGUL)) != HANGUL


def test_white_space_of_any_kind_is_one_space() -> None:
    spaces = [chr(code) for code in range(0x110000) if chr(code).isspace()]
    assert len(spaces) > 20
    for space in spaces:
        assert DEFAULT(f"{space}가{space}{space}나{space}") == "가 나", ascii(space)
        assert FOLDED(f"가{space}\r\n나") == "가 나"
        assert UNPREPARED(f"가{space}나 ") == f"가{space}나 "


def test_preparing_twice_changes_nothing() -> None:
    for prepare in WAYS:
        for text in samples():
            assert prepare(prepare(text)) == prepare(text)


def test_single_surrogates_become_u_fffd_and_pairs_are_joined() -> None:
    assert well_formed("a\ud800b\udc00\ud83d\ude00\udcff") == "a\ufffdb\ufffd😀\ufffd"
    assert DEFAULT("\udcff") == UNPREPARED("\udcff") == "\ufffd"


@pytest.mark.parametrize("text", [None, 3, 2.5, b"bytes", ["list"], float("nan")])
def test_what_is_no_text_is_named(text: object) -> None:
    with pytest.raises(TypeError, match="text 2 is no string but"):
        DEFAULT.many(["a text", text])


def test_a_description_is_read_back_and_an_unknown_one_refused() -> None:
    for prepare in WAYS:
        assert read_preparation(json.loads(json.dumps(prepare.as_dict())), DEFAULT) == prepare
    assert read_preparation(None, FOLDED) is FOLDED
    for told in ({"unicode": "NFD"}, {"stemming": "yes"}, "NFC", {"truncation_side": "middle"}):
        with pytest.raises(ValueError, match="preparation of texts"):
            read_preparation(told, DEFAULT)


def samples() -> list[str]:
    """Every white-space, control and format character, Hangul in NFD, what case and NFKC change."""
    odd = [*range(0x180), *range(0x300, 0x370), *range(0x1100, 0x1200), *range(0x2000, 0x2100)]
    odd += [0x3000, 0x180E, 0x1680, 0xFEFF, 0xFFFD, 0xD800, 0xDC00, 0x1F600, 0x110BD]
    odd += range(0xFF00, 0xFFF0)
    texts = [f" 가{chr(code)}{chr(code)}b{chr(code)} " for code in odd]
    texts += [unicodedata.normalize("NFD", HANGUL), HANGUL, "ÀÉÎ ß İI ΑΣ ŉ ﬁ ½ Å", "", "\u0344"]
    return texts


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_page_prepares_texts_as_python_does(tmp_path: Path) -> None:
    told = [[text.encode("utf-16-be", "surrogatepass").hex() for text in samples()]]
    told.append([prepare.as_dict() for prepare in WAYS])
    (tmp_path / "asked.json").write_text(json.dumps(told))
    (tmp_path / "prepare.mjs").write_text(PAGE.read_text("utf-8"), "utf-8")
    (tmp_path / "main.mjs").write_text(
        "import { readFileSync } from 'node:fs';\n"
        "import { prepare, readPreparation } from './prepare.mjs';\n"
        "const [texts, ways] = JSON.parse(readFileSync('asked.json', 'utf8'));\n"
        "const read = (hex) => String.fromCharCode(...hex.match(/.{4}/g)?.map((one) =>"
        " parseInt(one, 16)) ?? []);\n"
        "const answers = ways.map((preparation) => texts.map((text) =>"
        " prepare(read(text), readPreparation({ preparation }))));\n"
        "answers.push([prepare(read(texts[0]), readPreparation({}))]);\n"
        "console.log(JSON.stringify(answers));\n"
    )
    done = subprocess.run(
        ["node", "main.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    *answers, [unprepared] = json.loads(done.stdout)
    for prepare, found in zip(WAYS, answers, strict=True):
        for text, theirs in zip(samples(), found, strict=True):
            assert theirs == prepare(text), (prepare, ascii(text))
    assert unprepared == UNPREPARED(samples()[0])
