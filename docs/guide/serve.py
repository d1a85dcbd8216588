"""Answers images over HTTP: python serve.py runs/a 8000, and then curl --data-binary @photo.jpg localhost:8000"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import repertoire
from repertoire.errors import UnreadableImages

LARGEST = 20 * 2**20  # bytes of an image that is sent


def make_server(path: str, port: int = 8000, device: str = "auto") -> ThreadingHTTPServer:
    """A server that answers the bytes of an image with its classes, the most probable first; a thread a request."""
    run = repertoire.load(path, device=device)
    _ = run.model  # loaded before the first request waits for it

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 < length <= LARGEST:
                self.answer(413, {"error": f"send an image of at most {LARGEST} bytes"})
                return
            try:
                (row,) = run.predict(self.rfile.read(length), skip_unreadable=False)
            except UnreadableImages as error:
                self.answer(400, {"error": error.failures[0].reason})
                return
            best = sorted(zip(run.classes, row.tolist(), strict=True), key=lambda pair: -pair[1])
            self.answer(200, {"classes": [{"class": name, "probability": p} for name, p in best[:5]]})

        def answer(self, status: int, value: dict) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    make_server(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8000).serve_forever()
