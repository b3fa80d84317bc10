"""A small HTTP server that answers every request in the same way, as an S3 store or a Ray head in trouble would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def answering(
    status: int | Callable[[str, str], int], body: str | Callable[[str], str] = "", ahead: timedelta = timedelta(0)
) -> Iterator[str]:
    """The URL of a server that sends `status` and `body`, with a Date that is `ahead` of this machine's clock.

    status: or a function of the method and the Authorization header. body: or a function of the path.
    """

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            authorization = self.headers.get("Authorization", "")
            self.send_response_only(status(self.command, authorization) if callable(status) else status)
            self.send_header("Date", format_datetime(datetime.now(UTC) + ahead, usegmt=True))
            content = b"" if self.command == "HEAD" else (body(self.path) if callable(body) else body).encode()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that were ended while they waited
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
