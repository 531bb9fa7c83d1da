"""Hostile recipes, overrides, documents and bytes through the command line, in this process.

Whatever comes in, a command ends with 0, 1 or 2 and one message: no traceback, and no message that
kotune has no words for. A few hundred fixed cases here; thousands in the slow test, which prints
what it counted.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kotune

UNTOLD = "no words for"
VALUES = [
    "null", "[]", "{}", "[[[[[[[[1]]]]]]]]", "1e999", "-1", "0", "99999999999999999999", ".nan",
    "true", "2024-01-01", "!!python/object/apply:os.system [id]", "&a [*a]", "*a", "'", '"', "a: b",
    "\ud800", "\udcff", "\0", "~root/x", "${NOT_SET_ANYWHERE}", "../../etc", "x" * 5000, "{name",
    "{0}", "=cmd", "<script>", "%", "@", "|", ">", "- -", "? ?", "\t", "영화", "١", "\u2028",
]  # fmt: skip
KEYS = [
    "name", "output", "seed", "seeds", "data.path", "data.labels", "model.source",
    "model.max_length", "training.learning_rate", "training.scheduler", "training.batch_size",
    "training.scheduler_arguments", "adapter.method", "adapter.rank", "adapter.target_modules",
    "export.precisions", "task", "", ".", "a..b", "training", "data", "__class__.x",
]  # fmt: skip
NEVER = "training.no_such_key=1"  # so that none of these begins to train
DOCUMENTS = [
    b"", b"null", b"[]", b"{}", b"3", b'"x"', b"{", b"\xff\xfe\x00", b"\x00" * 64,
    b"[" * 50_000, b'{"schema": null}', b'{"schema": []}', b'{"schema": {"a": 1}}',
    b'{"a": 1' + b"0" * 5000 + b"}", b'{"schema": "kotune.run/99"}', b'{"files": "\\ud800"}',
    b"version https://git-lfs.github.com/spec/v1\n",
]  # fmt: skip
YAML = [
    b"a: &a [1,2]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: [*c,*c,*c,*c]\n" * 3,
    b"name: a\nname: b\n", b"? [a]\n: b\n", b"- a\n", b"a\n", b"", b"---\na: 1\n---\nb: 2\n",
    "name: 영화".encode("cp949"), "name: x".encode("utf-16"), b"name: \x07", b"a: !!set {b}\n",
    b"a: " + b"[" * 2000, b"x: 1\n" * 80_000, b"name: 2024-01-01\ndata: 2024-01-01\n", b"\x00",
    b"a: " + b"{a: " * 60, b"%TAG ! x\n", b"a: *b\n", b"<<: 1\n", b"<<: [1, 2]\n", b"\xef\xbb\xbf",
]  # fmt: skip


class CommandLine:
    """``kotune``'s own door, in this process; what came out of it is counted."""

    def __init__(self, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch, self.counted = capsys, monkeypatch, Counter()

    def __call__(self, *words: object) -> int:
        """The exit code of a command that told its fault, if there was one."""
        self.monkeypatch.setattr(sys, "argv", ["kotune", *map(str, words)])
        code: object = 0
        try:
            kotune.main()
        except SystemExit as end:
            code = end.code or 0
        told = self.capsys.readouterr().err
        assert code in (0, 1, 2), (words, code)
        assert "Traceback" not in told and UNTOLD not in told, (words, told)
        assert code == 0 or told.strip(), words
        self.counted[code] += 1
        return int(code)


@pytest.fixture
def command(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(capsys, monkeypatch)


def hostile_overrides(count: int, seed: int) -> Iterator[str]:
    source = random.Random(seed)
    for _ in range(count):
        yield f"{source.choice(KEYS)}={source.choice(VALUES)}{source.choice(['', '', '#', ': '])}"


def flips(folder: Path, count: int, seed: int, without: str) -> Iterator[tuple[Path, int, int]]:
    """Files of a folder with a place and a bit of each."""
    source = random.Random(seed)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != without]
    for number in range(count):
        path = files[number % len(files)]
        if size := path.stat().st_size:
            yield path, source.randrange(size), 1 << source.randrange(8)


def tamper(command: CommandLine, folder: Path, count: int, seed: int, document: str) -> None:
    """One bit at a time of everything that a document seals: each is refused."""
    for path, place, bit in flips(folder, count, seed, document):
        whole = path.read_bytes()
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        assert command("verify", folder) == 2, (path, place, bit)
        path.write_bytes(whole)
    assert command("verify", folder) == 0


def test_overrides(command: CommandLine) -> None:
    for override in hostile_overrides(120, seed=1):
        assert command("finetune", "demo-lora", override, NEVER) == 2


@pytest.mark.parametrize("content", YAML)
def test_recipes(command: CommandLine, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(content)
    for name in ("finetune", "pretrain", "bench", "run", "plan"):
        assert command(name, tmp_path / "recipe.yaml") == 2


@pytest.mark.parametrize("document", ["run.json", "manifest.json", "results.json"])
def test_documents(command: CommandLine, document: str, tmp_path: Path) -> None:
    for content in DOCUMENTS:
        (tmp_path / document).write_bytes(content)
        name = "report" if document == "results.json" else "verify"
        assert command(name, tmp_path) == 2, content[:40]
        if document != "results.json":
            assert command("predict", tmp_path, "text") == 2, content[:40]


@pytest.mark.parametrize("words", [("show", "~nobody/x"), ("show", "x" * 5000), ("cp", "x" * 300)])
def test_names(command: CommandLine, words: tuple[str, ...], tmp_path: Path) -> None:
    more = [tmp_path / "there" / "x"] if words[0] == "cp" else []
    assert command(*words, *more) == 2
    assert command("cp", "demo-lora", tmp_path / "absent" / "x.yaml") == 2
    assert command("verify", words[1]) == 2


def test_every_bit_of_a_run_counts(
    command: CommandLine, make_run: Callable[[str], Path], tmp_path: Path
) -> None:
    tamper(command, Path(shutil.copytree(make_run("lora"), tmp_path / "run")), 60, 2, "run.json")


def test_every_bit_of_an_artifact_counts(
    command: CommandLine, make_artifact: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(make_artifact("lora"), tmp_path / "artifact"))
    tamper(command, folder, 40, 3, "manifest.json")


def test_documents_with_one_value_changed(
    command: CommandLine, make_run: Callable[[str], Path], tmp_path: Path
) -> None:
    """Each key of run.json null, a list, a huge number: told, or of no weight for what is read."""
    folder = Path(shutil.copytree(make_run("lora"), tmp_path / "run"))
    whole = json.loads((folder / "run.json").read_text("utf-8"))
    for key in whole:
        for value in (None, [], 10**30):
            (folder / "run.json").write_text(json.dumps({**whole, key: value}), "utf-8")
            command("verify", folder)


@pytest.mark.slow
def test_thousands(
    command: CommandLine,
    make_run: Callable[[str], Path],
    make_artifact: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    for override in hostile_overrides(3500, seed=11):
        assert command("finetune", "demo-lora", override, NEVER) == 2
    run = Path(shutil.copytree(make_run("lora"), tmp_path / "run"))
    artifact = Path(shutil.copytree(make_artifact("lora"), tmp_path / "artifact"))
    tamper(command, run, 1000, 12, "run.json")
    tamper(command, artifact, 500, 13, "manifest.json")
    with capsys.disabled():
        print(f"\nhostile cases: {command.counted.total()}, by exit code {dict(command.counted)}")
