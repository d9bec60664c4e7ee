"""Clients by the thousand, in one thread: each sends what it has, reads or does not, and hangs or leaves."""

import collections
import errno
import heapq
import itertools
import select
import socket
import time
from collections.abc import Callable, Iterable

from .http2 import Frames

READ = 65536


class Client:
    """One connection of an attacker.

    `source` is its address; `reads` whether it reads what comes; `window` the size of its receive buffer in bytes; `leaves`
    how many seconds after it has sent everything, or after it got `answers` responses, it is gone (None: it hangs until
    it is told to end); `drip` is sent again and again, a piece each `every` seconds; `answers` how many responses it waits
    for (0: none). One of `http2` sends `payload`, and `then` once the server has said its windows.
    """

    __slots__ = ("payload", "sent", "source", "reads", "window", "leaves", "drip", "every", "answers", "frames", "socket", "heads", "reset", "over", "then")

    def __init__(self, payload: bytes, source: str | None = None, reads: bool = True, window: int | None = None, leaves: float | None = None, drip: bytes = b"", every: float = 0.25, answers: int = 0, http2: bool = False, reset: bool = False, then: bytes = b"") -> None:
        self.payload, self.sent = payload, 0
        self.source, self.reads, self.window = source, reads, window
        self.leaves, self.drip, self.every, self.answers, self.reset, self.then = leaves, drip, every, answers, reset, then
        self.frames = Frames() if http2 else None
        self.socket: socket.socket  # once it is opened
        self.heads, self.over = 0, False


class Crowd:
    """All clients of an attack against one port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.poll = select.epoll()
        self.clients: dict[int, Client] = {}
        self.due: list[tuple[float, int, Client, str]] = []  # (time, number, client, what)
        self.number = itertools.count()
        self.counts: collections.Counter[str] = collections.Counter()

    def __len__(self) -> int:
        return len(self.clients)

    def open(self, client: Client) -> None:
        s = client.socket = socket.socket()
        s.setblocking(False)
        if client.window:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, client.window)
        if client.source:
            s.bind((client.source, 0))
        failed = s.connect_ex(("127.0.0.1", self.port))
        if failed not in (0, errno.EINPROGRESS):
            self.counts[f"connect: {errno.errorcode.get(failed, failed)}"] += 1
            s.close()
            return
        self.clients[s.fileno()] = client
        self.poll.register(s.fileno(), select.EPOLLOUT | select.EPOLLIN * client.reads)
        self.counts["opened"] += 1

    def close(self, client: Client, why: str) -> None:
        if client.over:
            return
        client.over = True
        number = client.socket.fileno()
        self.poll.unregister(number)
        del self.clients[number]
        if client.reset:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.socket.close()
        self.counts[why] += 1

    def later(self, seconds: float, client: Client, what: str) -> None:
        heapq.heappush(self.due, (time.monotonic() + seconds, next(self.number), client, what))

    def step(self, wait: float) -> None:
        """Does what can be done, or waits so many seconds at most."""
        if self.due:
            wait = min(wait, max(0, self.due[0][0] - time.monotonic()))
        for number, events in self.poll.poll(wait, 512):
            client = self.clients.get(number)
            if client is None:
                continue
            try:
                if events & select.EPOLLIN and client.reads:
                    self.read(client)
                if events & select.EPOLLOUT and not client.over:
                    self.write(client)
                elif events & (select.EPOLLHUP | select.EPOLLERR) and not client.over:
                    self.close(client, "closed by the server")
            except OSError:
                self.close(client, "reset by the server")
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            _, _, client, what = heapq.heappop(self.due)
            if client.over:
                continue
            if what == "leave":
                self.close(client, "left")
            else:
                client.payload, client.sent = client.drip, 0
                self.watch(client, True)

    def watch(self, client: Client, writing: bool) -> None:
        self.poll.modify(client.socket.fileno(), select.EPOLLIN * client.reads | select.EPOLLOUT * writing)

    def write(self, client: Client) -> None:
        while client.sent < len(client.payload):
            try:
                client.sent += client.socket.send(memoryview(client.payload)[client.sent :])
            except BlockingIOError:
                return
        self.watch(client, False)
        if client.drip:
            self.later(client.every, client, "drip")
        if client.leaves is not None and not client.answers and not client.then:
            self.later(client.leaves, client, "leave")

    def read(self, client: Client) -> None:
        try:
            data = client.socket.recv(READ)
        except BlockingIOError:
            return
        if not data:
            self.close(client, "closed by the server")
            return
        if client.frames:
            before = client.frames.heads
            out = client.frames.feed(data)
            client.heads = client.frames.ended
            self.counts["responses"] += client.frames.heads - before
            if client.then and client.frames.ready:
                self.counts["began HTTP/2"] += 1
                out, client.then = out + client.then, b""
            if out:
                if client.sent >= len(client.payload):
                    client.payload, client.sent = out, 0
                else:
                    client.payload = bytes(memoryview(client.payload)[client.sent :]) + out
                    client.sent = 0
                self.watch(client, True)
        else:
            # Content of the apps here has no such line.
            found = data.count(b"HTTP/1.1 ")
            client.heads += found
            if found:
                self.counts["responses"] += found
                self.counts[data[9:12].decode("latin-1") if data.startswith(b"HTTP/1.1 ") else "others"] += found
        if client.answers and client.heads >= client.answers:
            client.answers = 0
            if client.leaves is not None:
                self.later(client.leaves, client, "leave")

    def run(self, clients: Iterable[Client], at_once: int, deadline: float) -> int:
        """Opens all of `clients`, at most so many at once; those that end make room. Says how many were opened."""
        count = 0
        clients = iter(clients)
        while time.monotonic() < deadline:
            for _ in range(min(64, at_once - len(self.clients))):
                client = next(clients, None)
                if client is None:
                    return count
                self.open(client)
                count += 1
            self.step(0 if len(self.clients) < at_once else 0.05)
        return count

    def hold(self, seconds: float, settled: Callable[[], bool] = lambda: False) -> None:
        """Goes on for so long, or until nobody has to do anything any more."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not settled():
            self.step(0.05)

    def end(self) -> None:
        for client in list(self.clients.values()):
            self.close(client, "ended by us")
        self.poll.close()
