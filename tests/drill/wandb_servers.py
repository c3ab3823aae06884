"""W&B servers that answer every request with an error, or accept it and say nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def server(kind: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """`fails` or `hangs`; gives its address, and how many requests it has had."""
    ended, asked = threading.Event(), []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            asked.append(self.path)
            if kind == "hangs":
                ended.wait()
                return
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_POST = answer

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that hung up

    found = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{found.server_port}", lambda: len(asked)
    finally:
        ended.set()
        found.shutdown()
        found.server_close()
        thread.join()
