"""A TCP gate in front of a server: while it is shut, new connections are refused and open ones are broken."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress


class Gate:
    """Forwards connections from a fixed port of its own to `upstream`, a port of this machine."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._door: socket.socket | None = None
        self.port = 0
        self.open()

    def open(self) -> None:
        """Let connections in; does nothing if the gate is open."""
        if self._door is None:
            self._door = socket.create_server(("127.0.0.1", self.port), backlog=64)
            self.port = self._door.getsockname()[1]
            threading.Thread(target=self._let_in, args=(self._door,), daemon=True).start()

    def shut(self) -> None:
        """Refuse connections from now on, and break those that are open."""
        if self._door is not None:
            with suppress(OSError):
                self._door.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
            self._door.close()
            self._door = None
        with self._lock:
            broken, self._open = self._open, set()
        for each in broken:
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)

    def _let_in(self, door: socket.socket) -> None:
        while True:
            try:
                inside, _ = door.accept()
            except OSError:
                return
            try:
                outside = socket.create_connection(("127.0.0.1", self._upstream))
            except OSError:
                inside.close()
                continue
            with self._lock:
                self._open |= {inside, outside}
            for source, target in ((inside, outside), (outside, inside)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(1 << 16):
                target.sendall(content)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        with self._lock:
            if source not in self._open:
                return
            self._open.discard(source)
            last = target not in self._open
        if last:
            source.close()
            target.close()
