"""Text of a user's in another format: one function for each, called where the format is written.

HTML pages are written by Jinja, which escapes, and YAML by PyYAML.
"""

from __future__ import annotations

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
)
LATEX_SIGNS = {
    "−": "$-$",
    "…": r"\dots",
    "×": r"$\times$",
    "–": "--",
    "μ": r"$\mu$",
    "Δ": r"$\Delta$",
    "<": "$<$",
}
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet begins to calculate


def escape_markdown(words: str) -> str:
    """Text that Markdown shows as it is, on one line; names in backticks stay code."""
    parts = " ".join(words.split()).split("`")
    if len(parts) % 2 == 0:  # a lone backtick opens no code
        return "\\`".join(map(_escape_part, parts))
    return "`".join(part if index % 2 else _escape_part(part) for index, part in enumerate(parts))


def markdown_code(name: str) -> str:
    """A name as code, also inside a table; one that holds a backtick as plain text."""
    name = " ".join(name.split())
    return escape_markdown(name) if "`" in name else "`" + name.replace("|", "\\|") + "`"


def markdown_cell(written: str) -> str:
    """A cell whose Markdown is ours: it stays one cell, and holds no HTML."""
    return " ".join(written.split()).replace("|", "\\|").replace("<", "&lt;")


def escape_latex(words: str) -> str:
    """Text that LaTeX shows as it is; Hangul needs a font that has it (xelatex, kotex)."""
    escaped = " ".join(words.split()).translate(LATEX)
    for sign, written in LATEX_SIGNS.items():
        escaped = escaped.replace(sign, written)
    return escaped


def csv_cell(value: object) -> object:
    """A value that no spreadsheet takes for a formula; numbers stay numbers, ten digits of them."""
    if isinstance(value, float):
        return f"{value:.10g}"  # more differ between machines and mean nothing
    if isinstance(value, str) and value.startswith(FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _escape_part(words: str) -> str:
    for letter in "\\*_[]|#":
        words = words.replace(letter, f"\\{letter}")
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
