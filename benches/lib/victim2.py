#!/usr/bin/env python3
"""An app of HTTP/2 (h2c) that answers every request alike, whatever its path. Run as `victim2.py PORT KIND`.

  grpc      application/grpc, DATA of 16 KiB without an end, as fast as the windows allow
  grpc:N    the same, N bytes in each DATA frame
  endless   the same as application/octet-stream
  blob:N    N bytes
  hang      never answers
  deaf      reads no more once requests have come, although its windows are open, and never answers
"""

import asyncio
import collections
import pathlib
import struct
import sys
from typing import ClassVar

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from lib import http2

WINDOW = 1 << 20  # of each upload
DEAF = 5  # seconds between two reads where nothing is read
ROUND = 64  # frames written before others have their turn
GO_ON = 0xFFFFFFFF
STATUS_200 = 8  # RFC 7541 A


class Stream:
    __slots__ = ("window", "left", "waits")

    def __init__(self, window: int, left: int) -> None:
        self.window, self.left, self.waits = window, left, False


class App(asyncio.Protocol):
    kind, size = "", 0
    alive: ClassVar[set["App"]] = set()  # the loop itself forgets those that neither read nor write

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        App.alive.add(self)
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = bytearray()
        self.begun = False
        self.window, self.initial = 65535, 65535
        self.streams: dict[int, Stream] = {}
        self.ready: collections.deque[int] = collections.deque()
        self.writing, self.later = True, False
        transport.write(http2.settings(initial_window_size=WINDOW)
                        + http2.frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", http2.MAX_WINDOW - 65535)))

    def connection_lost(self, error: Exception | None) -> None:
        App.alive.discard(self)
        self.streams.clear()
        self.ready.clear()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.begun:
            if len(self.buffer) < len(http2.PREFACE):
                return
            self.begun = True
            del self.buffer[: len(http2.PREFACE)]
        at = 0
        while len(self.buffer) - at >= 9:
            length = int.from_bytes(self.buffer[at : at + 3], "big")
            if len(self.buffer) - at < 9 + length:
                break
            kind, flags = self.buffer[at + 3], self.buffer[at + 4]
            stream = int.from_bytes(self.buffer[at + 5 : at + 9], "big")
            self.frame(kind, flags, stream, self.buffer[at + 9 : at + 9 + length])
            at += 9 + length
        del self.buffer[:at]
        if App.kind == "deaf" and self.streams:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(DEAF, self.transport.resume_reading)
        self.more()

    def frame(self, kind: int, flags: int, number: int, payload: bytearray) -> None:
        if kind == http2.HEADERS and number not in self.streams:
            self.begin(number)
        elif kind == http2.RST_STREAM:
            self.streams.pop(number, None)
        elif kind == http2.PING and not flags & http2.ACK:
            self.transport.write(http2.frame(http2.PING, http2.ACK, 0, bytes(payload)))
        elif kind == http2.WINDOW_UPDATE:
            more = int.from_bytes(payload, "big")
            if number == 0:
                self.window += more
            elif stream := self.streams.get(number):
                stream.window += more
                self.wake(number, stream)
        elif kind == http2.SETTINGS and not flags & http2.ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == http2.INITIAL_WINDOW_SIZE:
                    # RFC 9113 6.9.2: it changes the windows of all streams.
                    more, self.initial = value - self.initial, value
                    for number, stream in self.streams.items():
                        stream.window += more
                        self.wake(number, stream)
            self.transport.write(http2.frame(http2.SETTINGS, http2.ACK, 0))
        elif kind == http2.DATA and payload and App.kind != "deaf":
            self.transport.write(http2.frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload))))

    def begin(self, number: int) -> None:
        stream = self.streams[number] = Stream(self.initial, App.size if App.kind == "blob" else GO_ON)
        if App.kind in ("deaf", "hang"):
            return
        media = "application/grpc" if App.kind == "grpc" else "application/octet-stream"
        block = http2.indexed(STATUS_200) + http2.literal("content-type", media) + http2.literal("cache-control", "no-store")
        self.transport.write(http2.headers(number, block, False))
        self.wake(number, stream)

    def wake(self, number: int, stream: Stream) -> None:
        if not stream.waits and stream.window > 0 and App.kind != "deaf":
            stream.waits = True
            self.ready.append(number)

    def pause_writing(self) -> None:
        self.writing = False

    def resume_writing(self) -> None:
        self.writing = True
        self.more()

    def go_on(self) -> None:
        self.later = False
        self.more()

    def more(self) -> None:
        """Each stream that may goes on by a frame, in turn."""
        largest = App.size if App.kind == "grpc" and App.size else http2.MAX_FRAME
        for _ in range(ROUND):
            if not (self.ready and self.writing and self.window > 0) or self.transport.is_closing():
                return
            number = self.ready.popleft()
            stream = self.streams.get(number)
            if stream is None:
                continue
            stream.waits = False
            length = min(largest, self.window, stream.window, stream.left)
            if length <= 0:
                continue
            self.window -= length
            stream.window -= length
            stream.left -= 0 if stream.left == GO_ON else length
            self.transport.write(http2.frame(http2.DATA, 0 if stream.left else http2.END_STREAM, number, b"x" * length))
            if stream.left:
                self.wake(number, stream)
            else:
                del self.streams[number]
        if not self.later:
            self.later = True
            asyncio.get_running_loop().call_soon(self.go_on)


async def main(port: int, kind: str) -> None:
    App.kind, _, size = kind.partition(":")
    App.size = int(size or 0)
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
