"""The runtime as one file: ``predict.py`` of an artifact, for those who have only the folder."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

from finetune.core.files import write_text

ROOT = Path(__file__).parents[2]
HEADER = '''"""Label texts with the model in this folder. Needs numpy, onnxruntime and tokenizers.

    python predict.py "TEXT"                 # label, score, text
    python predict.py --json < texts.txt     # one text a line

    from predict import OnnxClassifier
    OnnxClassifier(".")("TEXT")              # [{"label": …, "score": …}]

Written by kotune, of its export/runtime/classifier.py and the modules that needs; MIT license.
"""
'''
SPEECH_HEADER = '''"""Transcribe audio with the model in this folder.

Needs numpy, onnxruntime, soundfile and soxr.

    python predict.py recording.wav talk.mp3   # file, text; any rate, channels and length

    from predict import OnnxTranscriber
    OnnxTranscriber(".")("recording.wav")      # "ONE TWO THREE"

Written by kotune, of its export/runtime/transcriber.py and the modules that needs; MIT license.
"""
'''


@dataclass(frozen=True)
class Bundle:
    """Modules that make one file, later ones using earlier ones, and the packages they need.

    Before those are imported stands ``FIRST``.
    """

    header: str
    parts: tuple[str, ...]
    packages: tuple[str, ...]


TEXT = Bundle(
    HEADER,
    (
        "finetune/core/seal",
        "export/runtime/manifest",
        "export/runtime/arithmetic",
        "finetune/core/preparation",
        "finetune/core/lines",
        "export/runtime/texts",
        "finetune/core/cpu_flags",
        "export/runtime/processor",
        "export/runtime/openvino_session",
        "export/runtime/shared_session",
        "export/runtime/session",
        "export/runtime/classifier",
        "export/runtime/answers",
        "export/runtime/options",
        "export/runtime/predict_cli",
    ),
    ("numpy", "onnxruntime", "tokenizers"),
)
SPEECH = Bundle(
    SPEECH_HEADER,
    (
        "finetune/data/audio",
        "finetune/tasks/speech/ctc",
        "finetune/tasks/speech/transcription",
        "finetune/core/seal",
        "export/runtime/manifest",
        "export/runtime/arithmetic",
        "finetune/core/cpu_flags",
        "export/runtime/processor",
        "export/runtime/openvino_session",
        "export/runtime/shared_session",
        "export/runtime/session",
        "export/runtime/transcriber",
        "export/runtime/answers",
        "export/runtime/options",
        "export/runtime/transcribe_cli",
    ),
    ("numpy", "onnxruntime", "soundfile", "soxr"),
)
PACKAGES = TEXT.packages
FIRST = "finetune/core/telemetry"
MISSING = """
if __name__ == "__main__":
    wanted = {packages!r}
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"predict.py needs: pip install {{' '.join(missing)}}")
"""


def write_predict(folder: Path, bundle: Bundle = TEXT) -> None:
    """Write ``predict.py`` into an artifact folder."""
    write_text(folder / "predict.py", bundle_runtime(bundle))


def bundle_runtime(bundle: Bundle = TEXT) -> str:
    """The parts one after the other, their imports gathered at the top."""
    imports, first = split_module(_source_of(FIRST))
    imports |= {("importlib.util", ""), ("sys", "")}
    bodies = []
    for name in bundle.parts:
        found, body = split_module(_source_of(name))
        imports |= found
        bodies.append(body)
    outside = {entry for entry in imports if entry[0].split()[0] in bundle.packages}
    blocks = [
        bundle.header,
        "from __future__ import annotations\n",
        *write_imports(imports - outside),
        f"\n{first}",
        MISSING.format(packages=bundle.packages),
        *(f"{line}  # noqa: E402" for line in write_imports(outside)),
        "",
        "\n\n".join(bodies),
    ]
    return "\n".join(blocks)


def _source_of(name: str) -> str:
    return (ROOT / f"{name}.py").read_text("utf-8")


def split_module(source: str) -> tuple[set[tuple[str, str]], str]:
    """({(module, name or "")} but of our own parts, the text after the imports).

    Raises ValueError where an import stands below other code.
    """
    nodes = ast.parse(source).body
    kinds = [isinstance(node, ast.Import | ast.ImportFrom) for node in nodes]
    last = max(index for index, is_import in enumerate(kinds) if is_import)
    if not all(kinds[1 : last + 1]):
        raise ValueError("a part of predict.py imports below its first definition")
    found = set()
    for node in nodes[1 : last + 1]:
        if isinstance(node, ast.Import):
            found |= {(ast.unparse(alias), "") for alias in node.names}
        elif not node.module.startswith(("export", "finetune", "__future__")):
            found |= {(node.module, alias.name) for alias in node.names}
    return found, "\n".join(source.splitlines()[nodes[last].end_lineno :]).strip() + "\n"


def write_imports(imports: set[tuple[str, str]]) -> list[str]:
    """``import module`` lines, then ``from module import names``, each module once."""
    lines = [f"import {module}" for module, name in sorted(imports) if not name]
    for module in sorted({module for module, name in imports if name}):
        names = sorted(name for where, name in imports if where == module and name)
        lines.append(f"from {module} import {', '.join(names)}")
    return lines


if __name__ == "__main__":
    sys.stdout.write(bundle_runtime())
