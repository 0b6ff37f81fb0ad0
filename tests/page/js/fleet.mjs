// A real daemon over the emulator, each a process of its own, and whatever trouble a test makes for them.

import { execFile, execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const RENEWD = process.env.RENEWD;
export const PATIENCE = 60_000;
const SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/** Waits until it is so; what was awaited is named when it never is. */
export async function until(what, isSo, patience = PATIENCE) {
  const began = Date.now();
  for (;;) {
    const found = await isSo();
    if (found) return found;
    if (Date.now() - began > patience) throw new Error(`waited ${patience} ms for ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** A port that nobody listens on. */
export function freePort() {
  return new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

class Emulator {
  static async start(...args) {
    const emulator = new Emulator();
    emulator.process = spawn(RENEWD, ["emulator", "--http", "--listen", "127.0.0.1:0", ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let said = "";
    emulator.process.stdout.on("data", (text) => (said += text));
    await until("the emulator's connection string", () => said.includes("\n"));
    emulator.connection = said.trim();
    emulator.endpoint = /endpoint=(.*?)\/;/.exec(emulator.connection)[1];
    return emulator;
  }

  async control(method, path, body) {
    const answer = await fetch(`${this.endpoint}/_emulator/v1/${path}`, {
      method,
      headers: { "content-type": "application/json" },
      body: body && JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }
}

/** Ends a process and waits for it. */
async function end(child, signal = "SIGTERM") {
  if (!child || child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((done) => child.once("exit", done));
  child.kill(signal);
  await ended;
}

export class Fleet {
  /** Begins with the emulator and a configuration; `start` starts the daemon. */
  static async of({ instance, identities = [], sinks = "", names = true, emulator = [], renewal = "" }) {
    const fleet = new Fleet();
    fleet.folder = mkdtempSync(join(tmpdir(), "renewd-page-"));
    fleet.emulator = await Emulator.start(...emulator);
    fleet.port = await freePort();
    fleet.url = `http://127.0.0.1:${fleet.port}/`;
    const at = (name) => join(fleet.folder, name);
    mkdirSync(at("state"));
    mkdirSync(at("tokens"));
    writeFileSync(at("contoso.cs"), fleet.emulator.connection, { mode: 0o600 });
    writeFileSync(at("webhook.secret"), SECRET, { mode: 0o600 });
    const list = identities.map(
      ([name, to]) => `\n[[identity]]\nname = "${name}"\nscopes = ["chat"]\nsinks = ${JSON.stringify(to)}\n`,
    );
    writeFileSync(
      at("renewd.toml"),
      `[daemon]
state_dir = "${at("state")}"
socket = "${at("renewd.sock")}"
listen = "127.0.0.1:${fleet.port}"
instance = "${instance}"
page_names = ${names}

[[resource]]
name = "contoso"
connection_string = { file = "${at("contoso.cs")}" }
${renewal}
[[sink.file]]
name = "files"
path = "${at("tokens")}/{name}.json"
${sinks.replaceAll("SECRET", at("webhook.secret"))}${list.join("")}`,
    );
    return fleet;
  }

  async start() {
    this.daemon = spawn(RENEWD, ["run", "--config", join(this.folder, "renewd.toml")], {
      stdio: ["ignore", "inherit", "inherit"],
    });
    await until("the page", () => fetch(this.url).then((answer) => answer.ok, () => false));
    return this;
  }

  /** Runs a verb; what it prints. */
  async renewd(...args) {
    const socket = ["--socket", join(this.folder, "renewd.sock")];
    const { stdout } = await promisify(execFile)(RENEWD, [...args, ...socket], { timeout: PATIENCE });
    return stdout;
  }

  /** While the daemon is stopped: many like this one, from all along its life. */
  multiply(name, many) {
    const sql = (text) =>
      execFileSync("sqlite3", ["-bail", join(this.folder, "state/renewd.db")], { input: text, encoding: "utf8" });
    const columns = sql("SELECT name FROM pragma_table_info('identity')").trim().split("\n");
    const values = { num: "NULL", name: "'n-' || i", id: "'8:acs:n-' || i", token: "NULL" };
    for (const column of ["due_at", "renews_at", "late_at", "good_until", "expires_at", "issued_at"]) {
      values[column] = `${column} - i % 40000 * 1000000`;
    }
    sql(`INSERT INTO identity (${columns}) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ${many - 1})
      SELECT ${columns.map((column) => values[column] ?? column)} FROM n, identity WHERE name = '${name}'`);
    execFileSync(RENEWD, ["store", "verify", "--config", join(this.folder, "renewd.toml")]);
  }

  status() {
    return fetch(`${this.url}api/status`).then((answer) => answer.json());
  }

  /** Waits until every consumer holds a live token. */
  live() {
    return until("a live token at every consumer", async () => {
      const { consumers } = await this.status();
      return consumers && consumers.live > 0 && consumers.without + consumers.unknown === 0;
    });
  }

  /** Waits until something of this kind needs a person. */
  needs(kind) {
    return until(`a need of the kind ${kind}`, async () => {
      const { needs } = await this.status();
      return needs.some((need) => need.kind === kind);
    });
  }

  edit(name, change) {
    const path = join(this.folder, name);
    writeFileSync(path, change(readFileSync(path, "utf8")));
  }

  stopDaemon() {
    return end(this.daemon);
  }

  stopEmulator() {
    return end(this.emulator.process);
  }

  async stop() {
    await this.stopDaemon();
    await this.stopEmulator();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
