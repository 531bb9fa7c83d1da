"""Reviews in, three checked splits out: read, clean, split, summarise, fingerprint."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from finetune.core.errors import DataError
from finetune.core.preparation import DEFAULT, Preparation
from finetune.data.records import plain_name
from finetune.data.summary import DataSummary, Dropped, DroppedRow, SplitSummary
from finetune.data.tables import SUFFIXES, Table, canonical_label, read_table
from finetune.recipes.files import expand_path
from finetune.recipes.text import DataSection

NSMC_FILES = ("ratings_train.txt", "ratings_test.txt")
ASSETS = Path(__file__).parent.parent / "assets"
PREPARED = "prepared"  # a column while rows are read: the text as the model gets it
MOST_CLASSES = 1_000  # of labels that are read off the data
LISTED = 5  # dropped rows named in the summary
UNEXPECTED_SHARE = 0.5  # more dropped rows than this: another table than the recipe means


@dataclass(frozen=True)
class Corpus:
    """Three DataFrames (row, text, label; test also seen_in_training) and their summary."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    summary: DataSummary

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every split's rows, texts and labels."""
        return self.summary.fingerprint


def load_corpus(data: DataSection, seed: int, prepare: Preparation = DEFAULT) -> Corpus:
    """Read, clean and split what ``data`` names; raises DataError.

    Without a test file, ``test_size`` (a fifth by default) is split off the training rows. Of a
    test file it takes so many rows as ``data.take`` says, which then are all that is predicted.
    ``data.seed`` goes before ``seed``: runs of several seeds then share their rows. Texts stay
    as they were read; which are empty or the same is told of what ``prepare`` makes of them.
    """
    if data.labels == "auto":
        data = data.model_copy(update={"labels": read_labels(data)})
    seed = seed if data.seed is None else data.seed
    train_table, test_table, origin = _read_origin(data)
    notes = [*train_table.notes, *(test_table.notes if test_table else ())]
    train, dropped_train = _clean(train_table.frame, data.labels, origin, prepare, notes)
    train = _take(train, data.rows, data.take, seed, "rows")
    if test_table is None:
        train, test = _split(train, data.test_size or 0.2, seed, "test_size")
        dropped_test = None
    else:
        test, dropped_test = _clean(test_table.frame, data.labels, origin, prepare, notes)
        if isinstance(data.test_size, int):
            test = _take(test, data.test_size, data.take, seed, "test_size")
        elif data.test_size is not None:
            _, test = _split(test, data.test_size, seed, "test_size")
    train, validation = _split(train, data.validation_size, seed, "validation_size")
    test = test.assign(seen_in_training=test[PREPARED].isin(set(train[PREPARED])))
    splits = {"train": train, "validation": validation, "test": test}
    summary = _summarise(splits, data, origin, dropped_train, dropped_test, notes)
    return Corpus(
        *(frame.drop(columns=PREPARED) for frame in (train, validation, test)), summary=summary
    )


def read_labels(data: DataSection) -> dict[str, str]:
    """The classes of the training rows' label column, each named as it is written there.

    Numbers in their order, other labels sorted; spellings of one class (1.0, true) are one.
    Raises DataError where there is one class only, or where the column holds no classes.
    """
    table, _, origin = _read_origin(data)
    raw = table.frame["raw_label"].dropna()
    raw = raw[raw.str.strip() != ""]
    spelt = raw.map(canonical_label)
    classes = {one: raw[spelt == one].iloc[0] for one in spelt.unique()}
    if len(classes) < 2 or len(classes) > min(MOST_CLASSES, len(raw) // 2):
        raise DataError(
            f"{origin}: column {data.label_column} does not look like classes",
            received=f"{len(classes)} different values in {len(raw)} rows",
            allowed=f"2 to {MOST_CLASSES} classes, of two rows or more on average",
            next_step="data.label_column, or name the classes in data.labels",
        )
    names = sorted(classes, key=_number_or_text)
    return {one: classes[one] for one in names}


def _number_or_text(label: str) -> tuple[bool, float, str]:
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label


def _read_origin(data: DataSection) -> tuple[Table, Table | None, str]:
    """Training table, test table or None, and a name for messages and reports."""
    columns = (data.text_column, data.label_column)
    if data.source == "nsmc":
        from finetune.data.nsmc import fetch_corpus

        folder = fetch_corpus()
        return *(read_table(folder / name, *columns) for name in NSMC_FILES), "NSMC, official files"
    if data.source == "sample":
        folder = ASSETS / "sample"
        return *(read_table(folder / name, *columns) for name in NSMC_FILES), "embedded sample"
    assert data.path is not None
    path = expand_path(data.path, "data.path")
    if path.is_dir():
        train_file, test_file = _files_of(path, data)
    elif path.is_file():
        test = data.test_path and expand_path(data.test_path, "data.test_path")
        train_file, test_file = path, test
    elif path.suffix in SUFFIXES or data.path.count("/") != 1 or data.path.startswith((".", "~")):
        raise DataError("data.path does not exist", received=data.path)
    else:
        from finetune.data.hub_tables import read_hub_dataset

        return *read_hub_dataset(data.path, *columns), data.path
    train_table = read_table(train_file, *columns)
    return train_table, read_table(Path(test_file), *columns) if test_file else None, data.path


def _files_of(folder: Path, data: DataSection) -> tuple[Path, Path | None]:
    """The training and test file of a folder: NSMC's names, or train.* and test.*."""
    pairs = [NSMC_FILES] + [(f"train{suffix}", f"test{suffix}") for suffix in SUFFIXES]
    for train_name, test_name in pairs:
        if (folder / train_name).is_file():
            test = folder / test_name
            return folder / train_name, test if test.is_file() else None
    raise DataError(
        "no data in the folder",
        received=data.path,
        allowed=f"ratings_train.txt and ratings_test.txt, or train{', train'.join(SUFFIXES)}",
    )


def _clean(
    table: pd.DataFrame,
    labels: dict[str, str],
    origin: str,
    prepare: Preparation,
    notes: list[str],
) -> tuple[pd.DataFrame, Dropped]:
    """Rows with a text and a known label, as class ids, and what was dropped.

    The column PREPARED holds what the model would read of each text.
    """
    table = table.assign(**{PREPARED: prepare.many(table["text"])})
    ids = _class_ids(table["raw_label"], labels, origin, notes)
    empty = pd.Series([not text.strip() for text in table[PREPARED]], table.index, dtype=bool)
    foreign = ids.isna() & ~empty
    bad = empty | foreign
    listed = [_why(row, no_text=empty[at]) for at, row in table[bad].head(LISTED).iterrows()]
    dropped = Dropped(no_text=int(empty.sum()), unknown_label=int(foreign.sum()), first=listed)
    if bad.mean() > UNEXPECTED_SHARE or len(table) == 0:
        raise DataError(
            f"{origin} is not the expected table: {int(bad.sum())} of {len(table)} rows have no "
            "text or an unknown label",
            received="; ".join(map(str, listed)),
            allowed=f"labels {', '.join(labels)}",
            next_step="data.text_column, data.label_column, data.labels (auto: as in the column)",
        )
    kept = table[~bad]
    frame = kept[["row", "text", PREPARED]].assign(label=ids[~bad])
    frame = frame[["row", "text", "label", PREPARED]]
    return frame.astype({"row": "int64", "label": "int64"}).reset_index(drop=True), dropped


def _class_ids(
    raw_labels: pd.Series, labels: dict[str, str], origin: str, notes: list[str]
) -> pd.Series:
    """The class id of each label as written, else of another spelling of it (1.0, true); NA."""
    exact = {plain_name(raw): index for index, raw in enumerate(labels)}
    spelt = Counter(map(canonical_label, exact))
    others = {canonical_label(raw): index for raw, index in exact.items()}
    others = {raw: index for raw, index in others.items() if spelt[raw] == 1}
    ids = raw_labels.map(exact)
    canonical = raw_labels.map(canonical_label, na_action="ignore").map(others)
    respelt = ids.isna() & canonical.notna()
    if respelt.any():
        found = ", ".join(sorted(set(raw_labels[respelt]))[:LISTED])
        notes.append(f"{origin}: {int(respelt.sum())} labels are spelt {found}")
    return ids.fillna(canonical)


def _why(row: pd.Series, *, no_text: bool) -> DroppedRow:
    """A dropped row's number, its line where that is another, and the reason."""
    label = "no label" if row["raw_label"] is None else f"label {row['raw_label']!r}"
    line = {"line": int(row["line"])} if row["line"] != row["row"] else {}
    return DroppedRow(row=int(row["row"]), **line, why="no text" if no_text else label)


def _take(frame: pd.DataFrame, rows: int | None, take: str, seed: int, key: str) -> pd.DataFrame:
    if rows is None or rows == len(frame) or (key == "rows" and rows > len(frame)):
        return frame
    if take == "first" and rows < len(frame):
        return frame.head(rows)
    return _split(frame, rows, seed, key)[1]


def _split(
    frame: pd.DataFrame, size: float | int, seed: int, key: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rest, part) of a stratified, seeded split, each in the order of the file."""
    from sklearn.model_selection import train_test_split

    counts = frame["label"].value_counts()
    single = frame["label"].isin(counts[counts < 2].index)  # a class of one row stays in the rest
    if len(counts) < 2:
        raise DataError(
            "the data has one class only",
            received=f"class {counts.index.tolist()} in {len(frame)} rows",
            allowed="at least two classes of data.labels",
        )
    if isinstance(size, int) and size == len(frame):
        return frame.head(0), frame
    try:
        rest, part = train_test_split(
            frame[~single], test_size=size, random_state=seed, stratify=frame["label"][~single]
        )
    except ValueError as fault:
        raise DataError(
            f"data.{key} does not fit {len(frame)} rows", received=size, allowed=str(fault)
        ) from fault
    return pd.concat([rest, frame[single]]).sort_values("row"), part.sort_values("row")


def fingerprint_rows(frames: Sequence[pd.DataFrame]) -> str:
    """SHA-256 over row numbers, texts and labels, in order."""
    digest = hashlib.sha256()
    for frame in frames:
        columns = zip(frame["row"], frame["text"], frame["label"], strict=True)
        for row, text, label in columns:
            digest.update(f"{row}\t{text}\t{label}\n".encode())
        digest.update(b"\x1d")
    return digest.hexdigest()


def _summarise(
    splits: dict[str, pd.DataFrame],
    data: DataSection,
    origin: str,
    dropped_train: Dropped,
    dropped_test: Dropped | None,
    notes: Sequence[str],
) -> DataSummary:
    names = list(data.labels.values())
    return DataSummary(
        origin=origin,
        labels=tuple(names),
        splits={
            name: SplitSummary(
                rows=len(frame),
                balance={
                    label: int((frame["label"] == index).sum()) for index, label in enumerate(names)
                },
                duplicate_texts=int(frame[PREPARED].duplicated().sum()),
                texts_changed_by_preparation=int((frame["text"] != frame[PREPARED]).sum()),
            )
            for name, frame in splits.items()
        },
        dropped={"train": dropped_train, "test": dropped_test},
        test_rows_seen_in_training=int(splits["test"]["seen_in_training"].sum()),
        validation_rows_seen_in_training=int(
            splits["validation"][PREPARED].isin(set(splits["train"][PREPARED])).sum()
        ),
        fingerprint=fingerprint_rows(list(splits.values())),
        notes=tuple(notes),
    )
