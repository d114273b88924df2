"""A Hugging Face Hub on loopback: the part of its HTTP API with which `huggingface_hub` pushes and loads models, and
`datasets` loads data sets.

Repositories live in memory, as lists of commits on one branch; those of data sets are called `datasets/…`. What decides
how clients behave is as on the Hub: large and binary files go through LFS to a store on another host, `resolve` answers
with the ETag and the commit, a private repository is not found without a token, of a gated one everybody sees what
there is and only users with a token get files, and an unknown token is refused wherever it is shown. Xet is not
offered.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

USER, TOKEN = "tester", "hf_token_of_the_tester"
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".png")


class Refused(Exception):
    """An answer other than 200; `code` is the Hub's X-Error-Code."""

    def __init__(self, status, message, code=None, body=None):
        super().__init__(message)
        self.status, self.code, self.body = status, code, body or {"error": message}


@dataclass
class File:
    content: bytes
    lfs: bool

    @property
    def oid(self):
        """What git and the ETag name it by: its SHA-256 in LFS, else the SHA-1 of the blob."""
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Commit:
    sha: str
    message: str
    files: dict[str, File]


@dataclass
class Repository:
    private: bool
    commits: list[Commit] = field(default_factory=list)
    gated: bool = False

    def add(self, message, files):
        sha = hashlib.sha1(f"{id(self)} {len(self.commits)} {message}".encode()).hexdigest()
        self.commits.append(Commit(sha, message, files))
        return self.commits[-1]

    @property
    def files(self):
        """Contents by path, on the main branch."""
        return {path: file.content for path, file in self.commits[-1].files.items()}

    @property
    def messages(self):
        return [commit.message for commit in self.commits]


class HubServer(ThreadingHTTPServer):
    """Use as `with hub_server() as hub`.

    Attributes:
        endpoint: for `HF_ENDPOINT`.
        repositories: by name, such as `tester/model`.
        cut_uploads: how many of the next LFS uploads are cut in the middle.
        requests: `"METHOD path"` of every request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.lfs: dict[str, bytes] = {}
        self.cut_uploads = 0
        self.requests: list[str] = []

    def add_dataset(self, name, *commits, private=False, gated=False):
        """A data set repository of these commits, each a mapping from path to content; their SHA-1s."""
        repository = self.repositories[f"datasets/{name}"] = Repository(private, gated=gated)
        for number, contents in enumerate(commits):
            files = {path: File(content, lfs=path.endswith(".parquet")) for path, content in contents.items()}
            self.lfs |= {file.oid: file.content for file in files.values() if file.lfs}
            repository.add(f"commit {number}", files)
        return [commit.sha for commit in repository.commits]

    def handle_error(self, request, client_address):
        pass  # clients that hang up


@contextmanager
def hub_server():
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def metadata_errors(content):
    """What the Hub finds wrong with the metadata of a model card, the part that is checked without its lists."""
    block = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", content, re.DOTALL)
    if block is None:
        return []
    try:
        data = yaml.safe_load(block[1])
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    repo_id = re.compile(r"[\w.-]+(/[\w.-]+)?")
    errors = []
    for name in ("license", "pipeline_tag", "library_name"):
        if name in data and not re.fullmatch(r"[a-z0-9.-]+", str(data[name])):
            errors.append(f'"{name}" must be an identifier, found {data[name]!r}')
    for name in ("base_model", "datasets"):
        values = data.get(name, [])
        for value in [values] if isinstance(values, str) else values:
            if not repo_id.fullmatch(value):
                errors.append(f'"{name}" with value {value!r} is not valid. Use a model id from https://hf.co/models.')
    for name in ("tags", "datasets", "metrics"):
        if name in data and not (isinstance(data[name], list) and all(isinstance(v, str) for v in data[name])):
            errors.append(f'"{name}" must be an array of strings')
    for model in data.get("model-index", []):
        for result in model.get("results", [None]):
            if not result or not {"task", "dataset", "metrics"} <= set(result):
                errors.append('"model-index[0].results[0]" must have task, dataset and metrics')
            elif not {"name", "type"} <= set(result["dataset"]) or "type" not in result["task"]:
                errors.append('"model-index[0].results[0]": dataset needs name and type, task needs type')
            elif any(not {"type", "value"} <= set(metric) for metric in result["metrics"]):
                errors.append('"model-index[0].results[0].metrics" need type and value')
        if not model.get("name"):
            errors.append('"model-index[0].name" is required')
    return errors


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.query = parse_qs(urlsplit(self.path).query)
        self.path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {self.path}")
        length = int(self.headers.get("Content-Length") or 0)
        if self.command == "PUT" and self.server.cut_uploads:
            self.server.cut_uploads -= 1
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        self.body = self.rfile.read(length)
        try:
            for methods, pattern, handler in ROUTES:
                if self.command in methods.split() and (match := re.fullmatch(pattern, self.path)):
                    # The store behind a signed address knows no tokens.
                    self.user = None if handler in (Handler.upload, Handler.download) else self.authenticate()
                    handler(self, *match.groups())
                    return
            raise Refused(404, f"The test Hub has no {self.command} {self.path}.")
        except Refused as refused:
            headers = {"X-Error-Message": str(refused)} | ({"X-Error-Code": refused.code} if refused.code else {})
            self.reply(refused.body, refused.status, headers)

    do_HEAD = do_POST = do_PUT = do_GET

    def reply(self, content=b"", status=200, headers=None):
        if not isinstance(content, bytes):
            content, headers = json.dumps(content).encode(), {"Content-Type": "application/json"} | (headers or {})
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def authenticate(self):
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token != TOKEN:
            raise Refused(401, "Invalid credentials in Authorization header")
        return USER if token else None

    def repository(self, repo_id):
        repository = self.server.repositories.get(repo_id)
        if repository is None or (repository.private and self.user is None):
            # The Hub tells strangers nothing: 401 for what is private and for what does not exist.
            raise Refused(401 if self.user is None else 404, "Repository not found", "RepoNotFound")
        return repository

    def writable(self, repo_id):
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        return self.repository(repo_id)

    def commit_of(self, repo_id, revision):
        repository = self.repository(repo_id)
        for commit in repository.commits:
            if commit.sha.startswith(revision) and len(revision) >= 7:
                return commit
        if revision != "main":
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository.commits[-1]

    # ---- the API ----

    def whoami(self):
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        self.reply({"type": "user", "name": USER, "auth": {"accessToken": {"role": "write"}}, "orgs": []})

    def create(self):
        request = json.loads(self.body)
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        owner = request.get("organization") or USER
        if owner != USER:
            raise Refused(403, f"You don't have the rights to create a model under the namespace {owner!r}")
        repo_id = f"{owner}/{request['name']}"
        url = {"url": f"{self.server.endpoint}/{repo_id}", "name": repo_id}
        if repo_id in self.server.repositories:
            raise Refused(409, "You already created this model repo", body=url | {"error": "exists"})
        private = request.get("visibility") == "private" or bool(request.get("private"))
        repository = self.server.repositories[repo_id] = Repository(private)
        repository.add("initial commit", {".gitattributes": File(b"*.safetensors filter=lfs\n", lfs=False)})
        self.reply(url)

    def validate_yaml(self):
        errors = metadata_errors(json.loads(self.body)["content"])
        self.reply({"errors": [{"message": error} for error in errors], "warnings": []}, 400 if errors else 200)

    def preupload(self, repo_id, revision):
        self.writable(repo_id)
        present = self.commit_of(repo_id, revision).files
        modes = []
        for file in json.loads(self.body)["files"]:
            path, known = file["path"], present.get(file["path"])
            mode = "lfs" if path.endswith(LFS_SUFFIXES) or file["size"] > 10 * 2**20 else "regular"
            modes.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known.oid if known else None})
        self.reply({"files": modes})

    def lfs_batch(self, repo_id):
        self.writable(repo_id)
        objects = []
        for item in json.loads(self.body)["objects"]:
            if item["oid"] not in self.server.lfs:
                item["actions"] = {"upload": {"href": f"{self.server.endpoint}/store/{item['oid']}"}}
            objects.append(item)
        self.reply({"transfer": "basic", "objects": objects})

    def upload(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "The content does not have this SHA-256")
        self.server.lfs[oid] = self.body
        self.reply()

    def commit(self, repo_id, revision):
        repository = self.writable(repo_id)
        files = dict(self.commit_of(repo_id, revision).files)
        lines = [json.loads(line) for line in self.body.splitlines()]
        message = ""
        for key, value in ((line["key"], line["value"]) for line in lines):
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile":
                if value["oid"] not in self.server.lfs:
                    raise Refused(400, f"LFS pointer of {value['path']} points to a file that was not uploaded")
                files[value["path"]] = File(self.server.lfs[value["oid"]], lfs=True)
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise Refused(400, f"The test Hub has no commit operation {key!r}")
        sha = repository.add(message, files).sha
        self.reply({"commitUrl": f"{self.server.endpoint}/{repo_id}/commit/{sha}", "commitOid": sha})

    def model_info(self, repo_id, revision="main"):
        commit = self.commit_of(repo_id, revision or "main")
        card = commit.files.get("README.md")
        data = yaml.safe_load(card.content.decode().split("---")[1]) if card else {}
        tags = list(data.get("tags", [])) + ([f"license:{data['license']}"] if "license" in data else [])
        self.reply(
            {
                "id": repo_id,
                "modelId": repo_id,
                "sha": commit.sha,
                "private": self.server.repositories[repo_id].private,
                "tags": tags,
                "pipeline_tag": data.get("pipeline_tag"),
                "library_name": data.get("library_name"),
                "cardData": data,
                "siblings": [{"rfilename": path} for path in commit.files],
            }
        )

    def dataset_info(self, repo_id, revision="main"):
        commit = self.commit_of(repo_id, revision or "main")
        repository = self.server.repositories[repo_id]
        self.reply(
            {
                "id": repo_id.removeprefix("datasets/"),
                "sha": commit.sha,
                "private": repository.private,
                "gated": "auto" if repository.gated else False,
                "tags": [],
                "siblings": [{"rfilename": path} for path in commit.files],
            }
        )

    def paths_info(self, repo_id, revision):
        files = self.commit_of(repo_id, revision).files
        form = parse_qs(self.body.decode())
        self.reply([entry(path, files[path]) for path in form.get("paths", []) if path in files])

    def tree(self, repo_id, revision, folder=""):
        files = self.commit_of(repo_id, revision).files
        prefix = f"{folder.strip('/')}/" if folder else ""
        entries = [entry(path, file) for path, file in files.items() if path.startswith(prefix)]
        if repo_id.startswith("datasets/") and self.query.get("recursive") != ["true"]:
            inner = {path.removeprefix(prefix).partition("/")[0] for path in files if path.startswith(prefix)}
            folders = sorted(name for name in inner if prefix + name not in files)
            entries = [found for found in entries if "/" not in found["path"].removeprefix(prefix)]
            entries += [{"type": "directory", "path": prefix + name, "size": 0, "oid": "0" * 40} for name in folders]
        if folder and not entries:
            raise Refused(404, f"{folder} does not exist on {revision!r}", "EntryNotFound")
        self.reply(entries)

    def resolve(self, repo_id, revision, path):
        commit = self.commit_of(repo_id, revision)
        if self.server.repositories[repo_id].gated and self.user is None:
            raise Refused(401, f"Access to {repo_id} is restricted. You must be authenticated.", "GatedRepo")
        if path not in commit.files:
            raise Refused(404, f"Entry not found: {path}", "EntryNotFound")
        file = commit.files[path]
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{file.oid}"'}
        if not file.lfs:
            self.reply(file.content, headers=headers)
            return
        headers["X-Linked-Etag"] = headers["ETag"]
        headers["X-Linked-Size"] = str(len(file.content))
        # On another host, as the Hub's store is: clients do not follow the redirect of a HEAD there.
        headers["Location"] = f"http://localhost:{self.server.server_port}/store/{file.oid}"
        self.reply(b"", 302, headers)

    def download(self, oid):
        self.reply(self.server.lfs[oid], headers={"ETag": f'"{oid}"'})


def entry(path, file):
    """A file as the API lists it."""
    size = len(file.content)
    lfs = {"lfs": {"oid": file.oid, "size": size, "pointerSize": 134}} if file.lfs else {}
    return {"type": "file", "path": path, "size": size, "oid": file.oid} | lfs


REPO = r"([\w.-]+/[\w.-]+)"
DATASET = r"(datasets/[\w.-]+/[\w.-]+)"
ROUTES = [
    ("HEAD", "/", Handler.reply),
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("POST", f"/api/models/{REPO}/preupload/([^/]+)", Handler.preupload),
    ("POST", f"/{REPO}\\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", "/store/([0-9a-f]+)", Handler.upload),
    ("HEAD GET", "/store/([0-9a-f]+)", Handler.download),
    ("POST", f"/api/models/{REPO}/commit/([^/]+)", Handler.commit),
    ("GET", f"/api/models/{REPO}", Handler.model_info),
    ("GET", f"/api/models/{REPO}/revision/([^/]+)", Handler.model_info),
    ("GET", f"/api/models/{REPO}/tree/([^/]+)(/.+)?", Handler.tree),
    ("HEAD GET", f"/{REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("GET", f"/api/{DATASET}", Handler.dataset_info),
    ("GET", f"/api/{DATASET}/revision/([^/]+)", Handler.dataset_info),
    ("GET", f"/api/{DATASET}/tree/([^/]+)(/.+)?", Handler.tree),
    ("POST", f"/api/{DATASET}/paths-info/([^/]+)", Handler.paths_info),
    ("HEAD GET", f"/{DATASET}/resolve/([^/]+)/(.+)", Handler.resolve),
]
