"""The client's side of HTTP/2, as little of it as an attacker needs: frames (RFC 9113 4.1) and fields without Huffman (RFC 7541)."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4
CANCEL = 8
MAX_FRAME = 16384
MAX_WINDOW = (1 << 31) - 1
FIRST_DYNAMIC = 62  # RFC 7541 2.3.3
STATIC = {("method", "GET"): 2, ("method", "POST"): 3, ("scheme", "http"): 6}
AUTHORITY, PATH = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    known = {"header_table_size": HEADER_TABLE_SIZE, "initial_window_size": INITIAL_WINDOW_SIZE}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", known[name], value) for name, value in values.items()))


def integer(value: int, prefix: int, first: int) -> bytes:
    """RFC 7541 5.1, the bits above the prefix given by `first`."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([first | value])
    out = bytearray([first | most])
    value -= most
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    out.append(value)
    return bytes(out)


def text(value: str | bytes) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return integer(len(value), 7, 0) + value


def indexed(index: int) -> bytes:
    """A field that stands in a table."""
    return integer(index, 7, 0x80)


def literal(name: str, value: str | bytes, index: bool = False) -> bytes:
    """A field as it is; `index` puts it into the server's table, as number 62."""
    return bytes([0x40 if index else 0]) + text(name) + text(value)


def request(method: str, path: str, more: bytes = b"", authority: str = "a.test") -> bytes:
    """The block of a request's fields; `more` is what `literal` and `indexed` made."""
    return (indexed(STATIC["method", method]) + indexed(STATIC["scheme", "http"]) + integer(PATH, 4, 0) + text(path)
            + integer(AUTHORITY, 4, 0) + text(authority) + more)


def headers(stream: int, block: bytes, end: bool) -> bytes:
    """HEADERS, and CONTINUATION as far as the block needs it."""
    pieces = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]
    out = bytearray()
    for at, piece in enumerate(pieces):
        flags = (END_HEADERS if at == len(pieces) - 1 else 0) | (END_STREAM if end and at == 0 else 0)
        out += frame(CONTINUATION if at else HEADERS, flags, stream, piece)
    return bytes(out)


def data(stream: int, content: bytes, end: bool = False) -> bytes:
    pieces = [content[at : at + MAX_FRAME] for at in range(0, len(content), MAX_FRAME)]
    return b"".join(frame(DATA, END_STREAM if end and at == len(pieces) - 1 else 0, stream, piece) for at, piece in enumerate(pieces))


def begin(window: int, connection: int = MAX_WINDOW) -> bytes:
    """The first bytes of a connection: windows of so many bytes for each stream and for all of them."""
    out = PREFACE + settings(initial_window_size=window)
    if connection > 65535:
        out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", connection - 65535))
    return out


class Frames:
    """Takes what a server sends; tells of streams that ended and acknowledges what has to be."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.ended = 0
        self.heads = 0
        self.limits = 0  # SETTINGS and WINDOW_UPDATE of the connection that came

    @property
    def ready(self) -> bool:
        return self.limits == 3

    def feed(self, data: bytes) -> bytes:
        """What is to be sent for it."""
        # Content may be sent once both have come: until then the windows are 65,535 bytes.
        self.buffer += data
        out = b""
        at = 0
        while len(self.buffer) - at >= 9:
            length = int.from_bytes(self.buffer[at : at + 3], "big")
            if len(self.buffer) - at < 9 + length:
                break
            kind, flags = self.buffer[at + 3], self.buffer[at + 4]
            if kind == SETTINGS and not flags & ACK:
                out += frame(SETTINGS, ACK, 0)
                self.limits |= 1
            elif kind == WINDOW_UPDATE and self.buffer[at + 5 : at + 9] == b"\0\0\0\0":
                self.limits |= 2
            elif kind == PING and not flags & ACK:
                out += frame(PING, ACK, 0, bytes(self.buffer[at + 9 : at + 9 + length]))
            elif kind == HEADERS:
                self.heads += 1
            if kind == RST_STREAM or (kind in (HEADERS, DATA) and flags & END_STREAM):
                self.ended += 1
            at += 9 + length
        del self.buffer[:at]
        return out
