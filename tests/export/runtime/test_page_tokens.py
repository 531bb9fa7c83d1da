"""The browser page's tokens are the runtime's: prepared, cut on the side of training, whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from export.runtime.manifest import read_manifest
from export.runtime.texts import open_encoder

EXAMPLE = Path(__file__).parents[3] / "examples" / "browser"
TEXTS = [
    "영화 정말 재미있다",
    "",
    unicodedata.normalize("NFD", "최고 감동 명작"),
    "두  칸\n줄\u00a0바꿈\x1c끝 ",
    "\ufeff" + "최고 " * 60 + "별로",
    "별로 " * 60 + "최고 감동",
    "</s> 앞 [SEP] 뒤 <pad>",
]
PROGRAM = """
import { readFileSync } from 'node:fs';
import { Tokenizer } from '@huggingface/tokenizers';
import { encode, readPreparation } from './prepare.mjs';
const read = (name) => JSON.parse(readFileSync(name, 'utf8'));
const [folder, texts] = [process.argv[2], read('texts.json')];
const manifest = read(`${folder}/manifest.json`);
const tokenizer = new Tokenizer(
  read(`${folder}/tokenizer.json`), read(`${folder}/tokenizer_config.json`));
const how = readPreparation(manifest);
console.log(JSON.stringify(texts.map((text) => encode(tokenizer, text, how, manifest))));
"""

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")


@pytest.mark.parametrize("kind", ["bytes", "roberta"])
def test_a_page_reads_the_tokens_that_python_reads(
    make_artifact: Callable[[str, str], Path], packages: Path, tmp_path: Path, kind: str
) -> None:
    folder = make_artifact("lora", kind)
    (tmp_path / "node_modules").symlink_to(packages)
    shutil.copyfile(EXAMPLE / "prepare.js", tmp_path / "prepare.mjs")
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    (tmp_path / "main.mjs").write_text(PROGRAM)
    command = ["node", "main.mjs", str(folder)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == open_encoder(folder, read_manifest(folder))(TEXTS)
