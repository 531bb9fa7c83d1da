"""An artifact to the model hub: a plan first, the upload only where it was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.artifact.card_metadata import UNKNOWN_LICENSE, check_card
from export.artifact.folder import MANIFEST, open_artifact
from export.runtime.manifest import ANSWERS
from finetune.core.errors import FolderError, KotuneError


class HubError(KotuneError):
    """The hub was not reached, or refused; ``exit_code`` is 2."""


@dataclass(frozen=True)
class PushPlan:
    """What would go where: file names with their bytes, largest first."""

    folder: Path
    repo: str
    private: bool
    files: tuple[tuple[str, int], ...]
    license: str
    results: int  # measured figures in the card's model-index
    answers: int = 0  # files of the owner's rows in answers/
    sends_answers: bool = False

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.files)

    def describe(self) -> list[str]:
        """Lines for the reader."""
        from huggingface_hub import constants

        kind = "private" if self.private else "public"
        lines = [f"target {constants.ENDPOINT}/{self.repo}, a {kind} model repository"]
        lines += [f"  {size / 1e6:10.3f} MB  {name}" for name, size in self.files]
        lines += [
            f"  {self.total_bytes / 1e6:10.3f} MB  in {len(self.files)} files, hashes checked",
            f"model card: valid, license {self.license}, {self.results} measured figures",
        ]
        if self.answers and self.sends_answers:
            lines.append(f"  {ANSWERS}/ is sent: it holds rows of your validation data")
        elif self.answers:
            lines.append(f"  {ANSWERS}/ stays here: it holds rows of your data; --answers sends it")
        if self.license == UNKNOWN_LICENSE:
            lines.append("  the license is unknown: export again with license=… to state it")
        return lines


def plan_push(
    folder: Path | str, repo: str, *, private: bool = False, answers: bool = False
) -> PushPlan:
    """Check everything that can be checked without a network; raises KotuneError.

    The artifact's hashes, that it passed its export checks, its card and the repository's name.
    Only files of the manifest are taken: what else lies in the folder stays here, and so do the
    owner's own texts or recordings in ``answers/`` but where ``answers`` are asked for.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as fault:
        raise HubError(
            "not a repository name of the hub", received=repo, allowed="NAME or OWNER/NAME"
        ) from fault
    artifact = open_artifact(folder)
    if artifact.status != "passed":
        raise FolderError("the artifact failed its export checks", received=folder)
    card = check_card(artifact.folder / "README.md")
    kept = [name for name in artifact.manifest.sha256 if name.startswith(f"{ANSWERS}/")]
    kept = [name for name in kept if (artifact.folder / name).is_file()]
    left = {name for name in artifact.manifest.sha256 if name.startswith(f"{ANSWERS}/")}
    names = [MANIFEST, *(name for name in artifact.manifest.sha256 if name not in left)]
    names += kept if answers else []
    sizes = [(name, (artifact.folder / name).stat().st_size) for name in names]
    return PushPlan(
        folder=artifact.folder,
        repo=repo,
        private=private,
        files=tuple(sorted(sizes, key=lambda entry: -entry[1])),
        license=card.license,
        results=len(card.eval_results),
        answers=len(kept),
        sends_answers=answers,
    )


def push_artifact(plan: PushPlan) -> str:
    """Create the repository where it is missing, upload in one commit; the commit's address.

    Raises HubError within seconds where there is no token or no network.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    from finetune.core.hub import hub_answers
    from finetune.core.libraries import connection_faults

    if get_token() is None:
        raise HubError("no token of the hub", next_step="hf auth login, or set HF_TOKEN")
    if not hub_answers():
        raise HubError(
            "the hub does not answer",
            received=constants.ENDPOINT,
            next_step="check the network, and that HF_HUB_OFFLINE is not set",
        )
    api = HfApi()
    try:
        made = api.create_repo(plan.repo, private=plan.private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=made.repo_id,
            folder_path=plan.folder,
            allow_patterns=[name for name, _ in plan.files],
            commit_message=f"Upload {plan.folder.name} with kotune",
        )
    except HfHubHTTPError as fault:
        raise HubError(
            "the hub refused",
            received=fault.server_message or str(fault).splitlines()[0],
            next_step="check the token's write access to the repository's owner",
        ) from fault
    except connection_faults() as fault:
        raise HubError("the connection broke off", received=fault, next_step="try again") from fault
    except ValueError as fault:  # the hub's own check of the card, told by its library
        raise HubError("the upload was refused", received=fault) from fault
    return commit.commit_url
