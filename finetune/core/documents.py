"""JSON documents of a folder as typed, frozen records: read once at the door, written once.

A document's schema carries its major version (``kotune.run/1``). Keys that a later minor version
adds are kept, not refused, so that a folder of a newer kotune of the same major version opens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.core.errors import FolderError
from finetune.core.files import read_json, write_json

FAULTS_SHOWN = 8
D = TypeVar("D", bound="Document")


class Document(BaseModel):
    """A record of a JSON document, or of a part of one."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        ser_json_inf_nan="constants",  # which writing refuses
    )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: what was given, in the order of the fields; defaults are left out."""
        return self.model_dump(mode="json", exclude_unset=True)


def read_document(path: Path, kind: type[D], schema: str) -> D:
    """The document at ``path``; FolderError names the file and every key that does not fit."""
    content = read_json(path, schema)
    del content["schema"]
    return check_document(kind, content, path, schema)


def check_document(kind: type[D], content: dict[str, Any], path: Path, schema: str) -> D:
    """``content`` of the file ``path`` as a record; raises FolderError."""
    with told_faults(path, schema, "the command that wrote the folder, which writes the file anew"):
        return kind.model_validate(content)


@contextmanager
def told_faults(path: Path, schema: str, next_step: str) -> Iterator[None]:
    """Raise FolderError with every key of the file ``path`` that pydantic refuses in the block."""
    try:
        yield
    except ValidationError as fault:
        received, allowed = describe_faults(fault)
        raise FolderError(
            f"{path} does not follow {schema}",
            received=received,
            allowed=allowed or None,
            next_step=next_step,
        ) from fault


def write_document(path: Path, schema: str, document: Document) -> None:
    """Write a document by rename, its schema first; NaN is refused."""
    write_json(path, schema, document.as_dict())


def describe_faults(fault: ValidationError) -> tuple[str, str]:
    """(what was received, what is allowed) of each key that does not fit, the first eight."""
    received, allowed = [], []
    for error in fault.errors():
        key = " -> ".join(map(str, error["loc"]))
        missing = error["type"] == "missing"
        found = "nothing" if missing else json.dumps(error["input"], default=str)[:60]
        told = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        received.append(f"{key}: {found}" if key else told)
        if key:
            allowed.append(f"{key}: {'a value' if missing else told}")
    if len(received) > FAULTS_SHOWN:
        received[FAULTS_SHOWN:] = [f"and {len(received) - FAULTS_SHOWN} more"]
    return "; ".join(received), "; ".join(allowed[:FAULTS_SHOWN])
