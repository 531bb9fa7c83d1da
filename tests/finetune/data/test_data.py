"""Reading, cleaning and splitting: what real files hold, and what is refused."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from finetune.core.errors import DataError
from finetune.data.nsmc import CorpusFile, fetch_corpus
from finetune.data.reviews import load_corpus
from finetune.recipes.text import DataSection


def make_rows(count: int = 40) -> pd.DataFrame:
    rows = [{"document": f"리뷰 번호 {index}", "label": index % 2} for index in range(count)]
    return pd.DataFrame(rows)


def write_nsmc(path: Path, lines: list[str]) -> None:
    path.write_text("id\tdocument\tlabel\n" + "".join(f"{line}\n" for line in lines), "utf-8")


def test_quotes_that_never_close_swallow_nothing(tmp_path: Path) -> None:
    lines = [f'{n}\t"열린 따옴표 {n}\t{n % 2}' for n in range(50)]
    write_nsmc(tmp_path / "ratings_train.txt", lines)
    write_nsmc(tmp_path / "ratings_test.txt", lines[:10])
    corpus = load_corpus(DataSection(path=str(tmp_path)), seed=1)
    assert len(corpus.train) + len(corpus.validation) == 50
    assert corpus.test["text"].iloc[0] == '"열린 따옴표 0'
    assert corpus.summary.test_rows_seen_in_training == corpus.test["seen_in_training"].sum()


def test_bad_rows_are_dropped_counted_and_listed(tmp_path: Path) -> None:
    lines = [f"{n}\t글 {n}\t{n % 2}" for n in range(40)]
    lines[3], lines[7], lines[11] = "3\t\t1", "7\t글\t2", "11\t  \t0"
    write_nsmc(tmp_path / "a.txt", lines)
    summary = load_corpus(DataSection(path=str(tmp_path / "a.txt")), seed=1).summary
    assert summary.dropped["train"].no_text == 2
    assert summary.dropped["train"].unknown_label == 1
    first = map(str, summary.dropped["train"].first)
    assert list(first) == ["row 5: no text", "row 9: label '2'", "row 13: no text"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".txt"])
def test_every_format_reads_the_same_rows(tmp_path: Path, suffix: str) -> None:
    frame, path = make_rows(), tmp_path / f"rows{suffix}"
    writers = {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        ".txt": lambda: frame.to_csv(path, index=False, sep="\t"),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True, force_ascii=False),
        ".parquet": lambda: frame.to_parquet(path),
    }
    writers[suffix]()
    corpus = load_corpus(DataSection(path=str(path), validation_size=0.25), seed=3)
    everything = pd.concat([corpus.train, corpus.validation, corpus.test])
    assert sorted(everything["text"]) == sorted(frame["document"])
    assert dict(zip(everything["text"], everything["label"], strict=True)) == dict(
        zip(frame["document"], frame["label"], strict=True)
    )


def test_named_columns_and_text_labels(tmp_path: Path) -> None:
    frame = make_rows().rename(columns={"document": "review", "label": "mood"})
    frame["mood"] = frame["mood"].map({0: "bad", 1: "good"})
    frame.to_csv(tmp_path / "r.csv", index=False)
    data = DataSection(
        path=str(tmp_path / "r.csv"),
        text_column="review",
        label_column="mood",
        labels={"bad": "나쁨", "good": "좋음"},
    )
    corpus = load_corpus(data, seed=1)
    assert corpus.summary.labels == ("나쁨", "좋음")
    assert set(corpus.train["label"]) == {0, 1}


def test_the_split_is_stratified_seeded_and_disjoint(tmp_path: Path) -> None:
    make_rows(200).to_csv(tmp_path / "r.csv", index=False)
    data = DataSection(path=str(tmp_path / "r.csv"), validation_size=0.25, test_size=40)
    first, again, other = (load_corpus(data, seed) for seed in (1, 1, 2))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert (len(first.train), len(first.validation), len(first.test)) == (120, 40, 40)
    for split in (first.train, first.validation, first.test):
        assert split["label"].mean() == 0.5
    rows = [set(split["row"]) for split in (first.train, first.validation, first.test)]
    assert not (rows[0] & rows[1] or rows[0] & rows[2] or rows[1] & rows[2])


def test_first_rows_are_taken_in_order(tmp_path: Path) -> None:
    make_rows(100).to_csv(tmp_path / "r.csv", index=False)
    corpus = load_corpus(
        DataSection(path=str(tmp_path / "r.csv"), rows=20, take="first", test_size=4), seed=1
    )
    rows = pd.concat([corpus.train, corpus.validation, corpus.test])["row"]
    assert sorted(rows) == list(range(2, 22))


def test_the_first_rows_of_a_test_file_are_what_is_predicted(tmp_path: Path) -> None:
    for name, count in (("train", 40), ("test", 30)):
        lines = [f"text {row},{row % 2}" for row in range(count)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["document,label", *lines]) + "\n")
    data = DataSection(path=str(tmp_path), take="first", test_size=7)
    assert load_corpus(data, seed=1).test["text"].tolist() == [f"text {row}" for row in range(7)]
    drawn = load_corpus(data.model_copy(update={"take": "random"}), seed=1).test
    assert len(drawn) == 7 and drawn["text"].tolist() != [f"text {row}" for row in range(7)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x00\x01\x02binary", "not a readable table"),
        (b"document,label\n\xff\xfe,1\n", "not a readable table"),
        (b"", "not a readable table"),
        (b"text,stars\na,1\n", "no column document and label"),
        (b"document,label\na,5\nb,5\nc,0\nd,7\n", "not the expected table"),
        (b"document,label\n", "not the expected table"),
        (b"document,label\n" + b"a,1\n" * 20, "one class only"),
        (b"document,label\na,0\nb,1\n", "does not fit"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=told):
        load_corpus(DataSection(path=str(tmp_path / "x.csv")), seed=1)


def test_missing_files_and_unknown_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.xlsx").write_bytes(b"PK")
    for path in (tmp_path / "absent.csv", tmp_path / "x.xlsx", tmp_path):
        with pytest.raises(DataError):
            load_corpus(DataSection(path=str(path)), seed=1)


@pytest.fixture
def corpus_server(tmp_path: Path):
    """A real HTTP server on localhost with one small file."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "r.txt").write_bytes(b"id\tdocument\tlabel\n")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/r.txt"
        server.shutdown()


def test_a_corpus_is_downloaded_once_and_checked(tmp_path: Path, corpus_server: str) -> None:
    content = b"id\tdocument\tlabel\n"
    good = CorpusFile("r.txt", corpus_server, len(content), hashlib.sha256(content).hexdigest())
    folder = fetch_corpus((good,), tmp_path / "cache")
    assert (folder / "r.txt").read_bytes() == content
    gone = CorpusFile("r.txt", "http://127.0.0.1:1/r.txt", len(content), good.sha256)
    assert fetch_corpus((gone,), tmp_path / "cache") == folder  # cached: not asked again
    changed = CorpusFile("r.txt", corpus_server, len(content), "0" * 64)
    with pytest.raises(DataError, match="not the file it was"):
        fetch_corpus((changed,), tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def test_without_network_the_reader_is_told_what_to_do(tmp_path: Path) -> None:
    gone = CorpusFile("r.txt", "http://127.0.0.1:1/r.txt", 1, "0" * 64)
    with pytest.raises(DataError, match=r"data\.path=FOLDER"):
        fetch_corpus((gone,), tmp_path)


def test_the_real_corpus(nsmc_folder: Path) -> None:
    corpus = load_corpus(DataSection(path=str(nsmc_folder), validation_size=0.1), seed=42)
    assert len(corpus.train) + len(corpus.validation) == 149_997
    assert len(corpus.test) == 49_997
    first = corpus.summary.dropped["train"].first
    assert [one.row for one in first] == [16863, 39119, 122501]
    assert json.dumps(corpus.summary.as_dict())
