"""What the W&B servers of the tests share: a few lines of HTTP on the loopback."""

from __future__ import annotations

import gzip
import json
import threading
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "k" * 40  # W&B refuses shorter ones


class Loopback(ABC):
    """Hands each request to `handle` and answers with its JSON. `unknown`: what nobody knew."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self._awake = threading.Event()
        self._awake.set()
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                backend._awake.wait()
                sent = json.dumps(backend.handle(self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_PUT = do_POST = answer

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that hung up

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def hang(self) -> None:
        """From now on, accept connections and answer nothing."""
        self._awake.clear()

    def close(self) -> None:
        self._awake.set()
        self._server.shutdown()
        self._server.server_close()

    def handle(self, path: str, body: bytes) -> Any:
        """The answer to a request; here GraphQL only."""
        if not path.startswith("/graphql"):
            return {}
        asked = json.loads(body)
        return {"data": self.graphql(asked["query"], asked.get("variables") or {})}

    @abstractmethod
    def graphql(self, query: str, given: dict[str, Any]) -> Any:
        """The data that a query gets."""
