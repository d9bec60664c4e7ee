"""A gRPC app and client of grpc-core, whose server ends connections with too many PINGs: `serve`, or `talk ADDRESS SECONDS`."""

import sys
import time
from collections.abc import Iterator
from concurrent import futures

import grpc


def chat(notes: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
    for note in notes:
        yield b"heard " + note


def listen(note: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    """Says nothing, not even its first metadata, for as long as it is told."""
    time.sleep(float(note))
    yield b"after " + note


HANDLERS = {
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Listen": grpc.unary_stream_rpc_method_handler(listen),
}

if sys.argv[1] == "serve":
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Notes", HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()

address, seconds = sys.argv[2], sys.argv[3]
channel = grpc.insecure_channel(address)
listening = channel.unary_stream("/test.Notes/Listen")(seconds.encode())


def notes() -> Iterator[bytes]:
    yield b"before"
    time.sleep(float(seconds))
    yield b"after"


since = time.monotonic()
for answer in channel.stream_stream("/test.Notes/Chat")(notes()):
    print(answer.decode(), round(time.monotonic() - since), flush=True)
print(b"".join(listening).decode(), flush=True)
