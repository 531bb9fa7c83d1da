"""YAML as recipes use it: plain data, every fault of it one message, nothing that can surprise.

Values are read by YAML 1.2's core schema: 1e-4 is a number, no and on are words, a date is text
(YAML 1.1 thought otherwise). Keys are text as written, so that ``labels: {010: …}`` keeps its
zero. Tags are refused, a key may stand once, and what aliases unfold to is bounded before it is
unfolded.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from finetune.core.errors import RecipeError

LARGEST_BYTES = 256 << 10
DEEPEST = 40
MOST_VALUES = 20_000  # aliases unfolded
CORE = "tag:yaml.org,2002:"
SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)",
    "float": r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "merge": r"<<",
}
HINTS = (
    ("'\\t'", "indent with spaces, not with a tab"),
    ("mapping values are not allowed", 'a value that holds ": " wants quotes'),
    ("undefined alias", 'a value that begins with * wants quotes: "*.csv"'),
    ("alphabetic or numeric character", "a value that begins with * or & wants quotes"),
    ("cannot start any token", "a value that begins with %, @ or ` wants quotes"),
    ("<document start>", "a value that begins with % wants quotes"),
    ("chomping", "a value that begins with | or > wants quotes"),
    ("end of stream", "a quote is not closed"),
    ("expected ',' or", "a bracket is not closed, or a comma is missing"),
    ("expected the node content", "a bracket is not closed, or a value is missing"),
    ("single document", "a recipe is one document: remove the second ---"),
)
NULLS = ("", "~", "null", "Null", "NULL")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with fewer kinds of values; keys are text."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: build
        for tag, build in yaml.SafeLoader.yaml_constructors.items()
        if tag is None
        or tag.removeprefix(CORE) in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping with its keys as they are written."""
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


def _add_scalars(kind: Any) -> None:
    for name, pattern in SCALARS.items():
        kind.add_implicit_resolver(f"{CORE}{name}", re.compile(f"^(?:{pattern})$"), None)


BREAKS = "\r\x85\u2028\u2029"  # YAML 1.1 ends a line at each of them


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something else than text."""


def _write_text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    """Text; in double quotes where it holds a break that other styles fold into a space."""
    style = '"' if any(sign in value for sign in BREAKS) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_add_scalars(_Loader)
_add_scalars(_Dumper)
_Dumper.add_representer(str, _write_text)


def parse_yaml(text: str, origin: str) -> Any:
    """What a YAML text holds; RecipeError names ``origin``, line and cause of a fault."""
    try:
        _check_events(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_node(node, [MOST_VALUES], 0, frozenset())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as fault:
        raise _told(fault, text, origin) from fault
    except yaml.YAMLError as fault:  # a character that no text has
        raise RecipeError(
            f"{origin} cannot be read as YAML", received=str(fault).splitlines()[0]
        ) from fault


def parse_override(text: str, override: str) -> Any:
    """The value of ``key=value``; raises RecipeError, which says how to write text as text."""
    key, reason = override.partition("=")[0], None
    try:
        value = parse_yaml(text, "the value")
    except RecipeError as fault:
        reason = str(fault.next_step or fault.what.partition(": ")[2] or fault.received)
    else:
        bare = text.lstrip()[:1] not in ("'", '"', "[", "{")
        if (first := text.lstrip()[:1]) in ("&", "|", ">") and first:
            reason = f"a value that begins with {first} wants quotes"
        elif bare and (re.search(r"\s#", text) or (value is None and text.strip() not in NULLS)):
            reason = "a value that holds # wants quotes: a comment begins there"
    if reason is None:
        return value
    raise RecipeError(
        f"the value of {key} cannot be read: {reason}",
        received=override,
        next_step=f"where it is text: {_shell_quoted(key, text)}",
    )


def read_text(path: Path) -> str:
    """A recipe's text; raises RecipeError where it is too large or not UTF-8."""
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise RecipeError(
                f"{path} is too large for a recipe",
                received=f"{size:,} bytes",
                allowed=f"at most {LARGEST_BYTES:,}",
                next_step="is it a data file? data.path=FILE names one",
            )
        content = path.read_bytes()
    except OSError as fault:
        raise RecipeError(f"{path} cannot be read", received=fault.strerror) from fault
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        raise RecipeError(
            f"{path} is not a YAML recipe: it is not UTF-8",
            received=f"byte 0x{content[fault.start]:02x} at {fault.start}",
            next_step=f"iconv -f {'UTF-16' if wide else 'CP949'} -t UTF-8 {path}",
        ) from fault


def write_yaml(content: Any) -> str:
    """Plain data as YAML that ``parse_yaml`` reads back the same; keys in their order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _check_events(text: str) -> None:
    """Refuse tags and depth before anything is composed, which recurses."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise _fault(f"nested more than {DEEPEST} deep", event)
        if getattr(event, "tag", None) is not None:
            raise _fault("tags are not read; a value that begins with ! wants quotes", event)


def _check_node(node: yaml.Node, left: list[int], depth: int, within: frozenset[int]) -> None:
    """Refuse what unfolds to too much, holds itself, or has a key twice."""
    left[0] -= 1
    if left[0] < 0 or depth > DEEPEST or id(node) in within:
        what = "holds itself" if id(node) in within else "unfolds to more than a recipe may hold"
        raise _fault(f"an alias {what}", node)
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
    inner = () if isinstance(node, yaml.ScalarNode) else node.value
    for one in inner:
        for part in one if isinstance(one, tuple) else (one,):
            _check_node(part, left, depth + 1, within | {id(node)})


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _fault("a key is a list or a mapping", key)
        if key.value in lines:
            raise _fault(
                f"the key `{key.value}` stands twice, first in line {lines[key.value]}", key
            )
        lines[key.value] = key.start_mark.line + 1


def _fault(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def _told(fault: yaml.MarkedYAMLError, text: str, origin: str) -> RecipeError:
    """One message: which line, what is wrong with it, what helps."""
    mark, problem = fault.problem_mark or fault.context_mark, fault.problem or fault.context
    lines = text.splitlines()
    line = lines[mark.line].strip() if mark and mark.line < len(lines) else ""
    where = f", line {mark.line + 1}" if mark and len(lines) > 1 else ""
    hint = next((told for sign, told in HINTS if sign in str(fault)), None)
    return RecipeError(
        f"{origin} is not a YAML recipe{where}: {problem}",
        received=line[:120] or None,
        next_step=hint,
    )


def _shell_quoted(key: str, text: str) -> str:
    inner = text.replace("\\", "\\\\").replace('"', '\\"').replace("'", "'\\''")
    return f"'{key}=\"{inner}\"'"
