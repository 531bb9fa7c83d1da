"""Tables of text data sets on the hub."""

from __future__ import annotations

from finetune.core.errors import DataError
from finetune.core.hub import hub_answers
from finetune.data.tables import Table, table_of_dataset


def read_hub_dataset(
    repo_id: str, text_column: str, label_column: str
) -> tuple[Table, Table | None]:
    """Training and test table of a hub data set; raises DataError."""
    if not hub_answers():
        raise DataError(
            f"{repo_id} is not a local path, and the hub does not answer",
            received=f"data.path={repo_id}",
            next_step="data.path=FILE_OR_FOLDER, or data.source=sample",
        )
    from datasets import load_dataset

    try:
        found = load_dataset(repo_id)
    except Exception as fault:  # datasets raises many kinds; all mean the same to the reader
        raise DataError(
            f"the hub dataset could not be read ({type(fault).__name__})", received=repo_id
        ) from fault
    if "train" not in found:
        raise DataError("the dataset has no train split", received=", ".join(found))
    tables = [
        table_of_dataset(found[split], f"{repo_id}, {split}", text_column, label_column)
        if split in found
        else None
        for split in ("train", "test")
    ]
    return tables[0], tables[1]
