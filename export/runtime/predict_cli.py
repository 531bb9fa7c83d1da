"""The command line of ``predict.py``: texts in, one labelled line each out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import tee

from export.runtime.classifier import OnnxClassifier, softmax
from export.runtime.options import (
    as_written,
    check_self,
    model_options,
    model_parser,
    open_streams,
    tell_fault,
)
from finetune.core.lines import read_lines
from finetune.core.preparation import well_formed


def main(arguments: list[str] | None = None) -> int:
    """Label texts from the arguments or from standard input; 0 done, 2 wrong input.

    With --self-check 1 where a file answers otherwise than at the export.
    """
    open_streams()
    options = parse_arguments(arguments)
    if not (options.texts or options.self_check) and (sys.stdin is None or sys.stdin.isatty()):
        print('no text; try: python predict.py "TEXT", or FILE on stdin', file=sys.stderr)
        return 2
    lines = read_lines(sys.stdin.buffer) if sys.stdin else iter(())
    texts = map(well_formed, map(as_written, options.texts)) if options.texts else lines
    try:
        if options.self_check:
            return check_self(OnnxClassifier, options)
        classifier = OnnxClassifier(**model_options(options))
        for line in label_lines(classifier, texts, as_json=options.json):
            print(line, flush=sys.stdout.isatty())
    except BrokenPipeError:  # the reader has seen enough
        sys.stderr.close()
    except Exception as fault:  # libraries have no common one
        return tell_fault(fault)
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The options; ``folder`` is this file's own unless another is named."""
    parser = model_parser("Label texts with the model of this folder.")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="default: lines of stdin")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, all scores")
    return parser.parse_args(arguments)


def label_lines(
    classifier: OnnxClassifier, texts: Iterable[str], *, as_json: bool
) -> Iterator[str]:
    """``label<TAB>score<TAB>text`` or JSON for each text, a window of them in memory."""
    asked, copied = tee(texts)
    for logits in classifier.stream_logits(asked):
        for row in softmax(logits):
            text, best = next(copied), int(row.argmax())
            label, score = classifier.labels[best], float(row[best])
            if not as_json:
                yield f"{label}\t{score:.4f}\t{text}"
                continue
            scores = dict(zip(classifier.labels, row.tolist(), strict=True))
            answer = {"text": text, "label": label, "score": score, "scores": scores}
            yield json.dumps(answer, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
