// Reads the process's own events and shows them. Nothing here comes from elsewhere, and nothing is sent anywhere.
"use strict";

const KEPT = 90;
// Events come every two seconds.
const SILENT = 7000;

function milliseconds(value) {
  return value.toFixed(value < 1 ? 3 : 1);
}

const FIGURES = [
  ["rate", "requests/s", (value) => value.toFixed(value < 10 ? 1 : 0)],
  ["p50", "p50 ms", milliseconds],
  ["p95", "p95 ms", milliseconds],
  ["p99", "p99 ms", milliseconds],
  ["errors", "failed %", (value) => value.toFixed(1)],
  ["hits", "cache hits %", (value) => value.toFixed(0)],
  ["limited", "limited/s", (value) => value.toFixed(1)],
  ["flight", "in flight", (value) => value.toFixed(0)],
  ["memory", "memory MiB", (value) => value.toFixed(0)],
  ["cpu", "CPU %", (value) => value.toFixed(0)],
];
const COLUMNS = [
  ["route", "Route"], ["count", "Requests"], ["rate", "per s"], ["p50_ms", "p50 ms"], ["p95_ms", "p95 ms"],
  ["p99_ms", "p99 ms"], ["max_ms", "max ms"], ["error_rate", "failed"], ["hit_ratio", "hits"], ["bytes", "KiB"],
];
const SHARES = ["error_rate", "hit_ratio"];

const byId = (id) => document.getElementById(id);
const history = {};
let before = null;
let sort = "count";
let rows = [];
let token = sessionStorage.getItem("token") || "";
let heard = 0;

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function line(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${KEPT - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const most = Math.max(...values, 1e-9);
  const drawn = document.createElementNS(svg.namespaceURI, "polyline");
  const at = (value, place) => `${KEPT - values.length + place},${(19 - 18 * value / most).toFixed(2)}`;
  drawn.setAttribute("points", values.map(at).join(" "));
  svg.append(drawn);
  return svg;
}

function figures(values) {
  byId("figures").replaceChildren(...FIGURES.map(([name, label, shown]) => {
    const known = history[name] ||= [];
    const value = values[name] ?? 0;
    known.push(value);
    if (known.length > KEPT) known.shift();
    const figure = element("figure");
    figure.id = `figure-${name}`;
    figure.append(element("figcaption", label), element("b", shown(value)), line(known));
    return figure;
  }));
}

function head() {
  byId("table").tHead.rows[0].replaceChildren(...COLUMNS.map(([name, label]) => {
    const cell = element("th");
    cell.scope = "col";
    if (name === sort) cell.setAttribute("aria-sort", name === "route" ? "ascending" : "descending");
    const button = element("button", label);
    button.type = "button";
    button.id = `by-${name}`;
    button.addEventListener("click", () => {
      sort = name;
      head();
      body();
      byId(`by-${name}`).focus();
    });
    cell.append(button);
    return cell;
  }));
}

function cell(row, name) {
  const value = row[name];
  if (name === "route") return element("td", value, row.failing || row.state === "unhealthy" ? "bad" : row.state === "degraded" ? "fair" : "");
  if (value === null) return element("td", "–", "soft");
  if (SHARES.includes(name)) return element("td", `${(100 * value).toFixed(1)} %`, name === "error_rate" && value > 0.1 ? "bad" : "");
  return element("td", name === "bytes" ? (value / 1024).toFixed(0) : String(value));
}

function body() {
  const order = (a, b) => sort === "route" ? a.route.localeCompare(b.route) : (b[sort] ?? -1) - (a[sort] ?? -1);
  const shown = [...rows].sort(order).map((row) => {
    const made = element("tr");
    made.append(...COLUMNS.map(([name]) => cell(row, name)));
    return made;
  });
  byId("table").tBodies[0].replaceChildren(...shown);
}

function list(id, items, none) {
  byId(id).replaceChildren(...(items.length ? items : [element("li", none, "soft")]));
}

function show(event) {
  const rate = (name) => {
    const seconds = before ? event.time - before.time : 0;
    return seconds > 0 ? Math.max(0, event[name] - before[name]) / seconds : 0;
  };
  figures({
    rate: rate("requests"), p50: event.p50_ms, p95: event.p95_ms, p99: event.p99_ms,
    errors: 100 * (event.error_rate ?? 0), hits: 100 * (event.hit_ratio ?? 0), limited: rate("limited"),
    flight: event.in_flight, memory: event.resident_bytes / 1048576, cpu: 100 * rate("cpu_seconds"),
  });
  before = event;
  heard = Date.now();
  rows = event.routes;
  body();
  list("upstreams", event.upstreams.map((app) => {
    const item = element("li");
    item.append(element("span", app.healthy ? "● " : "○ ", app.healthy ? "good" : "bad"),
      `${app.name} ${app.address}: ${app.healthy ? "healthy" : "failing"}, ${app.in_flight} in flight, ${app.waiting} waiting`);
    return item;
  }), "no address known yet");
  list("tiers", event.tiers.map((tier) => element("li", `${tier.tier}: ${tier.allowed} passed, ${tier.limited} limited${tier.would_limit ? `, ${tier.would_limit} would be` : ""}`)), "no tier is configured");
  list("warned", event.warnings.map((warning) => {
    const at = new Date(1000 * warning.time).toLocaleTimeString();
    return element("li", `${at} ${warning.recovered ? "recovered: " : ""}${warning.text}`, warning.recovered ? "good" : "bad");
  }), "none");
  // The text is written only when it changes, so that a screen reader says it once.
  const maintenance = event.maintenance ? "Maintenance is on: requests for the upstream get 503 until `pillion maintenance off`." : "";
  if (byId("maintenance").textContent !== maintenance) byId("maintenance").textContent = maintenance;
  const up = event.uptime_seconds;
  byId("state").textContent = `${event.version}, up ${up < 7200 ? `${Math.round(up / 60)} min` : `${Math.round(up / 3600)} h`}, configuration ${event.generation}, ${event.connections} connections`;
}

function ask(path) {
  return fetch(path, { headers: token ? { authorization: `Bearer ${token}` } : {}, cache: "no-store" });
}

async function follow() {
  const answer = await ask("events");
  if (answer.status === 401) {
    byId("ask").hidden = false;
    byId("state").textContent = "enter the admin token";
    return false;
  }
  if (!answer.ok) throw new Error(`${answer.status}`);
  byId("ask").hidden = true;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return true;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) if (event.startsWith("data: ")) show(JSON.parse(event.slice(6)));
  }
}

async function keep() {
  for (;;) {
    try {
      if (!await follow()) return;
    } catch (error) {
      byId("state").textContent = "Pillion cannot be reached; retrying";
    }
    await new Promise((done) => setTimeout(done, 2000));
  }
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  sessionStorage.setItem("token", token);
  keep();
});
// A link carries no token.
document.querySelector("footer").addEventListener("click", async (event) => {
  const path = event.target.getAttribute("href");
  if (!token || !path || path === "api") return;
  event.preventDefault();
  const answer = await ask(path);
  location.assign(URL.createObjectURL(new Blob([await answer.text()], { type: "text/plain;charset=utf-8" })));
});
setInterval(() => {
  const silent = Date.now() - heard;
  if (heard && silent > SILENT) byId("state").textContent = `disconnected, last update ${Math.round(silent / 1000)} s ago`;
}, 1000);
head();
keep();
