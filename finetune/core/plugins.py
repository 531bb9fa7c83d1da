"""What packages of one's own add: tasks, adapter methods, metrics, quantisations, runtimes.

A package names what it adds in its ``pyproject.toml`` as an entry point of one of GROUPS; nothing
of it is imported before its name is asked for. docs/plugins.md shows each group.
"""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from finetune.core.errors import KotuneError

GROUPS = (
    "kotune.tasks",
    "kotune.tasks.export",
    "kotune.tasks.bench",
    "kotune.methods",
    "kotune.metrics",
    "kotune.quantizations",
    "kotune.runtimes",
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
T = TypeVar("T")


class PluginError(KotuneError):
    """A package that adds something to kotune and did it wrong; ``exit_code`` is 2."""


@functools.cache
def find_plugins(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Name → entry points of installed packages, sorted; nothing is imported."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in sorted(entry_points(group=group), key=lambda one: (one.name, one.value)):
        if NAME.fullmatch(entry.name):
            same = found.get(entry.name, ())
            if entry not in same:  # a folder may stand on Python's path twice
                found[entry.name] = (*same, entry)
    return found


def plugin_names(group: str) -> tuple[str, ...]:
    """The names that plugins add to a group."""
    return tuple(find_plugins(group))


class Registry(Mapping[str, T], Generic[T]):
    """Ours by name, then those of plugins, each loaded when it is first asked for.

    ``kind`` is what a plugin has to give. Asking raises PluginError where one cannot be loaded,
    gives something else, or takes a name that is taken.
    """

    def __init__(self, group: str, own: Mapping[str, T], kind: type) -> None:
        self.group, self.own, self.kind = group, own, kind
        self._loaded: dict[str, T] = {}

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from (name for name in find_plugins(self.group) if name not in self.own)

    def __len__(self) -> int:
        return len({*self.own, *find_plugins(self.group)})

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in find_plugins(self.group)

    def __getitem__(self, name: str) -> T:
        added = find_plugins(self.group).get(name, ())
        takers = [*(["kotune"] if name in self.own else []), *map(package_of, added)]
        if len(takers) > 1:
            raise PluginError(
                f"two packages add {name} to {self.group}",
                received=", ".join(takers),
                next_step=f"pip uninstall {takers[-1]}, or another name in its entry points",
            )
        if not added:
            return self.own[name]
        if name not in self._loaded:
            self._loaded[name] = self._load(added[0])
        return self._loaded[name]

    def is_plugin(self, name: str) -> bool:
        """Whether a plugin adds it."""
        return name not in self.own and name in self

    def _load(self, entry: EntryPoint) -> T:
        with blame(self.group, entry.name):
            found = entry.load()
        wanted = self.kind
        right = isinstance(found, wanted) or (isinstance(found, type) and issubclass(found, wanted))
        if not right:
            raise PluginError(
                f"the plugin {entry.name} of {package_of(entry)} is not what {self.group} takes",
                received=f"{entry.value}: {type(found).__name__}",
                allowed=f"{wanted.__module__}.{wanted.__qualname__}",
                next_step="docs/plugins.md shows each group",
            )
        return found


@contextmanager
def blame(group: str, name: str) -> Iterator[None]:
    """Raise PluginError that names the plugin and the line where its code failed in the block."""
    try:
        yield
    except KotuneError:
        raise
    except Exception as fault:
        entries = find_plugins(group).get(name, ())
        package = ", ".join(map(package_of, entries)) or "an unknown package"
        last = traceback.extract_tb(fault.__traceback__)[-1]
        raise PluginError(
            f"the plugin {name} of {package} ({group}) failed",
            received=f"{type(fault).__name__}: {fault} ({last.filename}, line {last.lineno})",
            next_step=f"pip install -U {package}, or pip uninstall {package}",
        ) from fault


def package_of(entry: EntryPoint) -> str:
    """The distribution that an entry point is of."""
    return entry.dist.name if entry.dist is not None else entry.module
