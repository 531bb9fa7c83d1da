"""Serve the page with an artifact, or copy both into one folder for any static host.

    python serve.py ARTIFACT                  # http://localhost:8000
    python serve.py ARTIFACT --host 0.0.0.0   # for the phone on the same network
    python serve.py ARTIFACT --copy SITE      # a folder to upload

Standard library only. ``npm ci`` in this folder comes first: it fetches transformers.js.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).resolve().parent
PAGE = ("index.html", "app.js", "prepare.js", "style.css")
VENDOR = {  # what the page needs of the npm packages
    "vendor/transformers.web.min.js": "@huggingface/transformers/dist/transformers.web.min.js",
    "vendor/ort.wasm.bundle.min.mjs": "onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
    "vendor/ort-wasm-simd-threaded.wasm": "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
}
TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}
ISOLATION = {  # a page needs both for threads in WebAssembly
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


def site_files(artifact: Path, packages: Path) -> dict[str, Path]:
    """Address → file of the whole site; raises SystemExit naming what is missing."""
    if not (artifact / "manifest.json").is_file():
        sys.exit(f"{artifact} is no artifact folder: kotune export RUN makes one")
    files = {name: HERE / name for name in PAGE}
    files |= {address: packages / path for address, path in VENDOR.items()}
    missing = [path for path in files.values() if not path.is_file()]
    if missing:
        sys.exit(f"{missing[0]} is missing; in {HERE}: npm ci")
    for path in sorted(artifact.rglob("*")):
        if path.is_file() and path.suffix != ".py":
            files[f"model/{path.relative_to(artifact).as_posix()}"] = path
    return files


def copy_site(files: dict[str, Path], target: Path) -> None:
    """Copy every file to its address under ``target``."""
    for address, path in files.items():
        (target / address).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / address)


def make_handler(files: dict[str, Path]) -> type[SimpleHTTPRequestHandler]:
    """A handler that knows these files and no others."""

    class Handler(SimpleHTTPRequestHandler):
        extensions_map: ClassVar = {**SimpleHTTPRequestHandler.extensions_map, **TYPES}

        def translate_path(self, path: str) -> str:
            address = unquote(urlsplit(path).path).lstrip("/") or "index.html"
            return str(files.get(address, HERE / "no such file"))

        def end_headers(self) -> None:
            for name, value in {**ISOLATION, "Cache-Control": "no-cache"}.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, form: str, *values: object) -> None:
            if not str(values[1] if len(values) > 1 else "").startswith(("2", "3")):
                super().log_message(form, *values)

    return Handler


def main() -> None:
    """Read the command line; serve until interrupted, or copy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path, help="an artifact folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--copy", type=Path, help="write the site to this folder instead")
    parser.add_argument("--packages", type=Path, default=HERE / "node_modules")
    options = parser.parse_args()
    files = site_files(options.artifact, options.packages)
    if options.copy is not None:
        copy_site(files, options.copy)
        print(options.copy)
        return
    server = ThreadingHTTPServer((options.host, options.port), make_handler(files))
    print(f"http://{options.host}:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
