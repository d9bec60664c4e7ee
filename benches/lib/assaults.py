"""The attacks of `benches/attacks`: for each, what N clients do, and what Pillion is configured to.

`clients(first, last)` makes those that stand for attacks `first` to `last`. N is chosen so that N of them fill what they can
fill: there are more of them than `MAX_CONNECTIONS`, or they bring more than all budgets hold.
"""

import base64
import dataclasses
import socket
from collections.abc import Callable, Iterable, Iterator

from . import http2
from .crowd import Client

Clients = Callable[[int, int], Iterable[Client]]  # those that stand for attacks `first` to `last`

KIB, MIB = 1 << 10, 1 << 20
MAX_CONNECTIONS = 1000
CONNECTIONS_2 = 100  # of HTTP/2
PER_CONNECTION = 100  # streams; h2_max_streams is 128
SMALL_WINDOW = 4096
ENOUGH_THAT_LEAVE = 6000  # clients that leave at once: 1,500 of them had 20 of 256 places of the app taken at a time
STAYS = 2  # seconds that one hangs who would never be told to go, before it makes room for the next


@dataclasses.dataclass
class Attack:
    line: str
    what: str
    n: int
    clients: Clients
    cache: int = 0  # max_size in MiB; 0: no cache
    at_once: int = 1300  # connections that the attacker holds
    hold: float = 3.0  # seconds that all of them hang, before memory is read for the last time
    server: str = ""
    upstream: str = ""
    more: str = ""
    max_connections: int = MAX_CONNECTIONS
    descriptors: int | None = None
    h2c: str = ""  # the app speaks HTTP/2, and answers so (see `victim2.py`)
    prepare: Callable[[int], None] = lambda port: None


def source(at: int) -> str:
    """Attackers have 200 addresses."""
    return f"127.0.1.{1 + at % 200}"


def get(path: str, *fields: str, method: str = "GET") -> bytes:
    return "".join([f"{method} {path} HTTP/1.1\r\nHost: a.test\r\n", *(f"{field}\r\n" for field in fields), "\r\n"]).encode()


def each(make: Callable[[int], Client]) -> Clients:
    """Clients of HTTP/1.1, one for each attack."""
    return lambda first, last: (make(at) for at in range(first, last))


def streams(make: Callable[[int, int], bytes], window: int = 0, per: int = PER_CONNECTION, leaves: float | None = STAYS) -> Clients:
    """Clients of HTTP/2, one for so many attacks; `make` gives the bytes of one stream."""

    def clients(first: int, last: int) -> Iterator[Client]:
        for at in range(first, last, per):
            count = min(per, last - at)
            asked = b"".join(make(at + stream, 2 * stream + 1) for stream in range(count))
            yield Client(http2.begin(window), source(at // per), http2=True, then=asked, leaves=leaves)

    return clients


def fill(port: int, path: str) -> None:
    """Asks for a path until it is there whole, so that it is stored."""
    with socket.create_connection(("127.0.0.1", port), 20) as s:
        s.sendall(get(path, "Connection: close"))
        while s.recv(65536):
            pass


# ---- 3.1


def long_field(at: int) -> Client:
    name = ("Cache-Control", "Accept-Encoding", "Pragma")[at % 3]
    return Client(get(f"/hang/{at}", f'{name}: "' + "a" * 60_000), source(at), answers=1, leaves=0)


def many_fields(at: int) -> Client:
    fields = (f"X-{at % 7}-{number}: {'v' * 220}" for number in range(240))
    return Client(get(f"/hang/{at}", *fields), source(at), answers=1, leaves=0)


def long_language(at: int) -> Client:
    value = f"x{at}," + ",".join(f"aa{number}" for number in range(9000))
    return Client(get("/vary", f"Accept-Language: {value[:60_000]}"), source(at), answers=1, leaves=0)


# ---- 3.2

RANGES = ", ".join(f"{at}-{at + 250_000}" for at in range(0, 4_100_000, 262_144))


def ranges(at: int, stream: int) -> bytes:
    return http2.headers(stream, http2.request("GET", f"/stored/{4 * MIB}", http2.literal("range", f"bytes={RANGES}")), True)


def trailers(at: int) -> Client:
    return Client(get(f"/trailers/{at}"), source(at), answers=1, leaves=0)


def trailers_unread(at: int, stream: int) -> bytes:
    return http2.headers(stream, http2.request("GET", f"/trailers/{at}", http2.literal("te", "trailers")), True)


# ---- 3.3

WORDS = (("Connection: upgrade", "Upgrade: x"), ("Content-Type: application/grpc", "TE: trailers"), ("Accept: text/event-stream", "Content-Type: text/event-stream"))


def words(at: int) -> Client:
    return Client(get(f"/hang/{at}", *WORDS[at % 3]), source(at), answers=1, leaves=0)


def words2(at: int, stream: int) -> bytes:
    more = http2.literal("content-type", ("application/grpc", "text/event-stream")[at % 2]) + http2.literal("te", "trailers")
    return http2.headers(stream, http2.request("POST" if at % 2 else "GET", f"/hang/{at}", more), True)


# ---- 3.4


def upload(path: str, length: int, sent: int) -> Callable[[int], Client]:
    def make(at: int) -> Client:
        head = get(f"{path}/{at}", f"Content-Length: {length}", method="POST")
        return Client(head + b"x" * sent, source(at), drip=b"x" * 100, leaves=STAYS)

    return make


def upload_chunked(at: int) -> Client:
    head = get(f"/deaf/{at}", "Transfer-Encoding: chunked", method="POST")
    return Client(head + b"1\r\nx\r\n" * 40_000, source(at), drip=b"1\r\nx\r\n" * 20, leaves=STAYS)


def upload2(path: str, length: int, sent: int) -> Callable[[int, int], bytes]:
    def make(at: int, stream: int) -> bytes:
        more = http2.literal("content-length", str(length))
        return http2.headers(stream, http2.request("POST", f"{path}/{at}", more), False) + http2.data(stream, b"x" * sent)

    return make


def reader(path: str) -> Callable[[int], Client]:
    return lambda at: Client(get(f"{path}?{at}"), source(at), reads=False, window=SMALL_WINDOW, leaves=STAYS)


def reader2(path: str, **fields: str) -> Callable[[int, int], bytes]:
    more = b"".join(http2.literal(name.replace("_", "-"), value) for name, value in fields.items())
    return lambda at, stream: http2.headers(stream, http2.request("GET", f"{path}?{at}", more), True)


def call(at: int, stream: int) -> bytes:
    """A gRPC call."""
    return http2.headers(stream, http2.request("POST", f"/call/{at}", http2.literal("content-type", "application/grpc") + http2.literal("te", "trailers")), True)


CRUMB = "c=" + "x" * 3900


def crumbs(at: int, stream: int) -> bytes:
    """The first stream of a connection puts the crumb into the table; others name it by one byte."""
    first = http2.literal("cookie", CRUMB, index=True) if stream == 1 else http2.indexed(http2.FIRST_DYNAMIC)
    return http2.headers(stream, http2.request("GET", f"/hang/{at}", first + http2.indexed(http2.FIRST_DYNAMIC) * 15), True)


def fields2(at: int, stream: int) -> bytes:
    """Many small fields that stand in the table."""
    number = 100 if stream == 1 else 0
    made = b"".join(http2.literal(f"x{name:02}", "v", index=True) for name in range(number))
    named = b"".join(http2.indexed(http2.FIRST_DYNAMIC + name) for name in range(100)) * (1 if number else 2)
    return http2.headers(stream, http2.request("GET", f"/hang/{at}", made + named), True)


# ---- 3.5 to 3.8


def gone(path: str) -> Callable[[int], Client]:
    return lambda at: Client(get(f"{path}?{at}"), source(at), leaves=0.02, reset=True)


def gone2(at: int, stream: int) -> bytes:
    cancel = http2.frame(http2.RST_STREAM, 0, stream, http2.CANCEL.to_bytes(4, "big"))
    return http2.headers(stream, http2.request("GET", f"/hang/{at}"), True) + cancel


def silent(at: int) -> Client:
    return Client(b"", source(at))


def half_head(at: int) -> Client:
    return Client(get(f"/ok/{at}", "Cookie: " + "c" * 60_000)[:-2], source(at))


def half_head2(at: int) -> Client:
    block = http2.request("GET", "/ok", b"".join(http2.literal(f"x{name}", "v" * 1000) for name in range(60)))
    whole = http2.headers(1, block, True)
    return Client(http2.begin(0), source(at), http2=True, then=whole[: len(whole) - 500])


def large_head2(at: int) -> Client:
    """One that sent a large head once, got its response and stays."""
    fields = b"".join(http2.literal(f"x{name}", "v" * 1000) for name in range(55))
    return Client(http2.begin(65535), source(at), http2=True, then=http2.headers(1, http2.request("GET", "/ok", fields), True))


def small_head2(at: int) -> Client:
    return Client(http2.begin(65535), source(at), http2=True, then=http2.headers(1, http2.request("GET", "/ok"), True))


def idle(at: int) -> Client:
    """One that asked for something and stays."""
    return Client(get("/ok"), source(at))


def cut_post(at: int) -> Client:
    # Longer than buffer_request, so a part of it reaches the app.
    return Client(get(f"/deaf/{at}", "Content-Length: 100000", method="POST") + b"x" * 100, source(at), leaves=0.05, reset=True)


def long_posts(at: int) -> Client:
    """Writes of a hundred paths each that a rule takes, over one connection."""
    return Client(b"".join(get(f"/ok/{at}/{number}", "Content-Length: 0", method="POST") for number in range(100)), source(at), answers=100, leaves=0)


# ---- 3.9 to 3.12


def pairs(at: int) -> Client:
    asked = [get(f"/pair/{at}/{number // 2}", f"Authorization: Bearer u{number % 2}") for number in range(40)]
    return Client(b"".join(asked), source(at), answers=40, leaves=0)


def keys(at: int) -> Client:
    asked = [get("/stored/10", f"X-API-Key: key-{at}-{number}") for number in range(100)]
    return Client(b"".join(asked), source(at), answers=100, leaves=0)


def addresses(at: int) -> Client:
    names = (at * 100 + number for number in range(100))
    asked = [get("/stored/10", f"X-Forwarded-For: 2001:db8:{name >> 16:x}:{name & 0xFFFF:x}::1") for name in names]
    return Client(b"".join(asked), answers=100, leaves=0)


def tokens(at: int) -> Client:
    def token(number: int) -> str:
        payload = base64.urlsafe_b64encode(b'{"sub":"u%d-%d","exp":4102444800,"p":"%s"}' % (at, number, b"p" * 1000)).rstrip(b"=").decode()
        return f"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.{payload}.{'A' * 43}"

    asked = [get("/stored/10", f"Authorization: Bearer {token(number)}") for number in range(20)]
    return Client(b"".join(asked), source(at), answers=20, leaves=0)


def users(at: int) -> Client:
    asked = [get("/stored/1000", f"Authorization: Bearer {at}-{number}-{'t' * 4000}") for number in range(20)]
    return Client(b"".join(asked), source(at), answers=20, leaves=0)


def ntlm(at: int) -> Client:
    return Client(get(f"/ntlm/{at}", "Authorization: NTLM " + "T" * 200), source(at))


LIMITS = """[rate_limit]
unlisted_keys = "own"
max_keys = 10000
[rate_limit.tiers.free.limits]
requests = { rate = "1000/min", burst = 100 }
"""
WRITES = """[[invalidate]]
on = "* /ok/{id}/{part}"
tags = ["of:{id}:{part}"]
settle = "1h"
"""
SHARED = """[[routes]]
match = "GET /pair/**"
cache = { ttl = "1h", scope = "shared", override = "lifetime" }
"""
PERSONAL = """[[routes]]
match = "GET /stored/**"
cache = { ttl = "1h", scope = "user" }
"""
TRUSTED = 'trusted_proxies = ["127.0.0.1"]\n'
TOKENS = """[identity]
principal = ["jwt:sub"]
[identity.jwt]
hs256 = "secret"
issuer = "i"
audience = "a"
"""

ATTACKS = [
    Attack("-", "no attack: connections that asked for little and stay", 1500, each(idle)),
    Attack("-", "no attack: 100 streams each that asked for little", 12000, streams(reader2("/ok"), window=65535), max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.1", "60 KB in Cache-Control, Accept-Encoding, Pragma; the app hangs", 2500, each(long_field)),
    Attack("3.1", "240 fields of 220 bytes; the app hangs", 2500, each(many_fields)),
    Attack("3.1", "60 KB of Accept-Language, each its own variant", 800, each(long_language), cache=16, at_once=200),
    Attack("3.2", "16 ranges of a stored 4 MiB, HTTP/2 window 0", 6000, streams(ranges, per=50), cache=16,
           prepare=lambda port: fill(port, f"/stored/{4 * MIB}"), max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.2", "15 KB of trailers at ever new paths", 5000, each(trailers), cache=16, at_once=200),
    Attack("3.2", "15 KB of trailers, not to be stored, window 0", 12000, streams(trailers_unread), max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.2", "15 KB of trailers, to be stored, window 0", 12000, streams(trailers_unread), cache=16, max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.3", "Upgrade, grpc, event-stream in requests; the app hangs", 2500, each(words)),
    Attack("3.3", "the same over HTTP/2", 12000, streams(words2), max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "uploads of 60 KB, 40 KB sent, then dripping", 1200, each(upload("/ok", 60_000, 40_000)), hold=6),
    Attack("3.4", "the same over HTTP/2", 12000, streams(upload2("/ok", 60_000, 40_000)), hold=6, max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "uploads of 10 MB, 300 KB sent, the app reads nothing", 1200, each(upload("/deaf", 10_000_000, 300_000)), hold=6),
    Attack("3.4", "the same over HTTP/2, 60 KB sent", 12000, streams(upload2("/deaf", 10_000_000, 60_000)), hold=6, max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "chunks of one byte, 40,000 each, the app reads nothing", 1200, each(upload_chunked), hold=6),
    Attack("3.4", "200 KiB read by nobody", 1200, each(reader("/blob/204800")), hold=5),
    Attack("3.4", "200 KiB, HTTP/2 window 0", 12000, streams(reader2("/blob/204800")), hold=5, max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "2 KiB and its head, HTTP/2 window 0", 12000, streams(reader2("/blob/2048")), hold=5, max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "200 KiB coded on its way, HTTP/2 window 0", 12000, streams(reader2("/text/204800", accept_encoding="zstd")), hold=5,
           max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "bodies without an end read by nobody", 1200, each(reader("/endless")), hold=5),
    Attack("3.4", "bodies without an end, HTTP/2 window 0", 12000, streams(reader2("/endless")), hold=5, max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "16 crumbs of 4 KB by 16 bytes; the app hangs", 12000, streams(crumbs), max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "200 fields by 200 bytes; the app hangs", 12000, streams(fields2), max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.5", "reads whose clients leave; the app hangs", ENOUGH_THAT_LEAVE, each(gone("/hang")), cache=16, at_once=300),
    Attack("3.5", "reads of bodies without an end whose clients leave", ENOUGH_THAT_LEAVE, each(gone("/endless")), cache=16, at_once=300),
    Attack("3.5", "reads to be stored, of 1 MiB, whose clients leave", ENOUGH_THAT_LEAVE, each(gone("/long/1048576")), cache=16, at_once=300),
    Attack("3.5", "streams opened and reset at once", 12000, streams(gone2), cache=16, at_once=50, max_connections=CONNECTIONS_2),
    Attack("3.6", "connections without a byte", 1500, each(silent)),
    Attack("3.6", "half heads of 60 KB", 1500, each(half_head)),
    Attack("3.6", "half heads of 60 KB over HTTP/2", 1500, each(half_head2)),
    Attack("3.6", "HTTP/2 connections that sent 57 KB of fields once, and stay", 1500, each(large_head2)),
    Attack("-", "no attack: HTTP/2 connections that asked for little and stay", 1500, each(small_head2)),
    Attack("3.7", "as many connections as 2,048 descriptors allow", 2500, each(idle), max_connections=10_000, descriptors=2048, at_once=4000),
    Attack("3.8", "POSTs to ever new paths, cut after a part was sent", 12000, each(cut_post), cache=16, at_once=250),
    Attack("3.8", "POSTs that a rule with settle takes, 100 paths each", 150, each(long_posts), cache=16, at_once=32, more=WRITES),
    Attack("3.9", "pairs of requests for the tripwire, 20 paths each", 1000, each(pairs), cache=16, at_once=16, more=SHARED),
    Attack("3.11", "100 keys each under a limit, max_keys 10,000", 300, each(keys), cache=16, at_once=16, more=LIMITS),
    Attack("3.12", "100 client addresses each under a limit", 500, each(addresses), cache=16, at_once=16, server=TRUSTED, more=LIMITS),
    Attack("3.12", "20 tokens each that do not verify", 1000, each(tokens), cache=16, at_once=16, more=LIMITS + TOKENS),
    Attack("3.12", "20 users each with copies of their own", 600, each(users), cache=16, at_once=16, more=PERSONAL),
    Attack("1.7", "NTLM connections that wait", 1500, each(ntlm)),
    Attack("3.4", "objects longer than max_object_size, read by nobody", 1200, each(reader("/long/4194304")), cache=16, hold=5),
    Attack("3.4", "the same, one object, HTTP/2 window 0", 12000, streams(lambda at, stream: reader2("/long/4194304")(0, stream)), cache=16, hold=5, max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.3", "gRPC calls to an h2c app that hangs", 12000, streams(call), h2c="hang", max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "gRPC responses read by nobody, h2c", 12000, streams(call), hold=5, h2c="grpc", max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "gRPC responses of 10 bytes a frame read by nobody, h2c", 12000, streams(call), hold=5, h2c="grpc:10", max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "200 KiB of an h2c app, HTTP/2 window 0", 12000, streams(reader2("/")), hold=5, h2c="blob:204800", max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "bodies without an end of an h2c app, HTTP/2 window 0", 12000, streams(reader2("/")), hold=5, h2c="endless", max_connections=CONNECTIONS_2, at_once=130),
    Attack("3.4", "bodies without an end of an h2c app read by nobody", 1200, each(reader("/")), hold=5, h2c="endless"),
    Attack("3.4", "uploads of 10 MB to an h2c app that reads nothing", 1200, each(upload("/deaf", 10_000_000, 300_000)), hold=6, h2c="deaf"),
    Attack("3.4", "the same over HTTP/2 to an h2c app, 60 KB sent", 12000, streams(upload2("/deaf", 10_000_000, 60_000)), hold=6, h2c="deaf", max_connections=CONNECTIONS_2, at_once=130),
]
