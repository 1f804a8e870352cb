"""A small Hugging Face Hub on the loopback interface, for the real huggingface_hub client.

It keeps repositories in memory and speaks what creating, pushing, listing and pulling need:
commits with regular and LFS files, branches, private repositories, range requests. Faults can be
set: a download that is cut, a file whose content is damaged on the way.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_tester"
USER = "tester"
LFS_SUFFIXES = (".safetensors", ".png", ".bin")


@dataclass
class File:
    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repo:
    name: str
    private: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, File]) -> str:
        text = (
            f"{self.name}{branch}{len(self.commits)}{sorted((p, f.oid) for p, f in files.items())}"
        )
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = files
        self.refs[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


class HubServer(ThreadingHTTPServer):
    """The server and its state.

    Attributes:
        repos: By "owner/name".
        objects: LFS content by SHA-256.
        cuts: Bytes after which each of the next downloads is cut.
        reset: Cut by a TCP reset instead of an early end.
        damaged: Paths whose content arrives with a flipped byte.
        requests: "METHOD /path" of all requests, with the range if there is one.
        sent: Bytes of file content sent.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        # Large files lie on another host, as on the real Hub: tokens aren't sent there.
        self.cdn_url = self.url.replace("127.0.0.1", "localhost")
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.reset = False
        self.damaged: set[str] = set()
        self.requests: list[str] = []
        self.sent = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that the tests cut are no news."""

    def put(
        self, name: str, files: dict[str, bytes], branch: str = "main", private: bool = False
    ) -> str:
        """Commit files as a user of the web page would."""
        repo = self.repos.setdefault(name, Repo(name, private))
        before = repo.commits.get(repo.refs.get(branch, ""), {})
        new = {p: File(c, p.endswith(LFS_SUFFIXES)) for p, c in files.items()}
        self.objects.update({f.oid: f.content for f in new.values() if f.lfs})
        return repo.commit(branch, before | new)


@contextmanager
def running() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


KINDS = {
    "license": str,
    "license_name": str,
    "license_link": str,
    "base_model": str,
    "tags": list,
    "datasets": list,
    "metrics": list,
    "model-index": list,
}
ID = re.compile(r"[\w\-.]+(/[\w\-.]+)?")


def faults(values: dict[str, Any]) -> Iterator[str]:
    """What the Hub's documentation of model cards asks of their metadata, where it isn't so."""
    for key, kind in KINDS.items():
        if key in values and not isinstance(values[key], kind):
            yield f'"{key}" must be {kind.__name__}'
    if values.get("license") == "other":
        for key in ("license_name", "license_link"):
            if not values.get(key):
                yield f'"{key}" is needed for another licence'
        link = values.get("license_link", "")
        if link not in ("LICENSE", "LICENSE.md") and not link.startswith("https://"):
            yield '"license_link" must be LICENSE, LICENSE.md or an address'
    if "base_model" in values and not re.fullmatch(r"[\w\-.]+/[\w\-.]+", values["base_model"]):
        yield '"base_model" must be the id of a model'
    for model in values.get("model-index", []):
        for result in model["results"]:
            for key in ("task", "dataset", "metrics"):
                if key not in result:
                    yield f'"model-index[0].results[0].{key}" is needed'
    ids = [*values.get("datasets", [])]
    ids += [r["dataset"]["type"] for m in values.get("model-index", []) for r in m["results"]]
    for name in ids:
        if not ID.fullmatch(name):
            yield f'"datasets" holds {name!r}, which is no id'


ROUTES: list[tuple[str, re.Pattern[str], str]] = [
    ("POST", re.compile(r"/api/repos/create$"), "create"),
    ("POST", re.compile(r"/api/validate-yaml$"), "validate"),
    ("GET", re.compile(r"/api/whoami-v2$"), "whoami"),
    ("GET", re.compile(r"/api/models$"), "models"),
    ("POST", re.compile(r"/api/models/([^/]+/[^/]+)/preupload/(.+)$"), "preupload"),
    ("POST", re.compile(r"/api/models/([^/]+/[^/]+)/commit/(.+)$"), "commit"),
    ("POST", re.compile(r"/api/models/([^/]+/[^/]+)/branch/(.+)$"), "branch"),
    ("GET", re.compile(r"/api/models/([^/]+/[^/]+)/revision/(.+)$"), "info"),
    ("GET", re.compile(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)$"), "tree"),
    ("GET", re.compile(r"/api/models/([^/]+/[^/]+)$"), "info"),
    ("POST", re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch$"), "lfs_batch"),
    ("PUT", re.compile(r"/lfs/([0-9a-f]{64})$"), "lfs_put"),
    ("POST", re.compile(r"/lfs/([0-9a-f]{64})/verify$"), "lfs_verify"),
    ("HEAD", re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$"), "resolve"),
    ("GET", re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$"), "resolve"),
    ("GET", re.compile(r"/cdn/([0-9a-f]{64})/(.+)$"), "cdn"),
]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *args: Any) -> None:
        pass

    def _route(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.query = parse_qs(parts.query)
        extent = self.headers.get("Range")
        self.server.requests.append(f"{self.command} {path}" + (f" {extent}" if extent else ""))
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self._chunked()
        for method, pattern, name in ROUTES:
            found = pattern.match(path)
            if method == self.command and found:
                getattr(self, name)(*found.groups())
                return
        self._json({"error": f"no such page: {path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = _route

    def _chunked(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        given = {k.replace("_", "-"): v for k, v in headers.items()}
        self._send(
            status, json.dumps(value).encode(), {"Content-Type": "application/json", **given}
        )

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, name: str) -> Repo | None:
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and not self._known()):
            # Like the real Hub: whether it exists is nobody else's business.
            status = 404 if self._known() else 401
            self._json({"error": "Repository not found"}, status, X_Error_Code="RepoNotFound")
            return None
        return repo

    def _writable(self, name: str) -> Repo | None:
        if not self._known():
            self._json({"error": "Invalid username or password."}, 401)
            return None
        return self._repo(name)

    def _commit(self, repo: Repo, revision: str) -> str | None:
        sha = repo.resolve(revision)
        if sha is None:
            self._json({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
        return sha

    def whoami(self) -> None:
        if not self._known():
            return self._json({"error": "Invalid username or password."}, 401)
        return self._json({"type": "user", "name": USER, "orgs": []})

    def create(self) -> None:
        if not self._known():
            return self._json({"error": "Invalid username or password."}, 401)
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or USER}/{wanted['name']}"
        url = f"{self.server.url}/{name}"
        if name in self.server.repos:
            return self._json({"error": "You already created this model repo", "url": url}, 409)
        repo = Repo(name, wanted.get("visibility") == "private")
        repo.commit("main", {".gitattributes": File(b"*.safetensors filter=lfs\n", False)})
        self.server.repos[name] = repo
        return self._json({"url": url, "name": name, "id": name})

    def validate(self) -> None:
        import yaml

        try:
            head = json.loads(self.body)["content"].split("---\n")[1]
            values = yaml.safe_load(head)
        except (IndexError, yaml.YAMLError) as error:
            return self._json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        errors = [{"message": text} for text in faults(values)]
        return self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def models(self) -> None:
        wanted = set(self.query.get("filter", []))
        found = []
        for repo in self.server.repos.values():
            files = repo.commits[repo.refs["main"]]
            card = files["README.md"].content.decode() if "README.md" in files else ""
            tags = re.findall(r'^- "?([\w-]+)"?$', card, re.MULTILINE)
            if (not repo.private or self._known()) and wanted <= set(tags):
                about = {"id": repo.name, "modelId": repo.name, "tags": tags, "downloads": 3}
                found.append(
                    {**about, "private": repo.private, "likes": 1, "sha": repo.refs["main"]}
                )
        return self._json(found)

    def branch(self, name: str, branch: str) -> None:
        repo = self._writable(name)
        if repo is not None:
            if branch in repo.refs:
                return self._json({"error": "exists"}, 409)
            repo.refs[branch] = repo.refs["main"]
            self._json({})
        return None

    def preupload(self, name: str, revision: str) -> None:
        repo = self._writable(name)
        if repo is None or (sha := self._commit(repo, revision)) is None:
            return
        files, answers = repo.commits[sha], []
        for entry in json.loads(self.body)["files"]:
            path = entry["path"]
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            answer = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            if path in files:
                answer["oid"] = files[path].oid
            answers.append(answer)
        self._json({"files": answers})

    def lfs_batch(self, name: str) -> None:
        if self._writable(name) is None:
            return
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            answer = dict(wanted)
            if wanted["oid"] not in self.server.objects:
                place = f"{self.server.url}/lfs/{wanted['oid']}"
                answer["actions"] = {
                    "upload": {"href": place},
                    "verify": {"href": place + "/verify"},
                }
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._json({"error": "checksum"}, 400)
        self.server.objects[oid] = self.body
        return self._json({})

    def lfs_verify(self, oid: str) -> None:
        known = len(self.server.objects.get(oid, b"")) == json.loads(self.body)["size"]
        self._json({}, 200 if known else 404)

    def commit(self, name: str, revision: str) -> None:
        repo = self._writable(name)
        if repo is None or (sha := self._commit(repo, revision)) is None:
            return
        files = dict(repo.commits[sha])
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), False)
            elif entry["key"] == "lfsFile":
                files[value["path"]] = File(self.server.objects[value["oid"]], True)
            elif entry["key"] == "deletedFile":
                files.pop(value["path"])
        new = repo.commit(revision, files)
        url = f"{self.server.url}/{name}/commit/{new}"
        self._json({"success": True, "commitOid": new, "commitUrl": url, "hookOutput": ""})

    def info(self, name: str, revision: str = "main") -> None:
        repo = self._repo(name)
        if repo is None or (sha := self._commit(repo, revision)) is None:
            return
        siblings = []
        for path, file in repo.commits[sha].items():
            about: dict[str, Any] = {
                "rfilename": path,
                "size": len(file.content),
                "blobId": file.oid,
            }
            if file.lfs:
                about["lfs"] = {"sha256": file.oid, "size": len(file.content), "pointerSize": 130}
            siblings.append(about)
        about = {"id": name, "modelId": name, "sha": sha, "private": repo.private, "tags": []}
        self._json({**about, "siblings": siblings})

    def tree(self, name: str, revision: str) -> None:
        repo = self._repo(name)
        if repo is None or (sha := self._commit(repo, revision)) is None:
            return
        entries = []
        for path, file in repo.commits[sha].items():
            entry = {"type": "file", "path": path, "size": len(file.content), "oid": file.oid}
            if file.lfs:
                entry["lfs"] = {"oid": file.oid, "size": len(file.content), "pointerSize": 130}
            entries.append(entry)
        self._json(entries)

    def resolve(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name)
        if repo is None or (sha := self._commit(repo, revision)) is None:
            return None
        file = repo.commits[sha].get(path)
        if file is None:
            headers = {"X_Error_Code": "EntryNotFound", "X_Repo_Commit": sha}
            return self._json({"error": "Entry not found"}, 404, **headers)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{file.oid}"', "Accept-Ranges": "bytes"}
        if file.lfs:
            headers |= {
                "X-Linked-Etag": f'"{file.oid}"',
                "X-Linked-Size": str(len(file.content)),
                "Location": f"{self.server.cdn_url}/cdn/{file.oid}/{path}",
            }
            return self._send(302, b"", headers)
        if self.command == "HEAD":
            return self._send(200, b"", headers | {"Content-Length": str(len(file.content))})
        return self._content(file.content, path, headers)

    def cdn(self, oid: str, path: str) -> None:
        self._content(self.server.objects[oid], path, {"ETag": f'"{oid}"'})

    def _content(self, content: bytes, path: str, headers: dict[str, str]) -> None:
        if path in self.server.damaged:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        start, status = 0, 200
        extent = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if extent:
            start, status = int(extent[1]), 206
            headers = {
                **headers,
                "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
            }
        rest = content[start:]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(rest)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts and len(rest) > 4096 else None
        self.wfile.write(rest[:cut])
        self.server.sent += len(rest[:cut])
        if cut is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        self.wfile.flush()
        if self.server.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close() if self.server.reset else self.connection.shutdown(socket.SHUT_WR)
        self.close_connection = True
