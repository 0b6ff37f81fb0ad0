// The page in a real Chromium, in each state that a fleet may be in: what it says, in two schemes and two widths,
// judged by axe; how it is kept up, in however many tabs; its weight and how fast it is there.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { chromium } from "playwright-core";

import { Fleet, freePort, PATIENCE, until } from "./fleet.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const README = readFileSync(process.env.README, "utf8");
const WIDTHS = [375, 1280];
const SCHEMES = ["light", "dark"];
const LARGEST = 60_000;
const MANY = 100_000;

let browser;
const fleets = [];

async function fleet(settings) {
  const one = await Fleet.of(settings);
  fleets.push(one);
  return one;
}

const bots = (count, ...sinks) => Array.from({ length: count }, (_, n) => [`bot-${n}`, sinks.length ? sinks : ["files"]]);

before(async () => {
  browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
});

after(async () => {
  await browser?.close();
  await Promise.all(fleets.map((one) => one.stop()));
});

/** A page of its own, with all that it complains of and asks for. */
async function open(url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.complaints = [];
  page.strangers = [];
  page.on("console", (said) => {
    if (["error", "warning"].includes(said.type())) page.complaints.push(said.text());
  });
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("request", (asked) => {
    if (!asked.url().startsWith(new URL("/", url).href) && !asked.url().startsWith("data:")) page.strangers.push(asked.url());
  });
  // Streams that are open now.
  await page.addInitScript(() => {
    window.streams = 0;
    const Real = window.EventSource;
    window.EventSource = class extends Real {
      constructor(...args) {
        super(...args);
        window.streams += 1;
      }
      close() {
        if (this.readyState !== Real.CLOSED) window.streams -= 1;
        super.close();
      }
    };
  });
  await page.goto(url);
  return page;
}

async function quiet(page) {
  assert.deepEqual(page.complaints, [], "the console says nothing");
  assert.deepEqual(page.strangers, [], "nobody else is asked for anything");
  await page.context().close();
}

function says(page, words, patience = PATIENCE) {
  return page
    .waitForFunction((text) => document.body.innerText.replace(/\s+/g, " ").includes(text), words, { timeout: patience })
    .catch(async () => assert.fail(`the page never says “${words}”:\n${await page.innerText("body")}`));
}

/** Waits until the page tells of a later instant. */
async function updated(page, what) {
  const at = () => page.getAttribute("#asof", "datetime");
  const before = await at();
  await until(what, async () => (await at()) !== before);
}

/** What README.md says that one of its pictures shows. */
function pictured(file) {
  const said = new RegExp(`src="docs/${file}"[^>]* alt="([^"]*)"`).exec(README);
  return said[1].split(/[;,] /)[0];
}

/** The state in every variant: its words, axe, nothing beyond the edge; a picture of each is kept. */
async function judge(state, url, words) {
  for (const colorScheme of SCHEMES) {
    for (const width of WIDTHS) {
      const variant = `${state}-${colorScheme}-${width}`;
      const page = await open(url, { colorScheme, viewport: { width, height: 800 }, isMobile: width < 500, deviceScaleFactor: 1 });
      for (const text of words) await says(page, text);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${variant}: ${wide} px of ${width}`);
      await page.evaluate(AXE);
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      const found = violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" | ")}`);
      assert.deepEqual(found, [], `${variant}: axe`);
      await page.screenshot({ path: join(process.env.SCREENSHOTS, `${variant}.png`), fullPage: true, animations: "disabled" });
      await quiet(page);
    }
  }
}

describe("the page", { concurrency: 4, timeout: 600_000 }, () => {
  it("fresh, then healthy, while one looks on", async () => {
    const one = await fleet({ instance: "web-1" });
    await one.start();
    await judge("fresh", one.url, ["web-1", "contoso", "No consumer is declared yet.", "What needs a person Nothing."]);
    const watched = await open(one.url);
    await watched.evaluate(() => {
      window.same = true;
      window.told = [];
      new MutationObserver(() => window.told.push(document.getElementById("spoken").textContent)).observe(
        document.getElementById("spoken"),
        { childList: true },
      );
    });
    for (const name of ["bot-0", "bot-1", "bot-2"]) await one.renewd("identity", "add", name, "--sink", "files");
    const all = "All 3 consumers hold a live token.";
    await says(watched, all);
    for (const which of ["an update", "one more", "and one more"]) await updated(watched, which);
    const { same, told } = await watched.evaluate(() => ({ same: window.same, told: window.told }));
    assert.ok(same, "it was not loaded again");
    assert.equal(told.at(-1), all, "what changed is read aloud");
    assert.equal(told.length, new Set(told).size, "and once");
    await quiet(watched);
    await judge("healthy", one.url, [
      "All 3 consumers hold a live token.",
      "The next one ends in 23h",
      "Everybody survives an outage of",
      "What needs a person Nothing.",
      "has everything",
      "primary accepted, signs",
    ]);
  });

  it("outage", async () => {
    const one = await fleet({ instance: "web-2", identities: bots(2) });
    await one.start();
    await one.live();
    await one.stopEmulator();
    await one.renewd("renew", "bot-0", "bot-1", "--detach");
    await one.needs("outage");
    await judge("outage", one.url, [
      "All 2 consumers hold a live token.",
      "contoso does not answer; everybody keeps a live token if it does again within",
      "no answer to issue: connection refused",
      "renewd check --online",
    ]);
  });

  it("expired", async () => {
    const one = await fleet({ instance: "web-10", identities: bots(2), emulator: ["--token-ttl", "15s"] });
    await one.start();
    await one.live();
    await one.stopEmulator();
    await until("no consumer with a live token", async () => (await one.status()).consumers?.without === 2);
    await judge("expired", one.url, ["0 of 2 consumers hold a live token, 2 do not.", "contoso does not answer.", "renewd why bot-"]);
  });

  it("keys refused", async () => {
    const one = await fleet({ instance: "web-3", identities: bots(2) });
    await one.start();
    await one.live();
    await one.emulator.control("POST", "keys", { regenerate: "primary" });
    await one.renewd("renew", "bot-0", "--detach");
    await one.needs("no_key");
    await judge("key-refused", one.url, [
      "2 tokens may be dead because of their key.",
      "No access key of contoso works, so no token can be replaced.",
      "no access key works since",
      "primary refused",
      "renewd key set contoso",
    ]);
  });

  it("a sink is down", async () => {
    const port = await freePort();
    const sinks = `
[[sink.webhook]]
name = "crm"
url = "http://127.0.0.1:${port}/hook"
secrets = [{ file = "SECRET" }]
`;
    const one = await fleet({ instance: "web-4", identities: bots(4, "files", "crm"), sinks });
    await one.start();
    await one.needs("sink_failing");
    await judge("sink-down", one.url, [
      "4 of 8 consumers hold a live token, 4 do not.",
      pictured("page-ill.png"),
      "failures in a row: connection refused",
      "renewd delivery list --sink crm",
    ]);
    const page = await open(one.url);
    const first = await page.innerText("#sinks tbody tr:first-child");
    assert.match(first, /^crm/, "the longest wait comes first");
    await quiet(page);
  });

  it("a campaign", async () => {
    const one = await fleet({ instance: "web-5", identities: bots(12) });
    await one.start();
    await one.live();
    await one.emulator.control("POST", "limits", { revoke: "5/3600s" });
    await one.renewd("revoke", "--all", "--yes", "--detach", "--reason", "a laptop was stolen");
    await until("half of a campaign", async () => {
      const { campaigns } = JSON.parse(await one.renewd("campaign", "list", "--json"));
      return campaigns[0]?.done > 0;
    });
    await judge("campaign", one.url, ["Unfinished orders", "revoke", "of 12 done", "renewd campaign show 1"]);
  });

  it("a store that was put back", async () => {
    const one = await fleet({ instance: "web-6", identities: bots(3) });
    await one.start();
    await one.live();
    for (const name of ["bot-0", "bot-1", "bot-2"]) await one.renewd("hold", name, "--yes");
    await one.stopDaemon();
    one.edit("state/withdrawn.jsonl", (text) => {
      const lines = text.trimEnd().split("\n");
      return `${lines.slice(0, lines.length / 2).join("\n")}\n`;
    });
    await one.start();
    await judge("restored", one.url, [
      "Nothing is issued, delivered or served until a person says so.",
      "renewd store accept",
      "Nothing is planned while the store may not be used.",
    ]);
  });

  it("tabs share one stream, and one that is not seen has none", async () => {
    const one = await fleet({ instance: "web-7", identities: bots(2) });
    await one.start();
    await one.live();
    const first = await open(one.url);
    const context = first.context();
    const tabs = [first];
    while (tabs.length < 8) {
      const tab = await context.newPage();
      await tab.goto(one.url);
      tabs.push(tab);
    }
    const streams = async () => {
      const counts = await Promise.all(tabs.map((tab) => tab.evaluate(() => window.streams ?? 0)));
      return counts.reduce((sum, count) => sum + count, 0);
    };
    for (const [number, tab] of tabs.entries()) await updated(tab, `an update of tab ${number + 1}`);
    const hide = (tab, hidden) =>
      tab.evaluate((isHidden) => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
        document.dispatchEvent(new Event("visibilitychange"));
      }, hidden);
    assert.equal(await first.evaluate(() => window.streams), 1);
    await hide(first, true);
    assert.equal(await first.evaluate(() => window.streams), 0);
    await updated(tabs.at(-1), "an update by another tab's stream");
    for (const tab of tabs) await hide(tab, true);
    assert.equal(await streams(), 0);
    await hide(first, false);
    await until("the stream of the tab that is seen again", async () => (await first.evaluate(() => window.streams)) === 1);
    await quiet(first);
  });

  it("is read without JavaScript, looks an identity up, and keeps focus where it is", async () => {
    const one = await fleet({ instance: "web-8", identities: bots(2) });
    await one.start();
    await one.live();
    const plain = await open(one.url, { javaScriptEnabled: false });
    assert.match(await plain.innerText("main"), /All 2 consumers hold a live token\.\s+The next one ends in 23h/);
    await plain.fill("#name", "bot-1");
    await plain.press("#name", "Enter");
    assert.match(await plain.innerText("#found"), /bot-1 active[\s\S]*of its life[\s\S]*renewd why bot-1/);
    await quiet(plain);
    const page = await open(`${one.url}?name=bot-1`);
    await page.evaluate(() => window.scrollTo(0, 0));
    const reached = new Set();
    for (let n = 0; n < 12; n += 1) {
      await page.keyboard.press("Tab");
      reached.add(await page.evaluate(() => document.activeElement.tagName));
    }
    for (const tag of ["INPUT", "BUTTON", "SUMMARY", "A"]) assert.ok(reached.has(tag), `${tag} is reached by the keyboard`);
    await page.focus("#resources summary");
    await page.keyboard.press("Enter");
    await one.renewd("hold", "bot-0", "--yes");
    await says(page, "The one consumer holds a live token.");
    await until("the held one in the picture", () => page.evaluate(() => document.querySelector("#resources").innerText.includes("held")));
    assert.equal(await page.evaluate(() => document.activeElement.tagName), "SUMMARY");
    assert.ok(await page.evaluate(() => document.querySelector("#resources details").open));
    await quiet(page);
  });

  it(`is light and quick with ${MANY} identities`, async (test) => {
    const one = await fleet({ instance: "chat-1", emulator: ["--token-alg", "filler"] });
    await one.start();
    await one.renewd("identity", "add", "bot-0", "--scope", "chat");
    await one.live();
    await one.stopDaemon();
    one.multiply("bot-0", MANY);
    await one.start();
    await until("all of them", async () => (await one.status()).consumers?.live === MANY);
    const page = await open(one.url);
    await says(page, "All 100,000 consumers hold a live token.");
    await says(page, pictured("page-well.png"));
    // A busy browser reads the page before it paints it.
    await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length, null, { timeout: PATIENCE });
    const seen = await page.evaluate(() => ({
      paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
      answer: performance.getEntriesByType("navigation")[0].responseEnd,
      weight: performance.getEntriesByType("navigation")[0].decodedBodySize,
    }));
    test.diagnostic(`${MANY} identities: ${JSON.stringify(seen)}`);
    assert.ok(seen.weight < LARGEST, `${seen.weight} bytes`);
    await page.screenshot({ path: join(process.env.SCREENSHOTS, "many.png"), fullPage: true });
    await quiet(page);
  });
});
