"""What comes from the model hub: asked once, with a short patience, told plainly.

Network is used only where a recipe names a hub id, and never for more than a few seconds
before it is known that there is none.
"""

from __future__ import annotations

import os
from pathlib import Path

from finetune.core.errors import ModelError
from finetune.core.libraries import connection_faults

PATIENCE_S = 5.0


def hub_answers() -> bool:
    """Whether the hub can be reached; False at once where HF_HUB_OFFLINE is set."""
    import requests
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        requests.head(constants.ENDPOINT, timeout=PATIENCE_S, allow_redirects=False)
    except requests.RequestException:
        return False
    return True


def resolve_hub_model(repo_id: str, revision: str | None, key: str) -> tuple[str, bool]:
    """(commit or revision, whether only local files may be used); raises ModelError.

    Online, the commit is resolved so that the run folder names exactly what it was trained on.
    Offline, the cache must hold the model.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        if hub_answers():
            found = HfApi().model_info(repo_id, revision=revision, timeout=PATIENCE_S)
            return found.sha or revision or "main", False
        cached = try_to_load_from_cache(repo_id, "config.json", revision=revision)
    except (HfHubHTTPError, HFValidationError) as fault:
        raise ModelError(
            f"the hub has no model of this name ({type(fault).__name__})",
            received=f"{key}={repo_id}",
            next_step="check the id, or `hf auth login` for a private one",
        ) from fault
    except connection_faults() as fault:
        raise ModelError(
            "the connection to the hub broke off",
            received=f"{key}={repo_id}: {type(fault).__name__}",
            next_step="try again, or HF_HUB_OFFLINE=1 for what is in the cache",
        ) from fault
    if isinstance(cached, str | os.PathLike):
        return revision or "main", True
    raise ModelError(
        f"{repo_id} is not a local folder, not in the cache, and the hub does not answer",
        received=f"{key}={repo_id}",
        allowed="a folder, or a cached or reachable hub id",
        next_step=f"{key}=FOLDER with the downloaded model",
    )


WEIGHT_FILES = ("config.json", "adapter_config.json", "model*.safetensors", "model*.index.json")


def fetch_weights(repo_id: str, revision: str | None, *, local_only: bool) -> Path:
    """The cache's folder of a model's config and safetensors files; raises ModelError."""
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            repo_id,
            revision=revision,
            allow_patterns=list(WEIGHT_FILES),
            local_files_only=local_only,
            etag_timeout=PATIENCE_S,
        )
    except (OSError, ValueError) as fault:  # every error of the hub's and of either HTTP library
        raise ModelError(
            "the model's weights cannot be fetched",
            received=f"{repo_id}: {str(fault).splitlines()[0] if str(fault) else type(fault)}",
            next_step="model.source=FOLDER with the downloaded model",
        ) from fault
    return Path(found)
