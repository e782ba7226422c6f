// The stock TypeScript SDK of ACP, unchanged, against the gateways that check_typescript_sdk.py started.
// ECHO_URL is one with the echo agent, ASKING_URL one whose agent asks first; TOKEN is one that both know.

import assert from "node:assert/strict";
import test from "node:test";

import * as acp from "@agentclientprotocol/sdk";
import { createWebSocketStream } from "@agentclientprotocol/sdk/experimental/ws-client";
import { WebSocket } from "ws"; // Node before 22 has none of its own

const { ECHO_URL, ASKING_URL, TOKEN } = process.env;
const { agent, client } = acp.methods;
const limit = { timeout: 60_000 };

/** What a client of the SDK gets: its updates, and a wait for what is to come. */
class Client {
  updates = [];
  asked = [];
  #news = [];

  constructor(url, { headers, onPermission = () => ({ outcome: { outcome: "cancelled" } }) } = {}) {
    const app = acp
      .client({ name: "test-sdk" })
      .onNotification(client.session.update, (ctx) => this.#came(this.updates, ctx.params))
      .onRequest(client.session.requestPermission, (ctx) => {
        this.#came(this.asked, ctx.params);
        return onPermission(ctx);
      });
    this.connection = app.connect(createWebSocketStream(url, { WebSocket, headers }));
    this.agent = this.connection.agent;
  }

  #came(list, item) {
    list.push(item);
    this.#news.splice(0).forEach((wake) => wake());
  }

  async until(holds) {
    while (!holds()) await new Promise((wake) => this.#news.push(wake));
  }

  async initialize() {
    return await this.agent.request(agent.initialize, {
      protocolVersion: acp.PROTOCOL_VERSION,
      clientCapabilities: {},
    });
  }

  async authenticate(token = TOKEN) {
    return await this.agent.request(agent.authenticate, {
      methodId: "token",
      _meta: { "gateway-trio": { token } },
    });
  }

  async newSession() {
    return (await this.agent.request(agent.session.new, { cwd: "/", mcpServers: [] })).sessionId;
  }

  prompt(sessionId, text, options) {
    return this.agent.request(agent.session.prompt, { sessionId, prompt: [{ type: "text", text }] }, options);
  }

  /** The pieces of each message of a kind, in the order in which the messages began. */
  messages(kind = "agent_message_chunk") {
    const found = new Map();
    for (const { update } of this.updates.filter(({ update }) => update.sessionUpdate === kind)) {
      found.set(update.messageId, [...(found.get(update.messageId) ?? []), update.content.text]);
    }
    return [...found.values()];
  }

  texts(kind) {
    return this.messages(kind).map((pieces) => pieces.join(""));
  }

  commands() {
    const lists = this.updates.filter(({ update }) => update.sessionUpdate === "available_commands_update");
    return lists.flatMap(({ update }) => update.availableCommands.map(({ name }) => name));
  }
}

async function connected(t, url, options) {
  const made = new Client(url, options);
  t.after(() => made.connection.close());
  const about = await made.initialize();
  if (about.authMethods.length > 0) await made.authenticate();
  return made;
}

test("initialize and authenticate", limit, async (t) => {
  const made = new Client(ECHO_URL);
  t.after(() => made.connection.close());
  const about = await made.initialize();
  assert.equal(about.protocolVersion, acp.PROTOCOL_VERSION);
  assert.equal(about.agentInfo.name, "gateway-trio");
  assert.equal(about.agentCapabilities.loadSession, true);
  assert.deepEqual(about.authMethods.map(({ id }) => id), ["token"]);
  await assert.rejects(made.newSession(), { code: -32000 });
  await assert.rejects(made.authenticate("a wrong one"), { code: -32000 });
  await made.authenticate();
  assert.ok(await made.newSession());
});

test("a token in the request's head", limit, async (t) => {
  const made = new Client(ECHO_URL, { headers: { Authorization: `Bearer ${TOKEN}` } });
  t.after(() => made.connection.close());
  assert.deepEqual((await made.initialize()).authMethods, []);
  assert.ok(await made.newSession());
});

test("a prompt whose answer is streamed, commands, a refusal", limit, async (t) => {
  const made = await connected(t, ECHO_URL);
  const session = await made.newSession();
  await made.until(() => made.commands().length > 0);
  for (const name of ["hello", "status", "allow"]) assert.ok(made.commands().includes(name), name);

  const words = Array.from({ length: 20 }, (_, number) => `w${number}`).join(" ");
  assert.equal((await made.prompt(session, words)).stopReason, "end_turn");
  const [pieces] = made.messages();
  assert.equal(pieces.join(""), words);
  assert.ok(pieces.length > 3, "it came as it was made");

  const exec = await made.prompt(session, "/hello you");
  assert.equal(exec.stopReason, "end_turn");
  assert.equal(exec._meta["gateway-trio"].exitCode, 0);
  assert.equal(made.texts().at(-1), "hello you");

  await made.prompt(session, "/whoami");
  assert.match(made.texts().at(-1), /^ann, role admin/);
  await assert.rejects(made.prompt(session, "/whoami now"), (fault) => fault.data.reason === "usage");
  await assert.rejects(made.prompt("nobody's", "hi"), { code: -32002 });
});

test("cancelling by session/cancel and by $/cancel_request, an exec meanwhile", limit, async (t) => {
  const made = await connected(t, ECHO_URL);
  const session = await made.newSession();
  const long = "long ".repeat(2000);

  const first = made.prompt(session, long);
  await made.until(() => made.texts().at(-1)?.startsWith("long long"));
  assert.equal((await made.prompt(session, "/hello there")).stopReason, "end_turn");
  assert.ok(made.texts().includes("hello there"));
  await made.agent.notify(agent.session.cancel, { sessionId: session });
  assert.equal((await first).stopReason, "cancelled");

  const abort = new AbortController();
  const second = made.prompt(session, long, { cancellationSignal: abort.signal });
  await made.until(() => made.texts().filter((text) => text.startsWith("long long")).length === 2);
  abort.abort();
  assert.equal((await second).stopReason, "cancelled");
});

test("load, resume, list, close", limit, async (t) => {
  const one = await connected(t, ECHO_URL);
  const session = await one.newSession();
  await one.prompt(session, "one two three");
  one.connection.close();

  const two = await connected(t, ECHO_URL);
  const { sessions } = await two.agent.request(agent.session.list, {});
  assert.ok(sessions.some(({ sessionId }) => sessionId === session));
  await two.agent.request(agent.session.load, { sessionId: session, cwd: "/", mcpServers: [] });
  assert.deepEqual(two.texts(), ["one two three"], "all of it came before the answer");
  assert.deepEqual(two.texts("user_message_chunk"), ["one two three"]);
  await two.agent.request(agent.session.resume, { sessionId: session, cwd: "/", mcpServers: [] });
  await two.prompt(session, "four");
  assert.equal(two.texts().at(-1), "four");
  await two.agent.request(agent.session.close, { sessionId: session });
  await assert.rejects(two.prompt(session, "five"), { code: -32002 });
});

test("a permission request: one client answers, the other's is cancelled", limit, async (t) => {
  let withdrawn;
  const told = new Promise((resolve) => (withdrawn = resolve));
  const slow = await connected(t, ASKING_URL, {
    onPermission: (ctx) =>
      new Promise((resolve) =>
        ctx.signal.addEventListener("abort", () => {
          withdrawn();
          resolve({ outcome: { outcome: "cancelled" } });
        }),
      ),
  });
  const session = await slow.newSession();
  const running = slow.prompt(session, "delete x");
  await slow.until(() => slow.asked.length > 0);
  const [{ toolCall, options }] = slow.asked;
  assert.equal(toolCall.title, "delete x");
  assert.deepEqual(options.map(({ kind }) => kind), ["allow_once", "allow_always", "reject_once"]);

  const quick = await connected(t, ASKING_URL, {
    onPermission: ({ params }) => ({ outcome: { outcome: "selected", optionId: params.options[0].optionId } }),
  });
  await quick.agent.request(agent.session.load, { sessionId: session, cwd: "/", mcpServers: [] });
  assert.equal((await running).stopReason, "end_turn");
  await told;
  assert.equal(slow.texts().at(-1), "Done: delete x");
});

test("a permission request that the client cannot answer waits for /deny", limit, async (t) => {
  const made = await connected(t, ASKING_URL);
  const session = await made.newSession();
  const running = made.prompt(session, "delete x");
  await made.until(() => made.asked.length > 0);
  await made.prompt(session, "/deny");
  assert.equal((await running).stopReason, "end_turn");
  assert.ok(made.texts().includes("Not done: denied."));
});
