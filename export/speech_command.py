"""kotune transcribe: recordings in, text out, and the error rate where there is a reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from finetune.core.console import tell
from finetune.core.errors import DataError

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
        _print_line(found.names[place], text, asked, as_json, alone=len(found.names) == 1)
    if found.references:
        tell(score(found.references, transcripts, "upper"))


def split_words(words: list[str]) -> tuple[str, list[str]]:
    """(model, recordings): where the first word is a file, the model is the default one."""
    from export.transcribe import DEFAULT_MODEL

    if Path(words[0]).is_file():
        return DEFAULT_MODEL, words
    if len(words) == 1:
        raise DataError(
            "no recording",
            received=words[0],
            next_step=f"kotune transcribe {words[0]} FILE.wav, or a folder with metadata.csv",
        )
    return words[0], words[1:]


def _print_line(name: str, text: str, asked: str | None, as_json: bool, *, alone: bool) -> None:
    if as_json:
        answer = {"file": name, "text": text}
        answer |= {} if asked is None else {"reference": asked}
        typer.echo(json.dumps(answer, ensure_ascii=False))
    elif asked is not None:
        typer.echo(f"{name}\t{text}\t{asked}")
    else:
        typer.echo(text if alone else f"{name}\t{text}")
