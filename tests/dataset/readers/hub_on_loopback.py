"""A hub with one data set, me/pages, on a loopback port; then what the reader makes of it.

Run as a program, for the `datasets` library reads the address of the hub when it is imported.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0" * 40
ROWS = [{"id": i, "text": f"page {i}"} for i in range(3)]
FILES = {"README.md": b"# pages\n", "train.jsonl": "\n".join(map(json.dumps, ROWS)).encode()}


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/datasets/me/pages/resolve/"):
            self.file(path.rpartition("/")[2])
        elif path == f"/api/datasets/me/pages/tree/{REVISION}":
            entries = [
                {"type": "file", "oid": "1" * 40, "size": len(data), "path": name}
                for name, data in FILES.items()
            ]
            self.answer(200, json.dumps(entries).encode(), Content_Type="application/json")
        elif path.startswith("/api/datasets/me/pages/revision/"):
            info = {
                "id": "me/pages",
                "sha": REVISION,
                "siblings": [{"rfilename": name} for name in FILES],
            }
            self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
        else:
            known = path.startswith("/api/datasets/me/pages/")
            self.answer(404, X_Error_Code="EntryNotFound" if known else "RepoNotFound")

    do_HEAD = do_GET

    def file(self, name):
        if name not in FILES:
            self.answer(404, X_Error_Code="EntryNotFound")
            return
        data, headers = FILES[name], {"ETag": '"1"', "X_Repo_Commit": REVISION}
        if wanted := self.headers.get("Range"):
            first, last = wanted.partition("=")[2].split("-")
            part = data[int(first) : int(last) + 1]
            where = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
            self.answer(206, part, Content_Range=where, **headers)
        else:
            self.answer(200, data, **headers)


def outcome(**config):
    """The documents that a name gives, or what the user reads where there are none."""
    from retrieval_ft.config import DataConfig
    from retrieval_ft.dataset.readers import read_documents
    from retrieval_ft.errors import RetrievalFTError

    try:
        documents = list(read_documents(DataConfig(**config)).documents)
    except RetrievalFTError as error:
        return [str(error), error.exit_code]
    return [(d.id, d.text, d.where) for d in documents]


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
    asked = {
        "found": outcome(name="me/pages"),
        "split": outcome(name="me/pages", split="dev"),
        "subset": outcome(name="me/pages", subset="small"),
        "absent": outcome(name="me/nothing"),
    }
    json.dump(asked, sys.stdout)
