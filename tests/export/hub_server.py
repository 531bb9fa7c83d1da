"""A small model hub on localhost: the endpoints that huggingface_hub's upload speaks to."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_localhost"


@dataclass
class Hub:
    """What was received; ``files`` maps names in the repository to their bytes."""

    address: str = ""
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # git-lfs, by SHA-256
    cards: list[str] = field(default_factory=list)
    refuse_card: str | None = None


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub on a free port, gone afterwards."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        content = self._body()
        oid = hashlib.sha256(content).hexdigest()
        assert self.path == f"/lfs/{oid}"
        self.hub.objects[oid] = content
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid credentials in Authorization header"}, 401)
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self._validate(json.loads(body))
        elif self.path.endswith("/preupload/main"):
            self._preupload(json.loads(body))
        elif self.path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif self.path.endswith("/commit/main"):
            self._commit(body.decode())
        else:
            self._answer({"error": f"unknown {self.path}"}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        owner = asked.get("organization", "someone")
        name = f"{owner}/{asked['name']}"
        self.hub.repositories[name] = asked
        self._answer({"url": f"{self.hub.address}/{name}", "name": name})

    def _validate(self, asked: dict[str, Any]) -> None:
        self.hub.cards.append(asked["content"])
        told = self.hub.refuse_card
        errors = [{"message": told}] if told else []
        self._answer({"errors": errors, "warnings": []}, 400 if told else 200)

    def _preupload(self, asked: dict[str, Any]) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".onnx") else "regular",
                "shouldIgnore": False,
            }
            for file in asked["files"]
        ]
        self._answer({"files": files})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}}}
            for one in asked["objects"]
        ]
        self._answer({"transfer": "basic", "objects": objects})

    def _commit(self, lines: str) -> None:
        for entry in map(json.loads, lines.splitlines()):
            value = entry["value"]
            if entry["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.hub.files[value["path"]] = self.hub.objects[value["oid"]]
        repository = self.path.removeprefix("/api/models/").removesuffix("/commit/main")
        address = f"{self.hub.address}/{repository}/commit/0123"
        self._answer({"commitUrl": address, "commitOid": "0123", "success": True})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Nothing on the terminal."""
