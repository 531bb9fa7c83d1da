"""The runtime as one file: ``predict.py`` of an artifact, for those who have only the folder."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from finetune.files import write_text

PARTS = ("manifest", "processor", "openvino_session", "runtime", "runtime_cli")
PACKAGES = ("numpy", "onnxruntime", "tokenizers")
HEADER = '''"""Label texts with the model in this folder. Needs numpy, onnxruntime and tokenizers.

    python predict.py "영화 정말 재미있어요"      # label, score, text
    python predict.py --json < reviews.txt   # one text a line

    from predict import OnnxClassifier
    OnnxClassifier(".")("영화 정말 재미있어요")  # [{"label": …, "score": …}]

Written by kotune, of its export/runtime.py and the modules that needs; MIT license.
"""
'''
MISSING = """
if __name__ == "__main__":
    wanted = ("numpy", "onnxruntime", "tokenizers")
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"predict.py needs: pip install {' '.join(missing)}")
"""


def write_predict(folder: Path) -> None:
    """Write ``predict.py`` into an artifact folder."""
    write_text(folder / "predict.py", bundle_runtime())


def bundle_runtime() -> str:
    """The parts one after the other, their imports gathered at the top."""
    imports: set[tuple[str, str]] = {("importlib.util", ""), ("sys", "")}
    bodies = []
    for name in PARTS:
        found, body = split_module((Path(__file__).parent / f"{name}.py").read_text("utf-8"))
        imports |= found
        bodies.append(body)
    outside = {entry for entry in imports if entry[0].split()[0] in PACKAGES}
    blocks = [
        HEADER,
        "from __future__ import annotations\n",
        *write_imports(imports - outside),
        MISSING,
        *(f"{line}  # noqa: E402" for line in write_imports(outside)),
        "",
        "\n\n".join(bodies),
    ]
    return "\n".join(blocks)


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
        elif not node.module.startswith(("export", "__future__")):
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
