// A service of Connect, and its own client: `serve` over HTTP/2, `serve1` over HTTP/1.1; `talk URL VERSION` over each
// protocol that an app of that version has, `pause URL SECONDS` in the midst of a conversation.
const http = require("node:http");
const http2 = require("node:http2");
const { createFileRegistry, create } = require("@bufbuild/protobuf");
const { FileDescriptorProtoSchema, FieldDescriptorProto_Type, FieldDescriptorProto_Label } =
  require("@bufbuild/protobuf/wkt");
const { createClient, Code, ConnectError } = require("@connectrpc/connect");
const { connectNodeAdapter, createConnectTransport, createGrpcTransport, createGrpcWebTransport } =
  require("@connectrpc/connect-node");

// What protoc would make of: message Note { string text = 1; } service Notes { ... }
const method = (name, clientStreaming, serverStreaming) => ({
  name, clientStreaming, serverStreaming, inputType: ".test.Note", outputType: ".test.Note",
});
const file = create(FileDescriptorProtoSchema, {
  name: "notes.proto", package: "test", syntax: "proto3",
  messageType: [{
    name: "Note",
    field: [{
      name: "text", number: 1, jsonName: "text",
      type: FieldDescriptorProto_Type.STRING, label: FieldDescriptorProto_Label.OPTIONAL,
    }],
  }],
  service: [{
    name: "Notes",
    method: [method("Say", false, false), method("Tell", false, true), method("Chat", true, true)],
  }],
});
const Notes = createFileRegistry(file, () => undefined).getService("test.Notes");

const routes = (router) => router.service(Notes, {
  say(note) {
    if (note.text === "refuse") throw new ConnectError("not now", Code.FailedPrecondition);
    return { text: `heard ${note.text}` };
  },
  async *tell(note) {
    for (let at = 0; at < 5; at += 1) yield { text: `${note.text} ${at}` };
    if (note.text === "break off") throw new ConnectError("broken off", Code.Aborted);
  },
  async *chat(notes) {
    for await (const note of notes) yield { text: `heard ${note.text}` };
  },
});

// A queue that the conversation fills while it reads.
function queue() {
  const waiting = [];
  let wake = () => {};
  return {
    push(item) { waiting.push(item); wake(); },
    async *[Symbol.asyncIterator]() {
      for (;;) {
        while (waiting.length === 0) await new Promise((resolve) => { wake = resolve; });
        const item = waiting.shift();
        if (item === undefined) return;
        yield item;
      }
    },
  };
}

const check = (what, seen, expected) => {
  if (seen !== expected) throw new Error(`${what}: ${seen} in place of ${expected}`);
};

// Each note leaves when the answer to the one before is here.
async function converse(client, pause) {
  const outgoing = queue();
  const incoming = client.chat(outgoing)[Symbol.asyncIterator]();
  for (let at = 0; at < 20; at += 1) {
    if (at === 10) await new Promise((resolve) => setTimeout(resolve, pause * 1000));
    outgoing.push({ text: String(at) });
    check("chat", (await incoming.next()).value.text, `heard ${at}`);
  }
  outgoing.push(undefined);
  check("its end", (await incoming.next()).done, true);
}

async function talk(name, transport, bothWays) {
  const client = createClient(Notes, transport);
  check("unary", (await client.say({ text: "one" })).text, "heard one");
  const refused = await client.say({ text: "refuse" }).then(() => "fine", (error) => Code[error.code]);
  check("refused", refused, "FailedPrecondition");
  for (const [text, end] of [["note", "fine"], ["break off", "Aborted"]]) {
    let count = 0;
    let ended = "fine";
    try {
      for await (const note of client.tell({ text })) {
        check("told", note.text, `${text} ${count}`);
        count += 1;
      }
    } catch (error) {
      ended = Code[error.code];
    }
    check("told in all", `${count} ${ended}`, `5 ${end}`);
  }
  if (bothWays) await converse(client, 0);
  console.log(`${name}: fine`);
}

async function main() {
  const [, , order, baseUrl, last] = process.argv;
  if (order.startsWith("serve")) {
    const make = order === "serve" ? http2.createServer : http.createServer;
    const server = make(connectNodeAdapter({ routes }));
    server.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${server.address().port}`));
    return;
  }
  if (order === "pause") {
    const transports = [createConnectTransport({ baseUrl, httpVersion: "2" }), createGrpcWebTransport({ baseUrl, httpVersion: "2" })];
    await Promise.all(transports.map((transport) => converse(createClient(Notes, transport), Number(last))));
    console.log("fine");
    process.exit(0);
  }
  const full = last === "2";
  for (const useBinaryFormat of [false, true]) {
    const kind = useBinaryFormat ? "proto" : "json";
    for (const httpVersion of ["2", "1.1"]) {
      const options = { baseUrl, useBinaryFormat, httpVersion };
      const bothWays = full && httpVersion === "2";
      await talk(`connect+${kind} ${httpVersion}`, createConnectTransport(options), bothWays);
      await talk(`grpc-web+${kind} ${httpVersion}`, createGrpcWebTransport(options), bothWays);
      if (bothWays) await talk(`grpc+${kind} ${httpVersion}`, createGrpcTransport(options), true);
    }
  }
  process.exit(0);
}

main().catch((error) => { console.error(error); process.exit(1); });
