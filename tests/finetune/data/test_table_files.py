"""Files as they are found: every row is accounted for, or the file is refused with its place."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.core.errors import DataError
from finetune.core.lines import TextFault, read_lines
from finetune.data.plain_texts import read_texts
from finetune.data.recording_tables import read_recordings
from finetune.data.reviews import load_corpus
from finetune.data.tables import Table, read_table
from finetune.recipes.text import DataSection

ROWS = [f"오늘 본 영화 {index},{index % 2}" for index in range(40)]


def write(path: Path, lines: list[str], header: str = "document,label", **options: str) -> Path:
    end = options.get("end", "\n")
    content = end.join([header, *lines]) + end
    path.write_bytes(content.encode(options.get("encoding", "utf-8")))
    return path


def read(path: Path) -> Table:
    return read_table(path, "document", "label")


def corpus_of(path: Path, **options: object):
    return load_corpus(DataSection(path=str(path), test_size=8, **options), seed=1)


@pytest.mark.parametrize("place", [0, 1, 17, 39])
@pytest.mark.parametrize("row", ["정말, 재미있다,1", ",재미있다,1", "재미있다,1,", "재미있다"])
def test_a_comma_too_many_or_too_few_is_refused(tmp_path: Path, place: int, row: str) -> None:
    path = write(tmp_path / "x.csv", [*ROWS[:place], row, *ROWS[place:]])
    with pytest.raises(DataError, match=rf"1 of 41 rows.*(?s:.*)row {place + 2}: \d columns"):
        read(path)


def test_rows_with_names_of_their_own_are_explained(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", [f"r{index},{row}" for index, row in enumerate(ROWS)])
    with pytest.raises(DataError, match="give the first one a name in the header"):
        read(path)
    frame = read(write(tmp_path / "y.tsv", ["글\t1"] * 3, "document\tlabel")).frame
    assert frame["raw_label"].tolist() == ["1"] * 3
    with pytest.raises(DataError, match="1 of 41 rows"):
        lines = [row.replace(",", "\t") for row in [*ROWS, "글 하나"]]
        read(write(tmp_path / "y.tsv", lines, "document\tlabel"))


@pytest.mark.parametrize("header", ["document,label", "label,document"])
@pytest.mark.parametrize("apart", [1, 2, 10])
def test_two_stray_quotes_swallow_no_rows(tmp_path: Path, header: str, apart: int) -> None:
    rows = [row.split(",") for row in ROWS]
    rows[5][0] = '"' + rows[5][0]
    rows[5 + apart][0] += '"'
    lines = [",".join(row if header.startswith("document") else row[::-1]) for row in rows]
    with pytest.raises(DataError, match=r"a quote swallows rows(?s:.*)row 7"):
        read(write(tmp_path / "x.csv", lines, header))


def test_a_quote_that_never_closes_names_its_line(tmp_path: Path) -> None:
    lines = [*ROWS[:9], '"열린 따옴표,1', *ROWS[9:]]
    with pytest.raises(DataError, match=r"never closed(?s:.*)line 11"):
        read(write(tmp_path / "x.csv", lines))
    lines[9] = '"따옴표" 뒤의 글,1'
    with pytest.raises(DataError, match=r"follows a closing quote(?s:.*)line 11"):
        read(write(tmp_path / "x.csv", lines))


def test_texts_of_several_lines_are_read_and_counted(tmp_path: Path) -> None:
    lines = list(ROWS)
    lines[3] = '"첫 줄, 그리고 ""인용""\n둘째 줄\n\n넷째, 줄",1'
    lines[7] = '"두\r\n줄",0'
    lines[9] = ",0"
    path = write(tmp_path / "x.csv", lines)
    table = read(path)
    assert table.frame["text"][3] == '첫 줄, 그리고 "인용"\n둘째 줄\n\n넷째, 줄'
    assert table.frame["text"][7] == "두\n줄"
    assert table.notes == (
        "x.csv: 40 rows on 44 lines: 2 hold line breaks inside quotes, the first is row 5",
    )
    dropped = corpus_of(path).summary.dropped["train"].first
    assert list(map(str, dropped)) == ["row 11 (line 15): no text"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_marks_and_line_ends_do_not_count(tmp_path, end, encoding, suffix) -> None:
    path, header = tmp_path / f"x{suffix}", "document,label"
    rows = [row.split(",") for row in ROWS]
    lines = list(ROWS)
    if suffix == ".tsv":
        lines, header = ["\t".join(row) for row in rows], "document\tlabel"
    if suffix == ".jsonl":
        records = [{"document": text, "label": label} for text, label in rows]
        header, *lines = [json.dumps(one, ensure_ascii=False) for one in records]
    frame = read(write(path, lines, header, end=end, encoding=encoding)).frame
    assert frame["text"].tolist() == [row[0] for row in rows]
    assert frame["raw_label"].tolist() == [row[1] for row in rows]
    assert frame["row"].tolist() == list(range(*((1, 41) if suffix == ".jsonl" else (2, 42))))


BROKEN = {
    "CP949": ("\n".join(["document,label", *ROWS]).encode("cp949"), r"iconv -f CP949"),
    "UTF-16 unmarked": ("\n".join(["document,label", *ROWS]).encode("utf-16-le"), "UTF-16"),
    "Latin-1": ("document,label\ncafé noir,1\n".encode("latin-1"), "line 2 is not UTF-8"),
    "NUL": ("document,label\n가\0나,1\n".encode(), "line 2 holds a NUL"),
    "workbook": (b"PK\x03\x04" + b"x" * 60, "Excel"),
    "Parquet": (b"PAR1" + b"x" * 60, "ends in .parquet"),
    "gzip": (b"\x1f\x8b\x08" + b"x" * 60, "gunzip"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "cut character": ("document,label\n가,1\n나".encode()[:-1], "line 3 is not UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_text_is_refused_alike_at_every_door(tmp_path: Path, name: str) -> None:
    content, told = BROKEN[name]
    for suffix in (".csv", ".tsv", ".txt", ".jsonl"):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"(?s).*{told}"):
            read(path)
    with pytest.raises(DataError, match=f"(?s).*{told}"):
        read_texts(tmp_path / "x.txt", None, "x.txt")
    with pytest.raises(DataError, match=f"(?s).*{told}"):
        read_recordings(tmp_path / "x.csv", "document")
    with pytest.raises(TextFault, match=told):
        list(read_lines(io.BytesIO(content)))


def test_lines_end_where_lines_end(tmp_path: Path) -> None:
    text = "하나\u2028둘\x0b셋\x85넷\x1c"
    path = tmp_path / "x.txt"
    path.write_bytes(f"\ufeff{text}\r\n끝\r\r끝".encode())
    assert read_texts(path, None, "x.txt") == [text, "끝", "", "끝"]
    long = ["가" * 40_000, "나" * 40_000]
    assert list(read_lines(io.BytesIO("\r\n".join(long).encode()))) == long


@pytest.mark.parametrize("text", ["NA", "null", "None", "nan", "N/A", "1e5", "007", "true", "0"])
def test_a_text_that_looks_like_something_else_stays_a_text(tmp_path: Path, text: str) -> None:
    for path in (
        write(tmp_path / "x.csv", [f"{text},1", *ROWS]),
        write(tmp_path / "x.tsv", [f"{text}\t1"], "document\tlabel"),
        write(tmp_path / "x.jsonl", [], json.dumps({"document": text, "label": 1})),
    ):
        assert read(path).frame["text"][0] == text
    pd.DataFrame({"document": [text], "label": [1]}).to_parquet(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet").frame["text"][0] == text


MISSING = {
    "Int64": pd.array([0, 1, pd.NA] * 20, dtype="Int64"),
    "float": np.array([0.0, 1.0, np.nan] * 20),
    "boolean": pd.array([False, True, pd.NA] * 20, dtype="boolean"),
    "string": pd.array(["0", "1", pd.NA] * 20, dtype="string"),
    "object": np.array(["0", "1", None] * 20, dtype=object),
    "category": pd.Categorical(["0", "1", None] * 20),
    "decimal": np.array([Decimal(0), Decimal(1), None] * 20, dtype=object),
}


@pytest.mark.parametrize("kind", MISSING)
def test_a_missing_label_is_dropped_and_told_whatever_its_type(tmp_path: Path, kind: str) -> None:
    """pandas and DuckDB write nullable columns; NA was a traceback."""
    frame = pd.DataFrame({"document": [f"글 {at}" for at in range(60)]})
    frame["label"] = MISSING[kind]
    frame.loc[4, "document"] = None
    frame.to_parquet(tmp_path / "x.parquet")
    dropped = corpus_of(tmp_path / "x.parquet").summary.dropped["train"]
    assert (dropped.no_text, dropped.unknown_label) == (1, 20)
    assert list(map(str, dropped.first[:2])) == ["row 3: no label", "row 5: no text"]


@pytest.mark.parametrize("value", [pd.NA, pd.NaT, None, float("nan"), np.datetime64("NaT")])
def test_every_kind_of_missing_value_is_one(value: object) -> None:
    from finetune.data.records import Records
    from finetune.data.tables import table_of_records

    records = Records({"document": ["글", value], "label": [value, 1]}, rows=[1, 2])
    frame = table_of_records(records, "x", "document", "label").frame
    assert frame["text"].tolist() == ["글", ""]
    assert frame["raw_label"].tolist() == [None, "1"]


@pytest.mark.parametrize(
    ("labels", "spelt"),
    [
        (["0", "1"], {}),
        (["0.0", "1.0"], {}),
        (["False", "True"], {}),
        (["false", "true"], {}),
        (["0", "1"], {"0.0": "부정", "1.0": "긍정"}),
        (["0", "1"], {"true": "긍정", "false": "부정"}),
        ([" 0", "1 "], {}),
    ],
)
def test_one_class_in_other_spellings(tmp_path: Path, labels: list[str], spelt: dict) -> None:
    lines = [f"글 {at},{labels[at % 2]}" for at in range(40)]
    corpus = corpus_of(write(tmp_path / "x.csv", lines), **({"labels": spelt} if spelt else {}))
    names = corpus.summary.labels
    train = corpus.train
    for text, label in zip(train["text"], train["label"], strict=True):
        assert names[label] == ("긍정" if int(text.split()[1]) % 2 else "부정")


def test_spellings_that_are_classes_of_their_own_are_kept_apart(tmp_path: Path) -> None:
    lines = [f"글 {at},{('1', '1.0', 'true')[at % 3]}" for at in range(60)]
    labels = {"1": "하나", "1.0": "하나 점", "true": "참"}
    balance = corpus_of(write(tmp_path / "x.csv", lines), labels=labels).summary.splits
    assert all(count > 0 for count in balance["train"].balance.values())


def test_names_of_columns_in_nfd_and_a_class_too(tmp_path: Path) -> None:
    def nfd(text: str) -> str:
        return unicodedata.normalize("NFD", text)

    lines = [nfd(f"영화 {at},{'좋음' if at % 2 else '나쁨'}") for at in range(40)]
    path = write(tmp_path / "x.csv", lines, nfd("문장 , 라벨"))
    names = {"text_column": "문장", "label_column": "라벨"}
    corpus = corpus_of(path, **names, labels={"나쁨": "bad", "좋음": "good"})
    assert corpus.summary.splits["train"].rows > 20


@pytest.mark.parametrize(
    ("separator", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")]
)
def test_a_csv_with_other_separators_is_told(tmp_path: Path, separator: str, word: str) -> None:
    rows = [f'"쉼표, {separator} 있는 글 {at}"{separator}{at % 2}' for at in range(40)]
    table = read(write(tmp_path / "x.csv", rows, f"document{separator}label"))
    assert table.frame["text"][2] == f"쉼표, {separator} 있는 글 2"
    assert word in table.notes[0]


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("", "first line is empty"),
        ("document,label,document", "two columns document"),
        ("오늘 본 영화,0", "no column document and label"),
        ("document;etikett", "no column document and label|no column label"),
    ],
)
def test_a_header_that_does_not_name_the_columns_is_refused(tmp_path, header, told) -> None:
    with pytest.raises(DataError, match=told):
        read(write(tmp_path / "x.csv", ROWS, header))


def test_empty_lines_are_rows_without_text_but_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", [*ROWS[:4], "", *ROWS[4:], "", "", ""])
    frame = read(path).frame
    assert len(frame) == 41 and frame["row"].tolist() == frame["line"].tolist()
    assert list(map(str, corpus_of(path).summary.dropped["train"].first)) == ["row 6: no text"]


def test_thousands_of_columns(tmp_path: Path) -> None:
    names = [f"c{at}" for at in range(3000)]
    lines = [",".join([*(str(at) for at in range(3000)), row]) for row in ROWS]
    table = read(write(tmp_path / "x.csv", lines, ",".join([*names, "document", "label"])))
    assert table.frame["text"].tolist() == [row.split(",")[0] for row in ROWS]


JSON = {
    "a list as text": ('{"document": ["가"], "label": 1}', "row 2 has no text.*list"),
    "an object as text": ('{"document": {"t": 1}, "label": 1}', "row 2 has no text.*dict"),
    "a truth value as text": ('{"document": true, "label": 1}', "row 2 has no text.*bool"),
    "no object": ('["가", 1]', "line 2 is no object"),
    "a string": ('"가"', "line 2 is no object"),
    "no JSON": ("{'document': '가', 'label': 1}", "line 2"),
    "two keys": ('{"document": "가", "document": "나", "label": 1}', "twice.*document"),
    "NUL": ('{"document": "가\\u0000", "label": 1}', "NUL"),
    "a list as label": ('{"document": "가", "label": [1]}', "row 2 has no text in column label"),
}


@pytest.mark.parametrize("name", JSON)
def test_json_lines_that_are_no_texts_are_refused(tmp_path: Path, name: str) -> None:
    line, told = JSON[name]
    path = write(tmp_path / "x.jsonl", [line], '{"document": "글", "label": 0}')
    with pytest.raises(DataError, match=f"(?s){told}"):
        read(path)


def test_json_values_as_they_are_written(tmp_path: Path) -> None:
    lines = ['{"document": 1.10, "label": 1.0}', "", '{"label": true}', '{"document": null}']
    lines += ['{"document": "가\\ud83d", "label": NaN}', '{"document": "\\ud83d\\ude00"}']
    path = write(tmp_path / "x.jsonl", lines, '{"document": "글", "label": 0}')
    table = read(path)
    assert table.frame["text"].tolist() == ["글", "1.10", "", "", "가\ufffd", "😀"]
    assert table.frame["raw_label"].tolist() == ["0", "1.0", "True", None, None, None]
    assert table.frame["row"].tolist() == [1, 2, 4, 5, 6, 7]
    assert re.search("1 texts are numbers", table.notes[0])
    assert re.search("half characters in 1 texts", table.notes[1])


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_an_array_instead_of_lines(tmp_path: Path, suffix: str) -> None:
    content = [{"document": f"글 {at}", "label": at % 2} for at in range(40)]
    (tmp_path / f"x{suffix}").write_text(json.dumps(content, indent=2), "utf-8")
    frame = read(tmp_path / f"x{suffix}").frame
    assert frame["text"].tolist() == [one["document"] for one in content]
    assert frame["raw_label"].tolist() == ["0", "1"] * 20


PARQUET = {
    "numbers as texts": ({"document": [1, 2], "label": [0, 1]}, "holds numbers, no texts"),
    "dates": ({"document": [datetime(2024, 1, 1)] * 2, "label": [0, 1]}, "row 1 has no text"),
    "lists": ({"document": [["가"], ["나"]], "label": [0, 1]}, "row 1 has no text"),
    "no UTF-8": ({"document": [b"ok", b"\xff"], "label": [0, 1]}, "row 2.*no UTF-8"),
    "another name": ({"text": ["가", "나"], "label": [0, 1]}, "no column document"),
}


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_columns_that_are_no_texts_are_refused(tmp_path: Path, name: str) -> None:
    columns, told = PARQUET[name]
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=f"(?s){told}"):
        read(tmp_path / "x.parquet")


def test_parquet_of_other_writers(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    frame = pd.DataFrame({"document": ["가", "나"], "label": [0, 1]}).set_index("document")
    frame.to_parquet(path)  # the index is a column too
    assert read(path).frame["text"].tolist() == ["가", "나"]
    binary = pa.table({"document": [b"\xea\xb0\x80", b"ok"], "label": [0, 1]})
    pq.write_table(binary, path)
    assert read(path).frame["text"].tolist() == ["가", "ok"]
    double = pa.Table.from_arrays(
        [pa.array(["가"])] * 2 + [pa.array([1])], ["document"] * 2 + ["label"]
    )
    pq.write_table(double, path)
    with pytest.raises(DataError, match="two columns document"):
        read(path)
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="not a readable table"):
        read(path)


@pytest.mark.parametrize("name", ["x.csv.gz", "x.xlsx", "x.zip"])
def test_other_kinds_of_files_come_with_the_next_step(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"try: +(gunzip|save|unzip)"):
        read(tmp_path / name)


def test_duplicates_are_told_of_prepared_texts(tmp_path: Path) -> None:
    train = [f"글  하나 {at},{at % 2}" for at in range(40)]
    test = [unicodedata.normalize("NFD", f"글 하나  {at},{at % 2}") for at in range(8)]
    write(tmp_path / "train.csv", train)
    write(tmp_path / "test.csv", test)
    corpus = load_corpus(DataSection(path=str(tmp_path), validation_size=8), seed=1)
    seen = corpus.test["seen_in_training"].sum()
    assert seen == corpus.summary.test_rows_seen_in_training > 0
    assert corpus.test["text"].iloc[0] == test[0].split(",")[0]  # as it was read
