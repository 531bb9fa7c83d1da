"""Commands of the second stage: export, predict, transcribe, verify, push."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.core.command_line import TextsCommand
from finetune.core.console import console, say, tell, told_when_interrupted
from finetune.core.errors import DataError, FolderError, RecipeError

if TYPE_CHECKING:
    from export.predict import Prediction

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value of the export section, e.g. opset=18")
]
Output = Annotated[
    Path | None, typer.Option(help="the artifact folder; default artifacts/<run name>")
]
Texts = Annotated[
    list[str] | None, typer.Argument(help="texts; without any, --file or standard input")
]
TextFile = Annotated[
    Path | None,
    typer.Option("--file", help="UTF-8 text, one a line; or a table: .csv, .tsv, .jsonl, .parquet"),
]
Column = Annotated[str | None, typer.Option(help="the table's column of texts; default document")]
Precision = Annotated[
    str | None, typer.Option(help="fp32 or int8 of an artifact; default int8 on a CPU")
]
To = Annotated[
    str | None,
    typer.Option("--to", help="files beside fp32: int8-dynamic,int8-static,int4,openvino-int8 …"),
]
Points = Annotated[
    str | None,
    typer.Option(
        metavar="POINTS",
        help="find the fastest file that loses at most so many points of accuracy (speech: of "
        "word error rate), e.g. 0.5; a point is 0.01 in the recipe",
    ),
]
For = Annotated[str | None, typer.Option("--for", help="what the files are made for: cpu or cuda")]
Words = Annotated[
    list[str],
    typer.Argument(
        help="an artifact, run or model folder or a hub id (default facebook/wav2vec2-base-960h), "
        "then audio files; or one folder with metadata.csv, one CSV, one hub data set"
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(help="the table's column; for files, a text file of one line each, or the text"),
]
Chunk = Annotated[float | None, typer.Option(help="seconds heard at once in a long file")]
Stride = Annotated[float | None, typer.Option(help="seconds that chunks overlap on either side")]
POINT_SUFFIXES = ("points", "point", "pt", "%")
LEAST_POINTS = 0.05  # bare; below, a share was meant more often than not
ALIASES = {"int8": "int8-dynamic", "bf16": "openvino-bf16"}


def register(app: typer.Typer) -> None:
    """Add this stage's commands to the front door."""
    app.command("export")(export_command)
    app.command("predict", cls=TextsCommand)(predict_command)
    app.command("verify")(verify_command)
    app.command("push")(push_command)
    app.command("transcribe")(transcribe_command)


def export_command(
    run: Path,
    overrides: Overrides = None,
    output: Output = None,
    to: To = None,
    max_accuracy_drop: Points = None,
    device: For = None,
) -> None:
    """Merge a run's adapter, export to ONNX, quantise, check every stage."""
    from rich.markup import escape

    from export.exporting import export_run

    with told_when_interrupted(lambda: "nothing was written; the same command starts anew"):
        artifact = export_run(
            run,
            output,
            overrides=[*(overrides or ()), *export_overrides(to, device)],
            max_loss=None if max_accuracy_drop is None else read_points(max_accuracy_drop),
            report=lambda line: say(escape(line)),
        )
    sizes = ", ".join(
        f"{precision} {entry.bytes / 1e6:.1f} MB"
        for precision, entry in artifact.manifest.files.items()
    )
    say(f"[bold]{escape(str(artifact.folder))}[/]  {sizes}")


def export_overrides(to: str | None, device: str | None) -> list[str]:
    """The options of ``kotune export`` as overrides of the recipe's export section."""
    found = []
    if to is not None:
        names = [name.strip() for name in to.split(",")]
        found.append(f"precisions=[{','.join(ALIASES.get(name, name) for name in names)}]")
    if device is not None:
        found.append(f"device={device}")
    return found


def read_points(given: str) -> float:
    """Points as a share: ``0.5``, ``0.5pt`` and ``0.5%`` are 0.005; raises RecipeError.

    A bare number so small that it is rather a share is refused: 0.01 points are one label in ten
    thousand, 0.01 of the recipe is a point.
    """
    number, suffix = given.strip(), ""
    for one in POINT_SUFFIXES:
        if number.endswith(one):
            number, suffix = number.removesuffix(one).strip(), one
            break
    try:
        points = float(number)
    except ValueError:
        points = math.nan
    if not 0 <= points <= 100:
        raise RecipeError(
            "--max-accuracy-drop is not a number of points",
            received=given,
            allowed="0 to 100 points, such as 0.5 or 0.5pt",
        )
    if not suffix and 0 < points < LEAST_POINTS:
        raise RecipeError(
            "--max-accuracy-drop is told in points, and this looks like a share",
            received=f"{given}, which is {points / 100:g} as a share",
            allowed=f"{LEAST_POINTS:g} points and more, or a unit: {points:g}pt",
            next_step=f"--max-accuracy-drop {100 * points:g} for that share, or {points:g}pt if "
            "you mean it",
        )
    return points / 100


def predict_command(
    folder: Path,
    texts: Texts = None,
    file: TextFile = None,
    column: Column = None,
    precision: Precision = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Label texts with a run or an artifact: label and score, in input order."""
    from export.predict import predict_texts

    predictions = predict_texts(folder, read_texts(texts, file, column), precision=precision)
    if as_json:
        for prediction in predictions:
            typer.echo(json.dumps(prediction.as_dict(), ensure_ascii=False))
    elif console.is_terminal:
        _print_table(predictions)
    else:
        for prediction in predictions:
            text = " ".join(prediction.text.splitlines())  # one line an answer
            typer.echo(f"{prediction.label}\t{prediction.score:.4f}\t{text}")


def transcribe_command(
    words: Words,
    reference: Reference = None,
    precision: Annotated[
        str | None, typer.Option(help="an artifact's: fp32, int8, openvino-int8 …")
    ] = None,
    audio_column: Annotated[str, typer.Option(help="the table's column of audio")] = "file_name",
    config: Annotated[str | None, typer.Option(help="of a hub data set, e.g. en-US")] = None,
    split: Annotated[str | None, typer.Option(help="of a hub data set; default test")] = None,
    chunk_s: Chunk = None,
    stride_s: Stride = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Print the text of recordings, in input order; with --reference, beside what was said."""
    from export.transcribe import find_recordings, open_transcriber, score, transcribe

    model, inputs = split_words(words)
    found = find_recordings(
        inputs, reference, audio_column=audio_column, config=config, split=split
    )
    transcriber = open_transcriber(model, precision=precision, chunk_s=chunk_s, stride_s=stride_s)
    transcripts = []
    for place, text in enumerate(transcribe(transcriber, found)):
        transcripts.append(text)
        asked = found.references[place] if found.references else None
        _print_transcript(found.names[place], text, asked, as_json, alone=len(found.names) == 1)
    if found.references:
        tell(score(found.references, transcripts, "upper"))


def verify_command(
    folder: Path,
    answers: Annotated[
        bool, typer.Option("--answers", help="also run its files: do they answer as exported?")
    ] = False,
    precision: Annotated[
        str | None, typer.Option(help="with --answers: this file alone; default: every one")
    ] = None,
) -> None:
    """Check every file of an artifact or a run against its SHA-256; with --answers run them."""
    from rich.markup import escape

    if (folder / "run.json").is_file():
        from finetune.run_folder import open_run, unsealed_files

        if answers:
            raise FolderError(
                "a run keeps no answers of exported files",
                received=folder,
                next_step=f"kotune export {folder}",
            )

        run = open_run(folder)
        say(f"run {escape(run.name)}: {len(run.info.files)} files unchanged")
        if unsealed := unsealed_files(run):
            tell(f"  not sealed, of an earlier version: {', '.join(unsealed)}")
        _tell_seal(folder / "run.json")
        return
    from export.artifact.folder import open_artifact, unlisted_files

    artifact = open_artifact(folder)
    count = len(artifact.manifest.sha256)
    verdict = "passed" if artifact.status == "passed" else "FAILED"
    say(f"artifact {escape(artifact.name)}: {count} files unchanged, export checks {verdict}")
    unlisted = unlisted_files(artifact)
    if unlisted:
        tell(f"  not of the artifact: {', '.join(unlisted)}")
    _tell_seal(folder / "manifest.json")
    if answers:
        from export.artifact.answers import verify_answers

        for line in verify_answers(artifact, precision):
            tell(line)


def _tell_seal(document: Path) -> None:
    """The digest that stands for the whole folder: compare it with what its maker published."""
    from finetune.core.seal import sha256_file

    say(f"seal of all files, SHA-256 of {document.name}: {sha256_file(document)}")


def push_command(
    folder: Path,
    repo: Annotated[str, typer.Argument(help="the model repository: OWNER/NAME")],
    private: Annotated[bool, typer.Option("--private", help="create it private")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="upload; without it nothing is sent")] = False,
    answers: Annotated[
        bool, typer.Option("--answers", help="send answers/ too: rows of your validation data")
    ] = False,
) -> None:
    """Upload an artifact to the model hub; without --yes only say what would be sent."""
    from export.artifact.push import plan_push, push_artifact

    plan = plan_push(folder, repo, private=private, answers=answers)
    for line in plan.describe():
        tell(line)
    if yes:
        tell(push_artifact(plan))
    else:
        tell("nothing was sent; --yes uploads")


def read_texts(texts: Sequence[str] | None, file: Path | None, column: str | None) -> list[str]:
    """Texts from arguments, a file or standard input; raises DataError."""
    from finetune.data.input_texts import given_texts, read_input_texts

    if texts and (file is not None or column is not None):
        raise DataError("texts come from arguments or from --file, not both", received=file)
    if texts:
        return given_texts(list(texts))
    if file is None and sys.stdin.isatty():
        raise DataError("no text", next_step='kotune predict FOLDER "TEXT", or --file FILE')
    found, notes = read_input_texts(file, column)
    for note in notes:
        typer.echo(note, err=True)
    return found


def split_words(words: list[str]) -> tuple[str, list[str]]:
    """(model, recordings): where the first word is a file, the model is the default one."""
    from export.transcribe import DEFAULT_MODEL

    if Path(words[0]).is_file():
        return DEFAULT_MODEL, words
    if len(words) == 1 and _is_model(words[0]):
        raise DataError(
            "no recording",
            received=words[0],
            next_step=f"kotune transcribe {words[0]} FILE.wav, or a folder with metadata.csv",
        )
    if len(words) == 1:
        raise DataError(
            "no such recording, and no model of this name either",
            received=words[0],
            allowed="an audio file; or a model (folder or owner/name), then audio files",
            next_step="ls, for the file's name; kotune transcribe FILE.wav",
        )
    return words[0], words[1:]


def _is_model(name: str) -> bool:
    """Whether a word can be a model: a folder, or a hub id that is no file's name."""
    audio = Path(name).suffix.lower() in (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus")
    return Path(name).is_dir() or (name.count("/") == 1 and name[0] not in "./~" and not audio)


def _print_transcript(
    name: str, text: str, asked: str | None, as_json: bool, *, alone: bool
) -> None:
    if as_json:
        answer = {"file": name, "text": text}
        answer |= {} if asked is None else {"reference": asked}
        typer.echo(json.dumps(answer, ensure_ascii=False))
    elif asked is not None:
        typer.echo(f"{name}\t{text}\t{asked}")
    else:
        typer.echo(text if alone else f"{name}\t{text}")


def _print_table(predictions: Sequence[Prediction]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("label", "score", "text")
    for prediction in predictions:
        table.add_row(Text(prediction.label), f"{prediction.score:.4f}", Text(prediction.text))
    console.print(table)
