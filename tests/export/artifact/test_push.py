"""kotune push: the plan without a network, the upload to a hub on localhost, the refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import TOKEN, serve_hub

from export.artifact.push import HubError, plan_push
from finetune.core.errors import FolderError

PROGRAM = "import sys, kotune; sys.argv[0] = 'kotune'; kotune.main()"


def push(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """``kotune push`` in a process of its own: huggingface_hub reads its settings on import."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    kept["PYTHONPATH"] = str(Path(__file__).parents[3])
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "push", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**kept, "HF_TOKEN": TOKEN, **environment},
    )


def test_without_yes_nothing_is_sent(make_artifact):
    with serve_hub() as hub:
        done = push(make_artifact("lora", "roberta"), "someone/nsmc", HF_ENDPOINT=hub.address)
        assert hub.repositories == {} and hub.files == {}
    assert done.returncode == 0, done.stderr
    assert f"target {hub.address}/someone/nsmc, a public model repository" in done.stdout
    assert "onnx/model_quantized.onnx" in done.stdout and "manifest.json" in done.stdout
    assert "license unknown" in done.stdout and "nothing was sent" in done.stdout


def test_with_yes_every_file_arrives_and_no_other(make_artifact, tmp_path):
    folder = shutil.copytree(make_artifact("lora", "roberta"), tmp_path / "copy")
    (folder / "notes.txt").write_text("mine alone")
    with serve_hub() as hub:
        done = push(folder, "someone/nsmc", "--private", "--yes", HF_ENDPOINT=hub.address)
    assert done.returncode == 0, done.stderr
    assert hub.repositories["someone/nsmc"]["private"] is True
    sent = {"manifest.json", *json.loads((folder / "manifest.json").read_text())["sha256"]}
    owners = {name for name in sent if name.startswith("answers/")}
    assert owners
    sent -= owners  # rows of validation data go where they are asked for
    assert set(hub.files) == sent
    assert all(hub.files[name] == (folder / name).read_bytes() for name in sent)
    assert "pipeline_tag: text-classification" in hub.cards[0]
    assert done.stdout.splitlines()[-1].endswith("/someone/nsmc/commit/0123")


def test_what_the_hub_refuses_is_told_without_a_traceback(make_artifact):
    folder = make_artifact("lora", "roberta")
    with serve_hub() as hub:
        hub.refuse_card = '"license" must be one of a list'
        card = push(folder, "someone/nsmc", "--yes", HF_ENDPOINT=hub.address)
        other = push(
            folder, "someone/nsmc", "--yes", HF_ENDPOINT=hub.address, HF_TOKEN="hf_another"
        )
    assert (card.returncode, other.returncode) == (2, 2)
    assert "the upload was refused" in card.stderr and "must be one of a list" in card.stderr
    assert "Invalid credentials" in other.stderr and hub.files == {}
    assert "Traceback" not in card.stderr + other.stderr


def test_no_network_and_no_token_are_told_soon(make_artifact, tmp_path):
    folder = make_artifact("lora", "roberta")
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    alone = push(folder, "someone/nsmc", "--yes", **nobody)
    stranger = push(folder, "someone/nsmc", "--yes", **nobody, HF_TOKEN="", HF_HOME=str(tmp_path))
    assert "the hub does not answer" in alone.stderr and alone.returncode == 2
    assert "no token of the hub" in stranger.stderr and stranger.returncode == 2


def test_a_changed_a_failed_and_a_foreign_folder_are_not_pushed(make_artifact, tmp_path):
    folder = shutil.copytree(make_artifact("lora", "roberta"), tmp_path / "copy")
    (folder / "README.md").write_text("# mine")
    with pytest.raises(FolderError, match=r"README\.md was changed"):
        plan_push(folder, "someone/nsmc")
    with pytest.raises(HubError, match="OWNER/NAME"):
        plan_push(folder, "some one/nsmc")
    with pytest.raises(FolderError, match=r"no manifest\.json"):
        plan_push(tmp_path, "someone/nsmc")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]["README.md"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FolderError, match="not complete"):
        plan_push(folder, "someone/nsmc")
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "failed"}))
    with pytest.raises(FolderError, match="failed its export checks"):
        plan_push(folder, "someone/nsmc")
