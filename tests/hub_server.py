"""A stand-in for the Hugging Face Hub on this machine: it keeps the files that are pushed, and serves them."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COMMIT = "0" * 39 + "1"


class Hub(ThreadingHTTPServer):
    """Repositories in memory.

    Attributes:
        files: content by repository and name.
        sizes: sizes to claim in place of the true ones, by repository and name.
        private: whether each repository was made to be private.
        asked: method, path and token of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.sizes: dict[tuple[str, str], int] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub() -> Iterator[Hub]:
    """A server that runs until the end of the `with` block."""
    with Hub() as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """The few requests of the Hub that a push and a download make."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Logs nothing."""

    def do_HEAD(self) -> None:
        self._resolve(body=False)

    def do_GET(self) -> None:
        if "/resolve/" in self.path:
            self._resolve(body=True)
        elif self.path.startswith("/api/models/"):
            repo = "/".join(self.path.split("/")[3:5])
            known = {"id": repo, "sha": COMMIT, "siblings": [], "private": self.server.private.get(repo, False)}
            self._answer(known if repo in self.server.files else None)
        else:
            self._answer(None)

    def do_POST(self) -> None:
        data = self._read()
        parts = self.path.partition("?")[0].split("/")
        if self.path == "/api/repos/create":
            said = json.loads(data)
            repo = f"{said['organization']}/{said['name']}"
            self.server.files.setdefault(repo, {})
            self.server.private.setdefault(repo, said.get("visibility") == "private" or bool(said.get("private")))
            self._answer({"url": f"{self.server.address}/{repo}", "name": repo})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif parts[-2:] == ["preupload", "main"]:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(data)["files"]
            ]
            self._answer({"files": files})
        elif parts[-2:] == ["commit", "main"]:
            self._commit("/".join(parts[3:5]), data)
        else:
            self._answer(None)

    def _commit(self, repo: str, data: bytes) -> None:
        for line in map(json.loads, data.splitlines()):
            if line["key"] == "file":
                assert line["value"]["encoding"] == "base64"
                self.server.files[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self._answer({"commitUrl": f"{self.server.address}/{repo}/commit/{COMMIT}", "commitOid": COMMIT})

    def _resolve(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        repo, _, rest = path[1:].partition("/resolve/")
        name = rest.partition("/")[2]
        data = self.server.files.get(repo, {}).get(name)
        if data is None:
            self._answer(None, "EntryNotFound" if repo in self.server.files else "RepoNotFound", body)
            return
        self._asked()
        self.send_response(200)
        self.send_header("ETag", f'"{hash(data) & 0xFFFFFFFF:08x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(self.server.sizes.get((repo, name), len(data))))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _asked(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))

    def _answer(self, said: Any, error: str = "EntryNotFound", body: bool = True) -> None:
        self._asked()
        data = json.dumps(said if said is not None else {"error": error}).encode()
        self.send_response(404 if said is None else 200)
        if said is None:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)
