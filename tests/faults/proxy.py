"""An HTTP proxy in front of an S3 server that breaks requests on demand."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit


class Fault(StrEnum):
    """Ways in which a request may fail."""

    UNAVAILABLE = "503"
    INTERNAL_ERROR = "500"
    RESET = "reset before the answer"
    TRUNCATED = "body cut off"
    STALLED = "body that stops half-way"
    SLOW = "body that trickles"


@dataclass
class Proxy:
    """Breaks the next `times` requests (-1: all) whose path matches `pattern`."""

    endpoint: str = ""
    fault: Fault = Fault.UNAVAILABLE
    pattern: str = "$nothing"
    times: int = 0
    seen: list[str] = field(default_factory=list)
    """The paths of all requests so far, including broken ones."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def break_requests(self, fault: Fault, pattern: str, times: int) -> None:
        """Break these requests from now on, and no others."""
        with self.lock:
            self.fault, self.pattern, self.times = fault, pattern, times
            self.seen.clear()

    def mend(self) -> None:
        """Break no more requests."""
        self.break_requests(Fault.UNAVAILABLE, "$nothing", 0)

    def fault_of(self, path: str) -> Fault | None:
        """The fault for this request; None to pass it on."""
        with self.lock:
            self.seen.append(path)
            if self.times == 0 or not re.search(self.pattern, path):
                return None
            self.times -= 1
            return self.fault


@contextmanager
def proxy_of(upstream: str) -> Iterator[Proxy]:
    """A proxy in front of the server at `upstream`; ends with the `with` block."""
    proxy = Proxy()
    handler = type("Handler", (_Handler,), {"proxy": proxy, "upstream": urlsplit(upstream).netloc})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[Proxy]
    upstream: ClassVar[str]

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.fault_of(self.path)
        if fault is Fault.RESET:
            # Linger 0: the peer sees a reset, not an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if fault in {Fault.UNAVAILABLE, Fault.INTERNAL_ERROR}:
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        connection.request(self.command, self.path, body=body or None, headers=dict(self.headers.items()))
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "content-length", "date", "server"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        connection.close()
        self._send(content, fault)

    def _send(self, content: bytes, fault: Fault | None) -> None:
        half = len(content) // 2
        if fault in {Fault.TRUNCATED, Fault.STALLED}:
            self.wfile.write(content[:half])
            self.wfile.flush()
            if fault is Fault.STALLED:
                time.sleep(1.5)
            self.close_connection = True
        elif fault is Fault.SLOW:
            for start in range(0, len(content), max(1, len(content) // 5)):
                self.wfile.write(content[start : start + max(1, len(content) // 5)])
                self.wfile.flush()
                time.sleep(0.1)
        else:
            self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

    def log_message(self, *_: object) -> None:
        """Log nothing."""
