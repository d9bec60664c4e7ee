// Shows openapi.json of this process, and asks what can be asked by GET.
"use strict";

const byId = (id) => document.getElementById(id);

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function target(path, form) {
  const asked = new URLSearchParams();
  let filled = path;
  for (const input of form.querySelectorAll("input, select")) {
    if (input.dataset.in === "path") filled = filled.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.value) asked.append(input.name, input.value);
  }
  return asked.size ? `${filled}?${asked}` : filled;
}

function field(schema) {
  if (!schema.enum) return element("input");
  const select = element("select");
  select.append(...["", ...schema.enum].map((word) => element("option", word)));
  return select;
}

function operation(path, method, told) {
  const section = element("section");
  const head = element("h2", `${method.toUpperCase()} ${path}`);
  const form = element("form");
  const shown = element("pre");
  shown.tabIndex = 0;
  for (const parameter of told.parameters) {
    const label = element("label", `${parameter.name} `);
    const input = field(parameter.schema);
    Object.assign(input, { name: parameter.name, required: parameter.required, placeholder: parameter.description || "", title: parameter.description || "" });
    input.dataset.in = parameter.in;
    label.append(input);
    form.append(label, " ");
  }
  form.append(element("button", method === "get" ? "Send" : "Show the command"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const asked = target(path, form);
    const token = byId("token").value;
    if (method !== "get") {
      shown.textContent = `curl -X POST ${token ? "-H 'Authorization: Bearer ...' " : ""}'${location.origin}${asked}'`;
      return;
    }
    try {
      const answer = await fetch(asked.slice(1) || "./", { headers: token ? { authorization: `Bearer ${token}` } : {} });
      if (answer.headers.get("content-type") === "text/event-stream") {
        const { value } = await answer.body.pipeThrough(new TextDecoderStream()).getReader().read();
        shown.textContent = value;
        return;
      }
      const text = await answer.text();
      let formatted = text;
      try { formatted = JSON.stringify(JSON.parse(text), null, 2); } catch { /* it is text */ }
      shown.textContent = `${answer.status}\n${formatted}`;
    } catch (error) {
      shown.textContent = String(error);
    }
  });
  section.append(head, element("p", told.summary, "soft"), form, shown);
  return section;
}

(async () => {
  const told = await (await fetch("openapi.json")).json();
  byId("state").textContent = told.info.version;
  for (const [path, methods] of Object.entries(told.paths)) {
    for (const [method, what] of Object.entries(methods)) byId("operations").append(operation(path, method, what));
  }
})();
