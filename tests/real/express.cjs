// An Express app as people write them: sessions, static files, forms that redirect, signed links, events, long polls.
const crypto = require("node:crypto");
const fs = require("node:fs");
const express = require("express");
const session = require("express-session");

const files = process.argv[2];
const app = express();
app.set("trust proxy", "loopback");
app.use(session({ secret: "a secret of the test", resave: false, saveUninitialized: false }));
app.use(express.urlencoded({ extended: false }));

// What reached the app, told to the test outside Pillion.
const seen = [];
app.use((request, _, next) => {
  seen.push(`${request.method} ${request.originalUrl} ${request.session.user ?? "-"}`);
  next();
});

const login = '<form method="post" action="/login"><input name="user"></form>';
app.get("/login", (_, response) => response.send(login));
app.post("/login", (request, response, next) => {
  request.session.regenerate((error) => {
    if (error) return next(error);
    request.session.user = request.body.user;
    response.redirect("/account");
  });
});
app.post("/logout", (request, response, next) => {
  request.session.destroy((error) => {
    if (error) return next(error);
    response.clearCookie("connect.sid").redirect("/login");
  });
});
const members = (request, response, next) => (request.session.user ? next() : response.redirect("/login"));
app.get("/account", members, (request, response) => response.send(`account of ${request.session.user}`));

// Static files: behind the login by Express' default (public, max-age=0, ETag, Last-Modified), and for everybody.
app.use("/members", members, express.static(files));
app.use("/assets", express.static(files, { maxAge: "1h" }));

// Post, redirect, get: /notes says its lifetime itself, /board leaves it to a route.
const notes = { "/notes": [], "/board": [] };
for (const [path, list] of Object.entries(notes)) {
  app.get(path, (_, response) => {
    if (path === "/notes") response.set("Cache-Control", "public, max-age=600");
    response.send(`notes: ${list.join(", ")}`);
  });
  app.post(path, (request, response) => {
    list.push(request.body.note);
    response.redirect(path);
  });
  app.post(`${path}/new`, (request, response) => {
    list.push(request.body.note);
    response.redirect(path);
  });
}

// A link whose signature covers all of its query, as those of Laravel, Rails and Symfony do.
const sign = (url) => crypto.createHmac("sha256", "a key of the test").update(url).digest("hex");
app.get("/link", (request, response) => {
  const url = request.query.for;
  response.send(`${url}${url.includes("?") ? "&" : "?"}signature=${sign(url)}`);
});
app.get("/file/:name", (request, response) => {
  const [url, signature] = request.originalUrl.split(/[?&]signature=/);
  if (signature !== sign(url)) return response.status(403).send("Invalid signature.");
  response.set("Cache-Control", "public, max-age=600").send(`content of ${request.params.name}`);
});

// Three events a connection, each when the page has told that it got the one before; then the next connection goes on.
const page = `<!doctype html><title></title><script>
  const source = new EventSource("/events");
  source.onmessage = (event) => {
    document.title += (document.title && ",") + event.lastEventId + ":" + event.data;
    fetch("/heard", { method: "POST", body: event.lastEventId });
  };
</script>`;
app.get("/", (_, response) => response.send(page));
let heard = () => {};
app.post("/heard", express.text({ type: "*/*" }), (request, response) => {
  heard(Number(request.body));
  response.sendStatus(204);
});
app.get("/events", (request, response) => {
  const first = Number(request.get("Last-Event-ID") ?? 0) + 1;
  response.type("text/event-stream").flushHeaders();
  const send = (id) => response.write(`retry: 50\nid: ${id}\ndata: event ${id}\n\n`);
  heard = (id) => (id < first + 2 ? send(id + 1) : response.end());
  send(first);
});

app.get("/favicon.ico", (_, response) => response.sendStatus(204));

app.get("/poll", (request, response) => {
  setTimeout(() => response.json({ after: request.query.seconds }), Number(request.query.seconds) * 1000);
});
app.get("/slow", (request, response) => setTimeout(() => response.send("late"), Number(request.query.seconds) * 1000));

app.get("/seen", (_, response) => response.json(seen));

fs.writeFileSync(`${files}/page.html`, "<p>A page of the members.</p>");
fs.writeFileSync(`${files}/large.js`, "let a = 1;\n".repeat(20_000));
const server = app.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${server.address().port}`));
