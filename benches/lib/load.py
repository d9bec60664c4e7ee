"""The load: what asks a server, and what it finds. One core for it, which it shares with the upstream."""

import http.client
import pathlib
import random
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .servers import LOAD_CORE, Running, found

Row = dict[str, Any]  # what one run found, by name
Rows = list[Row]

PATIENCE = 30  # seconds beyond the planned ones after which a load that does not end is ended


def answer(port: int, path: str, fields: Sequence[str] = (), connection: http.client.HTTPConnection | None = None) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, fields and body of one answer; asked with the Host that the load sends, which caches tell apart."""
    own = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    own.putrequest("GET", f"/{path}", skip_accept_encoding=True)
    for field in fields:
        own.putheader(*field.split(": ", 1))
    own.endheaders()
    response = own.getresponse()
    body = response.read()
    if not connection:
        own.close()
    return response.status, response.headers, body


def header_words(fields: Sequence[str]) -> list[str]:
    return [word for field in fields for word in ("-H", field)]


def wrk(port: int, path: str, connections: int, seconds: float, cores: str = LOAD_CORE, threads: int = 1, fields: Sequence[str] = (), script: pathlib.Path | None = None, refused: bool = False) -> Row:
    """As many requests as the connections carry, one after the other on each. `refused`: they may be."""
    command = ["taskset", "-c", cores, "wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", *header_words(fields)]
    if script:
        command += ["-s", str(script)]
    out = subprocess.run([*command, f"http://127.0.0.1:{port}/{path}"], capture_output=True, text=True, check=True,
                         timeout=seconds + PATIENCE).stdout
    bad = bool(re.search(r"Non-2xx or 3xx|Socket errors", out))
    if bad and not refused:
        print(out)
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    def latency(percent: int) -> float:
        value = found(rf"{percent}%\s+([\d.]+(?:us|ms|s))", out)
        number = value.rstrip("ums")
        return float(number) * unit[value[len(number) :]]

    requests = found(r"(\d+) requests in ", out)
    read = found(r"\d+ requests in [^,]*, ([\d.]+[KMG]?)B read", out)
    scale = read.lstrip("0123456789.")
    return {"requests": int(requests), "rps": float(found(r"Requests/sec:\s+([\d.]+)", out)),
            "p50": latency(50), "p99": latency(99), "bad": bad,
            "bytes": float(read.rstrip("KMG")) * 1024 ** " KMG".index(scale or " ") / max(int(requests), 1)}


def shuffled(folder: pathlib.Path, paths: Iterable[str]) -> pathlib.Path:
    """A script for wrk that asks for these in random order, the same one in every run."""
    script = folder / "shuffled.lua"
    script.write_text(f"""local asks = {{}}
init = function()
  math.randomseed(7)
  for path in ("{' '.join(f'/{path}' for path in paths)}"):gmatch("%S+") do asks[#asks + 1] = wrk.format("GET", path) end
end
request = function() return asks[math.random(#asks)] end
""")
    return script


def paced(port: int, path: str, rate: float, connections: int, seconds: float, fields: Sequence[str] = ()) -> Row:
    """An open loop: so many requests a second, due whether or not earlier ones have been answered.

    The connections open 1 ms after one another, so their clocks are spread; h2load's own clock makes them
    come in groups of about ten every two milliseconds. What comes before all are open does not count. Due
    requests wait only for an earlier one on their own connection, which matters beyond connections / rate seconds.
    """
    opening = 5
    ramp = connections // opening / 1000 + 0.25
    count = int(rate * (seconds + ramp))
    with tempfile.TemporaryDirectory(prefix="pillion-bench-") as folder:
        log = pathlib.Path(folder) / "log"
        subprocess.run(["taskset", "-c", LOAD_CORE, "h2load", "--h1", "-m1", f"-c{connections}", f"-n{count}", f"--rps={rate / connections:g}",
                        f"-r{opening}", "--rate-period=1ms", f"--log-file={log}", *header_words(fields), f"http://127.0.0.1:{port}/{path}"],
                       capture_output=True, check=True, timeout=seconds + PATIENCE)
        rows = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    begin = min(start for start, _, _ in rows) + ramp * 1e6
    times = sorted(micros / 1000 for start, _, micros in rows if start >= begin)
    span = (max(start for start, _, _ in rows) - begin) / 1e6
    return {"requests": len(rows), "rps": len(times) / span, "p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100],
            "bad": len(rows) != count or any(status != 200 for _, status, _ in rows)}


def measure(target: Running, load: Callable[..., Row], *args: object, **kwargs: object) -> Row:
    """One run of a load at a target, with the target's CPU time: `cpu` a request, `busy` as a share of its core."""
    before, began = target.cpu(), time.monotonic()
    result = load(target.port, *args, **kwargs)
    spent, took = target.cpu() - before, time.monotonic() - began
    result["cpu"] = spent / 1000 / max(result["requests"], 1)
    result["busy"] = spent / 1e9 / took
    return result


SLICE = 0.2  # seconds
APART = 0.01  # seconds in which one that was stopped ends what it has in hand


def sliced(targets: Sequence[Running], path: str, connections: int, seconds: float, before: Callable[[], object] = lambda: None, script: pathlib.Path | None = None) -> Rows:
    """Seconds of load at each target, in slices and in random order; only one load runs at a time, and the others are stopped.
    What slows the machine down for a second or two, which is a tenth and more on one that is shared, falls on all alike.
    What one leaves to be done later (a thousandth of a slice) is done in that of another, but counted as its own in `cpu`."""
    loads: list[subprocess.Popen[str]] = []
    spent, began = [0.0] * len(targets), [target.cpu() for target in targets]
    longest = round(2 * seconds * len(targets)) + PATIENCE
    # Nobody is stopped for as long as that; and wrk takes memory for each microsecond of it.
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{longest}s", "--timeout", f"{PATIENCE}s"]
    if script:
        command += ["-s", str(script)]
    try:
        for target in targets:
            loads.append(subprocess.Popen([*command, f"http://127.0.0.1:{target.port}/{path}"], stdout=subprocess.PIPE, text=True))
            loads[-1].send_signal(signal.SIGSTOP)
        for _ in range(round(seconds / SLICE)):
            before()
            for at in random.sample(range(len(targets)), len(targets)):
                loads[at].send_signal(signal.SIGCONT)
                since = time.monotonic()
                time.sleep(SLICE)
                loads[at].send_signal(signal.SIGSTOP)
                spent[at] += time.monotonic() - since
                time.sleep(APART)
        rows = []
        for target, load, took, cpu in zip(targets, loads, spent, began, strict=True):
            load.send_signal(signal.SIGCONT)
            # The thread that is to end the others may not be the one that is told first.
            while load.poll() is None:
                load.send_signal(signal.SIGINT)
                time.sleep(APART)
            out = load.stdout.read() if load.stdout else ""
            requests = int(found(r"(\d+) requests in", out))
            rows.append({"requests": requests, "rps": requests / took, "cpu": (target.cpu() - cpu) / 1000 / max(requests, 1),
                         "bad": bool(re.search(r"Non-2xx or 3xx|Socket errors", out))})
        return rows
    finally:
        for load in loads:
            load.kill()
            load.wait()


TOUCHED = 64 * 2**20  # bytes; more than any log grows by in a round of a second or two


def touch(folder: pathlib.Path) -> None:
    """Has the machine take, and give back, as much memory as a growing file is about to need: what was given back last is taken first.
    A host that takes back what its virtual machine leaves free lends it again page by page, and then a write takes up to three times as
    long as on memory that was in use before. Machines that have been up for a while have none that never was."""
    path, piece = folder / "touched", bytes(2**20)
    with open(path, "wb", buffering=0) as file:
        for _ in range(TOUCHED // len(piece)):
            file.write(piece)
    path.unlink()


def median(rows: Rows, key: str) -> float:
    return float(statistics.median(row[key] for row in rows))


def ratio(own: Rows, base: Rows, key: str) -> float:
    """Of the rounds' ratios the middle one, so that a slow round counts for both."""
    return float(statistics.median(a[key] / b[key] for a, b in zip(own, base, strict=True)))


def figures(own: Rows, base: Rows) -> dict[str, float]:
    """What a result keeps of a server's rounds: medians, and ratios to those of another (of nginx, mostly)."""
    units = {"rps": "rps", "cpu": "cpu_us", "p50": "p50_ms", "p99": "p99_ms"}
    told = {unit: round(median(own, key), 4) for key, unit in units.items() if key in own[0]}
    ratios = {f"{key}_ratio": round(ratio(own, base, key), 4) for key in ("rps", "cpu", "p99") if key in own[0] and key in base[0]}
    return told | ratios


def in_turn(turn: int, count: int) -> list[int]:
    """In which order they are measured: where differences are smaller than what one leaves to the next, nobody is always first."""
    order = [(turn + at) % count for at in range(count)]
    return order if turn % 2 else order[::-1]


def in_all(own: Rows, base: Rows, key: str) -> float:
    """The ratio of what was measured in all rounds together, which the noise of single rounds moves less than a median of ratios."""
    return float(sum(one[key] for one in own) / sum(one[key] for one in base))


def standard_error(own: Rows, base: Rows, key: str) -> float:
    """Of the rounds' ratios, of their mean."""
    ratios = [one[key] / other[key] for one, other in zip(own, base, strict=True)]
    return statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else 0.0
