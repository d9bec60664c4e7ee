"""Cache cases: the same stored answers from Pillion, nginx, HAProxy and Varnish, one core each.

Every case has its own app and its own proxies with empty caches. All is asked for until the app is left
alone, and compared with what the app holds; a proxy that lets requests through while it is measured is an
error, not a figure. The app says max-age=600, so a case must be over before that.
"""

import dataclasses
import gzip
import http.client
import pathlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence

from .load import Row, Rows, answer, figures, measure, median, paced, ratio, shuffled, wrk
from .report import Report
from .servers import (
    Running,
    asked,
    patients,
    start_haproxy,
    start_nginx,
    start_pillion,
    start_stored_origin,
    start_varnish,
    stop,
)

MAX_AGE = 600
CONNECTIONS = 64
RATE, PACED_CONNECTIONS = 5_000, 250
PASSES = 5  # to fill a cache in
LET_THROUGH = 1 / 10_000  # of the requests of one run may reach the app

ONE = {"1k": b'{"items":"%s"}' % (b"x" * 1012)}
MANY = {f"objects/{number}": b'{"id":"%04d","items":"%s"}' % (number, b"x" * 1000) for number in range(2_000)}
VARNISH_UNLOGGED = ",".join(f"-{tag}" for tag in (
    "Begin End Link SessOpen SessClose ReqStart ReqMethod ReqURL ReqProtocol ReqHeader ReqUnset ReqAcct VCL_call VCL_return VCL_use"
    " Hit Timestamp RespProtocol RespStatus RespReason RespHeader RespUnset Filters Gzip Length").split())


class Wrong(Exception):
    """A proxy does not do what the case is about."""


@dataclasses.dataclass(frozen=True)
class Case:
    title: str
    bodies: dict[str, bytes]  # by path; several are asked for in random order
    wanted: tuple[tuple[str, str, float, str], ...]  # what Pillion is to reach: quantity, sign, factor, whose
    coded: bool = False  # asked for with gzip
    conditional: bool = False  # asked for with the entity tag that the proxy gave
    rate: int = 0  # requests a second; 0: as many as it answers


CASES = {
    "hit-1k": Case("1 KiB JSON from the cache", ONE, (("rps", ">=", 1.4, "nginx"), ("cpu", "<=", 0.7, "nginx"))),
    "hit-gzip": Case("32 KiB JSON from the cache, coded with gzip", {"32k": patients()},
                     (("rps", ">=", 12, "nginx"), ("rps", ">=", 1.5, "varnish")), coded=True),
    "hit-spread": Case("2,000 objects of 1 KiB from the cache in random order", MANY, (("rps", ">=", 1.3, "nginx"),)),
    "hit-304": Case("304 from the cache", ONE, (("rps", ">=", 1.4, "nginx"),), conditional=True),
    "hit-latency": Case("1 KiB JSON from the cache in an open loop", ONE, (("p99", "<=", 1.0, "nginx"),), rate=RATE),
}


def run(say: Report, case: Case, binary: pathlib.Path | None, rounds: int, seconds: float) -> None:
    """`binary` is Pillion's; None measures its peers alone."""
    with tempfile.TemporaryDirectory(prefix="pillion-bench-", dir=memory()) as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        targets: list[Running] = []
        origin = start_stored_origin(folder, case.bodies, MAX_AGE)
        try:
            for start in (nginx, nginx_tuned, haproxy, varnish):
                targets.append(start(folder, origin.port))
            if binary:
                shutil.copy(binary, folder / "pillion")
                targets.append(pillion(folder, origin.port))
            turns(say, case, folder, origin, targets, rounds, seconds)
        finally:
            stop([*targets, origin])


def memory() -> str | None:
    return "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None


def nginx(folder: pathlib.Path, origin: int, name: str = "nginx", more: str = "") -> Running:
    stored = f"proxy_cache_path {folder}/{name} levels=1:2 keys_zone=stored:16m max_size=256m inactive=10m use_temp_path=off;"
    return start_nginx(folder, origin, name, f"{stored} {more}", "proxy_cache stored; proxy_cache_valid 200 10m;")


def nginx_tuned(folder: pathlib.Path, origin: int) -> Running:
    # Files kept open took 0.70 of the CPU; sendfile costs small answers more than it saves, so neither has it.
    return nginx(folder, origin, "nginx-tuned", "open_file_cache max=4000 inactive=10m; open_file_cache_valid 10m;")


def haproxy(folder: pathlib.Path, origin: int) -> Running:
    # Compression comes after the cache by itself: stored as they came, answers are coded each time. Its 304 names the
    # length of the content that does not come, for which wrk would wait.
    section = f"cache stored\n  total-max-size 256\n  max-object-size 1048576\n  max-age {MAX_AGE}"
    frontend = "  http-request cache-use stored\n  http-response cache-store stored\n"
    return start_haproxy(folder, origin, section, frontend + "  http-after-response del-header content-length if { status 304 }")


def varnish(folder: pathlib.Path, origin: int) -> Running:
    # A connection in use keeps a thread, so fewer than connections would make them wait. It keeps no log of requests,
    # as the others. Small answers are stored as they are: coded, they would be decoded for clients that do not ask for gzip.
    threads = PACED_CONNECTIONS + 50
    options = ["-s", "malloc,256m"]
    for parameter in ("thread_pools=1", f"thread_pool_min={threads}", f"thread_pool_max={threads}", f"vsl_mask={VARNISH_UNLOGGED}"):
        options += ["-p", parameter]
    return start_varnish(folder, origin, 'sub vcl_backend_response { if (bereq.url == "/32k") { set beresp.do_gzip = true; } }', options)


def pillion(folder: pathlib.Path, origin: int) -> Running:
    return start_pillion(folder, origin, more='[[routes]]\nmatch = "GET /**"\ncache = { ttl = "10m", scope = "shared" }\n')


def turns(say: Report, case: Case, folder: pathlib.Path, origin: Running, targets: Sequence[Running], rounds: int, seconds: float) -> None:
    if len(targets) * (rounds * seconds + 2) > MAX_AGE - 60:
        raise Wrong(f"would take longer than what is stored lives ({MAX_AGE} s): fewer rounds or seconds")
    fields = {target.name: prepare(case, origin, target) for target in targets}
    script = shuffled(folder, case.bodies) if len(case.bodies) > 1 else None
    rows: dict[str, Rows] = {target.name: [] for target in targets}
    for target in targets:
        once(case, origin, target, fields[target.name], script, 1)
    for _ in range(rounds):
        for target in targets:
            rows[target.name].append(once(case, origin, target, fields[target.name], script, seconds))
    for target in targets:
        check(case, target, fields[target.name])
    report(say, case, rows, rounds, seconds)


def prepare(case: Case, origin: Running, target: Running) -> list[str]:
    """Fills the cache and finds the request fields that make the case: asks until a whole pass leaves the app alone."""
    fields = ["Accept-Encoding: gzip"] if case.coded else []
    for _ in range(PASSES):
        before = asked(origin)
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=10)
        for path, body in case.bodies.items():
            status, got, content = answer(target.port, path, fields, connection)
            coding = got["Content-Encoding"]
            if coding != ("gzip" if case.coded else None):
                raise Wrong(f"{target.name} answers with the coding {coding}")
            if status != 200 or (gzip.decompress(content) if coding else content) != body:
                raise Wrong(f"{target.name} answers {status} with other content than the app's for /{path}")
        connection.close()
        if asked(origin) == before + 1:
            break
        time.sleep(0.3)  # for what a proxy stores or codes after it has answered
    else:
        raise Wrong(f"{target.name} does not answer from its cache")
    if case.conditional:
        if not got["ETag"]:
            raise Wrong(f"{target.name} answers without an entity tag")
        fields.append(f"If-None-Match: {got['ETag']}")
    check(case, target, fields)
    return fields


def once(case: Case, origin: Running, target: Running, fields: Sequence[str], script: pathlib.Path | None, seconds: float) -> Row:
    """One run, and whether it was what the case is about: the app left alone, every answer of the right kind."""
    path, body = next(iter(case.bodies.items()))
    before = asked(origin)
    if case.rate:
        row = measure(target, paced, path, case.rate, PACED_CONNECTIONS, seconds, fields=fields)
    else:
        row = measure(target, wrk, path, CONNECTIONS, seconds, fields=fields, script=script)
    row["through"] = asked(origin) - before - 1
    if row["through"] > row["requests"] * LET_THROUGH:
        raise Wrong(f"{target.name} let {row['through']} of {row['requests']} requests through to the app")
    whole = (case.coded or case.conditional) and row["bytes"] >= len(body)
    if row["bad"] or whole or not row["requests"]:
        raise Wrong(f"{target.name} gave {row['requests']} answers, or such as the case does not ask for")
    return row


def check(case: Case, target: Running, fields: Sequence[str]) -> None:
    status = answer(target.port, next(iter(case.bodies)), fields)[0]
    if status != (304 if case.conditional else 200):
        raise Wrong(f"{target.name} answers {status}")


def report(say: Report, case: Case, rows: Mapping[str, Rows], rounds: int, seconds: float) -> None:
    how = f"{case.rate} requests/s over {PACED_CONNECTIONS} connections" if case.rate else f"{CONNECTIONS} keep-alive connections"
    say(f"\n{case.title}: {how}, {rounds} rounds of {seconds} s")
    say(f"  {'':14} {'requests/s':>11} {'CPU us/req':>11} {'core':>5} {'p50 ms':>8} {'p99 ms':>8} {'bytes':>7} {'to app':>7}"
        f" {'rps':>6} {'CPU':>6} {'p99':>6}  as ratios to nginx")
    base = rows["nginx"]
    name = next(name for name, known in CASES.items() if known is case)
    say.case(name, title=case.title, connections=PACED_CONNECTIONS if case.rate else CONNECTIONS, rounds=rounds, seconds=seconds,
             rows={server: figures(own, base) for server, own in rows.items()})
    for name, own in rows.items():
        size = "" if case.rate else f"{median(own, 'bytes'):.0f}"
        say(f"  {name:14} {median(own, 'rps'):11.0f} {median(own, 'cpu'):11.2f} {median(own, 'busy'):5.0%} {median(own, 'p50'):8.3f} {median(own, 'p99'):8.3f}"
            f" {size:>7} {sum(row['through'] for row in own):7} {ratio(own, base, 'rps'):6.2f} {ratio(own, base, 'cpu'):6.2f} {ratio(own, base, 'p99'):6.2f}")
        if not case.rate and median(own, "busy") < 0.9:
            say(f"  note: {name} did not fill its core: something else was the limit, and its requests/s may be more")
    for quantity, sign, factor, whose in case.wanted:
        target = f"  target: {quantity} {sign} {factor:.2f} x {whose}"
        if "pillion" not in rows:
            say(f"{target}: not measured")
            continue
        got = ratio(rows["pillion"], rows[whose], quantity)
        holds = got >= factor if sign == ">=" else got <= factor
        tuned = f" ({ratio(rows['pillion'], rows['nginx-tuned'], quantity):.3f} x nginx-tuned)" if whose == "nginx" else ""
        say(f"{target}: {got:.3f} {'holds' if holds else 'MISSED'}{tuned}")
