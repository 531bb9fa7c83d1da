"""The artifact in a page: transformers.js in headless Chromium, served from localhost."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chromium import Page, find_chromium, open_browser

from export.runtime.classifier import OnnxClassifier

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "browser"
REVIEW = "최고 감동 명작 추천 영화"

pytestmark = [
    pytest.mark.skipif(
        find_chromium() is None, reason="chromium is not installed: apt-get install chromium"
    ),
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_browser() as opened:
        yield opened


@contextmanager
def served(artifact: Path, packages: Path) -> Iterator[str]:
    """The address of the example's own server."""
    command = [sys.executable, EXAMPLE / "serve.py", artifact, "--port", "0"]
    server = subprocess.Popen([*command, "--packages", packages], stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), "serve.py did not start"
        yield address
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def wait_for(page: Page, state: str) -> None:
    """Until the page says so; fails with the page's own words on an error."""
    deadline = time.monotonic() + 120
    while (found := page.ask("document.body.dataset.state")) != state:
        status = page.ask("document.getElementById('status').textContent")
        assert found != "error" and time.monotonic() < deadline, (found, status, page.problems)
        time.sleep(0.1)


def read_answer(page: Page) -> tuple[str, float]:
    wait_for(page, "done")
    label = "document.getElementById('label')"
    return page.ask(f"{label}.textContent"), float(page.ask(f"{label}.dataset.score"))


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_a_typed_review_gets_pythons_label_and_score(
    make_artifact: Callable[[str, str], Path], packages: Path, page: Page, kind: str
) -> None:
    folder = make_artifact("lora", kind)
    with served(folder, packages) as address:
        page.local += (address,)
        page.problems.clear()
        page.open(address, width=390)  # a phone's
        wait_for(page, "ready")
        page.ask("document.getElementById('text').focus()")
        page.call("Input.insertText", text=REVIEW)
        answers = {"int8": read_answer(page)}
        page.ask(
            "(() => { const choice = document.getElementById('precision');"
            "choice.value = 'onnx/model.onnx'; document.body.dataset.state = 'asked';"
            "choice.dispatchEvent(new Event('change')); })()"
        )
        answers["fp32"] = read_answer(page)
        assert page.ask("document.documentElement.scrollWidth") <= 390
    assert page.problems == []  # nothing fetched from elsewhere, nothing on the console
    for precision, (label, score) in answers.items():
        (expected,) = OnnxClassifier(folder, precision)(REVIEW)
        assert label == expected["label"], precision
        assert score == pytest.approx(expected["score"], abs=1e-2), precision


def test_the_copied_site_is_whole(make_artifact, packages: Path, tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLE / "serve.py", make_artifact("lora", "roberta")]
    subprocess.run([*command, "--packages", packages, "--copy", tmp_path / "site"], check=True)
    copied = {str(path.relative_to(tmp_path / "site")) for path in tmp_path.rglob("*.*")}
    assert {"index.html", "app.js", "vendor/ort.wasm.bundle.min.mjs", "model/config.json"} <= copied
    refused = subprocess.run(
        [sys.executable, EXAMPLE / "serve.py", tmp_path], capture_output=True, text=True
    )
    assert refused.returncode == 1 and "no artifact folder" in refused.stderr
