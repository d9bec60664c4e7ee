"""What a limit costs: requests passed through under one of 5,000 keys, and the memory of many keys."""

import pathlib
import shutil
import tempfile
import time

from .load import Rows, figures, in_all, in_turn, measure, median, ratio, wrk
from .report import Report
from .servers import Running, metric, start_nginx, start_origin, start_pillion, stop

KEYS = 5000
MEMORY = ((100_000, 16), (1_000_000, 160))  # keys, MiB they may take
LONGEST = 120  # seconds until so many keys have come
UNTOUCHED = """[rate_limit]
unlisted_keys = "own"
max_keys = {most}
[rate_limit.tiers.free.limits]
requests = {{ rate = "{rate}", burst = {burst} }}
"""


def with_keys(folder: pathlib.Path) -> pathlib.Path:
    """A script for wrk that asks under one of the keys, at random."""
    script = folder / "keys.lua"
    script.write_text(f"""local asks = {{}}
init = function()
  math.randomseed(7)
  for key = 1, {KEYS} do asks[key] = wrk.format("GET", "/1k", {{["X-API-Key"] = "key-" .. key}}) end
end
request = function() return asks[math.random({KEYS})] end
""")
    return script


def with_ever_new_keys(folder: pathlib.Path, begin: int) -> pathlib.Path:
    script = folder / f"new-{begin}.lua"
    script.write_text(f"""local key = {begin}
request = function()
  key = key + 1
  return wrk.format("GET", "/1k", {{["X-API-Key"] = "key-" .. key}})
end
""")
    return script


def throughput(say: Report, folder: pathlib.Path, origin: Running, rounds: int, seconds: float) -> None:
    zone = "limit_req_zone $http_x_api_key zone=keys:16m rate=1000000r/s;"
    nginx = start_nginx(folder, origin.port, "limited", zone, "limit_req zone=keys burst=1000000 nodelay;")
    section = UNTOUCHED.format(most=100_000, rate="1000000/s", burst=1_000_000)
    limited = start_pillion(folder, origin.port, more=section)
    open_to_all = start_pillion(folder, origin.port)
    script = with_keys(folder)
    targets = [("nginx limit_req", nginx), ("pillion", limited), ("pillion, no limit", open_to_all)]
    try:
        rows: dict[str, Rows] = {name: [] for name, _ in targets}
        for _, target in targets:
            wrk(target.port, "1k", 64, 1, script=script)
        for turn in range(rounds):
            for at in in_turn(turn, len(targets)):
                name, target = targets[at]
                rows[name].append(measure(target, wrk, "1k", 64, seconds, script=script))
        say(f"\n1 KiB JSON passed through under a limit over {KEYS:,} keys: 64 keep-alive connections, {rounds} rounds of {seconds} s")
        say(f"  {'':18} {'requests/s':>11} {'CPU us/req':>11} {'p50 ms':>8} {'p99 ms':>8} {'rps/nginx':>10} {'CPU/nginx':>10}")
        base = rows["nginx limit_req"]
        for name, _ in targets:
            own = rows[name]
            say(f"  {name:18} {median(own, 'rps'):11.0f} {median(own, 'cpu'):11.2f} {median(own, 'p50'):8.3f} {median(own, 'p99'):8.3f}"
                f" {ratio(own, base, 'rps'):10.2f} {ratio(own, base, 'cpu'):10.2f}")
        got = in_all(rows["pillion"], base, "rps")
        say(f"  target: rps >= 0.95 x nginx: {got:.3f} in all {'holds' if got >= 0.95 else 'MISSED'}; by the median round {ratio(rows['pillion'], base, 'rps'):.3f}")
        say.case("limited", title=f"1 KiB JSON passed through under a limit over {KEYS:,} keys", connections=64, rounds=rounds, seconds=seconds,
                 rows={name: figures(own, base) for name, own in rows.items()})
        # Of medians: one slow round of either is more than what is looked for.
        share = median(rows["pillion"], "cpu") - median(rows["pillion, no limit"], "cpu")
        by_mean = sum(a["cpu"] - b["cpu"] for a, b in zip(rows["pillion"], rows["pillion, no limit"], strict=True)) / rounds
        say(f"  target: the limiter's share <= 1 us: {share:.2f} {'holds' if share <= 1 else 'MISSED'}; by the mean {by_mean:.2f}")
    finally:
        stop([target for _, target in targets])


def memory(say: Report, folder: pathlib.Path, origin: Running) -> None:
    say("\nmemory of keys, each with a quota that is not whole")
    for keys, allowed in MEMORY:
        target = start_pillion(folder, origin.port, more=UNTOUCHED.format(most=keys, rate="1/h", burst=10))
        try:
            wrk(target.port, "1k", 64, 2, refused=True)
            time.sleep(1)
            empty, begin, due = target.resident(), 0, time.monotonic() + LONGEST
            while metric(target, "pillion_limit_keys") < keys and time.monotonic() < due:
                wrk(target.port, "1k", 64, 4, script=with_ever_new_keys(folder, begin), refused=True)
                begin += 10_000_000
            held, full = metric(target, "pillion_limit_keys"), target.resident()
            mib = (full - empty) / 2**20
            say(f"  {held:9.0f} keys: {mib:6.1f} MiB, {(full - empty) / max(held, 1):.0f} bytes each")
            say.case("memory of keys", keys=int(held), bytes=int(full - empty), limit_mib=allowed, holds=mib <= allowed and held >= keys)
            say(f"  target: {keys} in {allowed} MiB: {'holds' if mib <= allowed and held >= keys else 'MISSED'}")
        finally:
            target.stop()


def run(say: Report, binary: pathlib.Path, rounds: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="pillion-bench-") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        shutil.copy(binary, folder / "pillion")
        origin = start_origin(folder)
        throughput(say, folder, origin, rounds, seconds)
        memory(say, folder, origin)
        origin.stop()
