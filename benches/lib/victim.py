#!/usr/bin/env python3
"""An app that answers as the attack needs it, by the first part of the path. Run as `victim.py PORT`.

  /hang      never answers                        /deaf      reads no content, and never answers
  /blob/N    N bytes, not to be stored            /text/N    the same, as text
  /endless   chunks without an end
  /stored/N  N bytes, to be stored                /trailers  a little, then 15 KB of trailers, to be stored
  /long/N    chunks of N bytes in all, to be stored
  /vary      to be stored, Vary: Accept-Language  /pair      to be stored, and says who asked
  /ntlm      401 with a challenge
"""

import asyncio
import random
import sys
from collections.abc import Callable
from typing import ClassVar

CHUNK = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
DEAF = 5  # seconds between two reads of content that is not read, so that a connection that ended is seen to have
STORED = b"Cache-Control: max-age=600\r\n"
BLOBS: dict[int, bytes] = {}


def blob(size: int) -> bytes:
    if size not in BLOBS:
        BLOBS[size] = b"x" * size
    return BLOBS[size]


def text(size: int) -> bytes:
    """That coding makes little of."""
    if -size not in BLOBS:
        numbers = random.Random(7)
        BLOBS[-size] = bytes(numbers.choices(b"abcdefghijklmnopqrstuvwxyz0123456789 \n", k=size))
    return BLOBS[-size]


def response(status: bytes, fields: bytes, content: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n" % (status, fields, len(content)) + content


class App(asyncio.Protocol):
    alive: ClassVar[set["App"]] = set()  # the loop itself forgets those that neither read nor write

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a connection of TCP is a transport both ways")
        App.alive.add(self)
        self.transport = transport
        self.deaf = False
        self.buffer = bytearray()
        self.left: int | None = 0  # bytes of content; None: until its last chunk
        self.answer: Callable[[], None] | None = None
        self.chunks = 0  # how many are left to write

    def connection_lost(self, error: Exception | None) -> None:
        App.alive.discard(self)
        self.chunks = 0

    def read_later(self) -> None:
        self.transport.pause_reading()
        asyncio.get_running_loop().call_later(DEAF, self.transport.resume_reading)

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            self.read_later()
            return
        self.buffer += data
        while self.step():
            pass

    def step(self) -> bool:
        """Whether there may be more to do."""
        if self.answer is not None:
            if self.left is None:
                if not self.buffer.endswith(b"0\r\n\r\n"):
                    del self.buffer[:-16]
                    return False
                self.buffer.clear()
            elif self.left > len(self.buffer):
                self.left -= len(self.buffer)
                self.buffer.clear()
                return False
            else:
                del self.buffer[: self.left]
            answer, self.answer = self.answer, None
            answer()
            return True
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self.buffer[: end + 2])
        del self.buffer[: end + 4]
        self.begin(head)
        return True

    def begin(self, head: bytes) -> None:
        method, target = head.split(b" ", 2)[:2]
        parts = target.partition(b"?")[0].split(b"/")
        lower = head.lower() if method != b"GET" else b""
        length = lower.find(b"\r\ncontent-length:")
        self.left = 0
        if length >= 0:
            self.left = int(lower[length + 17 : lower.index(b"\r\n", length + 2)])
        elif b"\r\ntransfer-encoding:" in lower:
            self.left = None
        kind = parts[1]
        size = int(parts[2]) if len(parts) > 2 and parts[2].isdigit() else 0
        if kind == b"deaf":
            self.deaf = True
            self.buffer.clear()
            self.read_later()
        if kind == b"pair":
            who = head.partition(b"uthorization: ")[2].partition(b"\r\n")[0]
            self.answer = lambda: self.transport.write(response(b"200 OK", STORED, b"%s of %s" % (target, who)))
        else:
            self.answer = lambda: self.respond(kind, size)

    def respond(self, kind: bytes, size: int) -> None:
        write = self.transport.write
        if kind in (b"hang", b"deaf"):
            return
        if kind == b"text":
            write(response(b"200 OK", b"Cache-Control: no-store\r\nContent-Type: text/plain\r\n", text(size)))
        elif kind == b"blob":
            write(response(b"200 OK", b"Cache-Control: no-store\r\n", blob(size)))
        elif kind == b"stored":
            write(response(b"200 OK", STORED, blob(size)))
        elif kind == b"vary":
            write(response(b"200 OK", STORED + b"Vary: Accept-Language\r\n", blob(100)))
        elif kind == b"ntlm":
            write(response(b"401 Unauthorized", b"WWW-Authenticate: NTLM TlRMTVNTUAAC\r\n"))
        elif kind == b"trailers":
            trailers = b"".join(b"x-trailer-%d: %s\r\n" % (at, b"t" * 900) for at in range(16))
            write(b"HTTP/1.1 200 OK\r\n" + STORED + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + trailers + b"\r\n")
        elif kind in (b"endless", b"long"):
            write(b"HTTP/1.1 200 OK\r\n" + (STORED if kind == b"long" else b"") + b"Transfer-Encoding: chunked\r\n\r\n")
            self.chunks = size // 0x4000 if kind == b"long" else 1 << 40
            self.writing = True
            self.more()
        else:
            write(response(b"200 OK", b"Cache-Control: no-store\r\n", b"ok"))

    def pause_writing(self) -> None:
        self.writing = False

    def resume_writing(self) -> None:
        self.writing = True
        self.more()

    def more(self) -> None:
        while self.chunks and self.writing and not self.transport.is_closing():
            self.chunks -= 1
            self.transport.write(CHUNK if self.chunks else CHUNK + b"0\r\n\r\n")


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
