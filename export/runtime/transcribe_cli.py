"""The command line of a speech artifact's ``predict.py``: audio files in, text out."""

from __future__ import annotations

import argparse
import json
import sys

from export.runtime.manifest import ArtifactError
from export.runtime.options import check_self, model_options, model_parser, open_streams, tell_fault
from export.runtime.transcriber import OnnxTranscriber


def main(arguments: list[str] | None = None) -> int:
    """Transcribe the files named; 0 done, 2 wrong input.

    With --self-check 1 where a file answers otherwise than at the export.
    """
    open_streams()
    options = parse_arguments(arguments)
    try:
        if options.self_check:
            return check_self(OnnxTranscriber, options)
        if not options.files:
            raise ArtifactError("no recording; try: python predict.py FILE.wav")
        transcriber = OnnxTranscriber(**model_options(options))
        texts = transcriber.transcribe_many(options.files)
        for file, text in zip(options.files, texts, strict=True):
            answer = {"file": file, "text": text}
            print(json.dumps(answer, ensure_ascii=False) if options.json else f"{file}\t{text}")
    except BrokenPipeError:  # the reader has seen enough
        sys.stderr.close()
    except Exception as fault:  # libraries have no common one
        return tell_fault(fault)
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The options; ``folder`` is this file's own unless another is named."""
    parser = model_parser("Transcribe audio with the model of this folder.")
    parser.add_argument("files", nargs="*", metavar="FILE", help="WAV, FLAC, OGG, MP3 …")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
