"""The servers that are measured and the apps behind them: started on free ports, each on one core.

What is asked of them is in `load`, what comes of it in `compare` and `hits`.
"""

import contextlib
import glob
import http.client
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

PROXY_CORE, LOAD_CORE = "0", "1"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def free_ports(count: int) -> list[int]:
    """Different ones."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def found(pattern: str, text: str, flags: re.RegexFlag = re.NOFLAG) -> str:
    """The first group of what a pattern finds, which has to be there."""
    match = re.search(pattern, text, flags)
    if match is None:
        raise ValueError(f"no {pattern} in {text!r}")
    return str(match.group(1))


class Running:
    """A process pinned to a core, ended by its own id."""

    alive: ClassVar[list["Running"]] = []  # all of them, so that none is left behind whatever happens

    def __init__(self, name: str, core: str, command: Sequence[str], cwd: pathlib.Path, port: int) -> None:
        self.name, self.port = name, port
        self.admin = 0  # a Pillion's admin port
        errors = cwd / f"errors-{port}"
        with errors.open("w") as out:
            self.process = subprocess.Popen(["taskset", "-c", core, *command], cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        Running.alive.append(self)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.stop()
                    sys.exit(f"{name} does not listen on {port}:\n{errors.read_text()}")
                time.sleep(0.02)

    def cpu(self) -> int:
        """Nanoseconds on a core, all threads; with those of a child, where the one we started only watches over it."""
        total = 0
        for process in [self.process.pid, *children(self.process.pid)]:
            for path in glob.glob(f"/proc/{process}/task/*/schedstat"):
                with contextlib.suppress(OSError):
                    total += int(pathlib.Path(path).read_text().split()[0])
        return total

    def resident(self) -> int:
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(found(r"VmRSS:\s+(\d+)", text)) * 1024

    def stop(self) -> None:
        if self not in Running.alive:
            return
        Running.alive.remove(self)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def stop(targets: Iterable[Running]) -> None:
    for target in list(targets):
        target.stop()


def children(parent: int) -> list[int]:
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            after_name = pathlib.Path(path).read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == parent:
            found.append(int(path.split("/")[2]))
    return found


NGINX_HEAD = """daemon off; master_process off; pid {dir}/{name}.pid; error_log /dev/null;
events {{ worker_connections 20000; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;
client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir}; uwsgi_temp_path {dir}; scgi_temp_path {dir};
"""


def patients() -> bytes:
    """32 KiB of JSON as apps write it: a list whose items name themselves in their links."""
    numbers = random.Random(7)
    items: list[dict[str, object]] = []
    text = ""
    while len(text) < 32_500:
        number = 1001 + len(items)
        born = f"19{numbers.randint(40, 99)}-{numbers.randint(1, 12):02}-{numbers.randint(1, 28):02}"
        link = f"/api/patients/{number}"
        items.append({"id": number, "name": f"Patient {number}", "email": f"patient.{number}@clinic.example", "born": born,
                      "notes": "No known allergies. Prefers appointments in the morning.",
                      "links": {"self": link, "visits": f"{link}/visits", "billing": f"{link}/billing"}})
        text = json.dumps({"page": 1, "items": items}, separators=(",", ":"))
    return text.encode()


def start_origin(folder: pathlib.Path) -> Running:
    """An app whose answers say nothing of how long they may be stored; it takes traces, too."""
    port = free_port()
    (folder / "1m").write_bytes(os.urandom(1 << 20))
    (folder / "32k").write_bytes(patients())
    conf = NGINX_HEAD.format(dir=folder, name="origin") + f"""
sendfile on; open_file_cache max=16; default_type application/json;
server {{ listen 127.0.0.1:{port} backlog=4096; root {folder}; location = /32k {{ etag off; add_header Last-Modified ""; }}
location = /v1/traces {{ client_max_body_size 16m; return 200; }}
location = /1k {{ return 200 '{{"items":"{"x" * 1012}"}}'; }} }} }}"""
    (folder / "origin.conf").write_text(conf)
    return Running("bare upstream", LOAD_CORE, ["nginx", "-c", str(folder / "origin.conf"), "-p", str(folder)], folder, port)


def start_stored_origin(folder: pathlib.Path, bodies: Mapping[str, bytes], max_age: int) -> Running:
    """An app whose answers may be stored and carry a strong entity tag; it counts what it is asked."""
    port = free_port()
    for path, body in bodies.items():
        (folder / "app" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "app" / path).write_bytes(body)
    conf = NGINX_HEAD.format(dir=folder, name="origin") + f"""
default_type application/json;
server {{ listen 127.0.0.1:{port} backlog=4096; root {folder}/app; add_header Cache-Control max-age={max_age};
location = /asked {{ stub_status; }} }} }}"""
    (folder / "origin.conf").write_text(conf)
    return Running("upstream", LOAD_CORE, ["nginx", "-c", str(folder / "origin.conf"), "-p", str(folder)], folder, port)


def asked(origin: Running) -> int:
    """Requests that have come to it so far, this one included."""
    connection = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=10)
    connection.request("GET", "/asked")
    text = connection.getresponse().read().decode()
    connection.close()
    return int(found(r"requests\s+\d+ \d+ (\d+)", text))


def start_nginx(folder: pathlib.Path, origin: int, name: str = "nginx", http: str = "", location: str = "") -> Running:
    port = free_port()
    conf = NGINX_HEAD.format(dir=folder, name=name) + f"""
upstream app {{ server 127.0.0.1:{origin}; keepalive 256; keepalive_requests 1000000000; }}
gzip on; gzip_comp_level 6; gzip_min_length 1024; gzip_proxied any; gzip_types application/json; {http}
server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://app; proxy_http_version 1.1; {location}
proxy_set_header Connection ""; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;
proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-Id $request_id; }} }} }}"""
    (folder / f"{name}.conf").write_text(conf)
    return Running(name, PROXY_CORE, ["nginx", "-c", str(folder / f"{name}.conf"), "-p", str(folder)], folder, port)


def start_haproxy(folder: pathlib.Path, origin: int, section: str = "", frontend: str = "") -> Running:
    port = free_port()
    (folder / "haproxy.cfg").write_text(f"""
global
  nbthread 1
  maxconn 2000
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 1s
  http-reuse always
  option forwardfor
  compression algo gzip
  compression type application/json
{section}
frontend f
  bind 127.0.0.1:{port} backlog 4096
{frontend}
  default_backend b
backend b
  server s 127.0.0.1:{origin} pool-max-conn 256
""")
    return Running("haproxy", PROXY_CORE, ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], folder, port)


def start_varnish(folder: pathlib.Path, origin: int, vcl: str = "", options: Sequence[str] = ()) -> Running:
    port = free_port()
    (folder / "varnish.vcl").write_text(f"""vcl 4.1;
backend app {{ .host = "127.0.0.1"; .port = "{origin}"; }}
{vcl}
""")
    command = ["varnishd", "-F", "-j", "none", "-T", "none", "-n", str(folder / "varnish"), "-a", f"127.0.0.1:{port}",
               "-f", str(folder / "varnish.vcl"), *options]
    return Running("varnish", PROXY_CORE, command, folder, port)


def start_pillion(folder: pathlib.Path, origin: int, workers: int = 1, cores: str = PROXY_CORE, effort: str = "balanced", upstream: str = "", server: str = "", access: str = "off", more: str = "",
                  max_connections: int = 20000, descriptors: int | None = None, scheme: str = "http") -> Running:
    """Runs the copy of the binary that `folder` holds, with at most `descriptors` open files where that is given."""
    port, admin = free_ports(2)
    path = folder / f"pillion-{port}.toml"
    path.write_text(f"""[server]
listen = ["127.0.0.1:{port}"]
admin = "127.0.0.1:{admin}"
workers = {workers}
max_connections = {max_connections}
{server}[upstream]
url = "{scheme}://127.0.0.1:{origin}"
{upstream}[compression]
effort = "{effort}"
[log]
access = "{access}"
format = "json"
{more}""")
    limited = ["prlimit", f"--nofile={descriptors}"] if descriptors else []
    running = Running("pillion", cores, [*limited, str(folder / "pillion"), "run", "--config", str(path)], folder, port)
    running.admin = admin
    return running


def metric(target: Running, name: str) -> float:
    """What a Pillion counts under a name without labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{target.admin}/metrics", timeout=10) as answer:
        return float(found(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.M))
