// Drives each flow with and without JavaScript and by keyboard, and has axe-core and Lighthouse look at each page.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { World, XSS } from "./world.mjs";
import { ACTS, browser, FIRST_PAGES, later, packages, PAGES } from "./browser.mjs";

const [pintle, target] = process.argv.slice(2);
const world = new World(path.join(target, "world"), pintle);
const empty = new World(path.join(target, "empty"), pintle);
const failures = [];
let count = 0;

async function test(name, act) {
  try {
    await act();
    count += 1;
    console.log(`ok    ${name}`);
  } catch (error) {
    failures.push(name);
    console.log(`FAIL  ${name}\n      ${String(error.stack ?? error).replaceAll("\n", "\n      ")}`);
  }
}

async function open(chrome, address, { script = true, width = 1200, scheme = "light" } = {}) {
  const page = await chrome.newPage();
  page.complaints = [];
  page.on("console", (message) => { if (["error", "warn"].includes(message.type())) page.complaints.push(message.text()); });
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  await page.setJavaScriptEnabled(script);
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }, { name: "prefers-reduced-motion", value: "reduce" }]);
  await page.goto(address, { waitUntil: "load" });
  return page;
}

const text = (page, selector) => page.$eval(selector, (node) => node.textContent.replace(/\s+/g, " ").trim());

async function flows(chrome, base) {
  await test("the overview answers, finds and filters, without a script", async () => {
    const page = await open(chrome, `${base}/`, { script: false });
    assert.match(await text(page, ".answer"), /^One site needs you now, docs\.example\.net first\./);
    await page.type("#q", "photos");
    await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
    assert.equal((await page.$$("tbody tr")).length, 1);
    await page.goto(`${base}/?state=bad`);
    assert.match(await text(page, "tbody"), /docs\.example\.net.*Ends in/);
    await page.close();
  });
  for (const script of [false, true]) {
    await test(`a rotation is asked about, ${script ? "with" : "without"} a script`, async () => {
      const page = await open(chrome, `${base}/site/blog.example.com`, { script });
      assert.match(await text(page, ".answer"), /^Do not rotate to the next key yet\. It is safe from/);
      const set = async (selector, value) => {
        if (script) {
          await page.$eval(selector, (node, value) => { node.value = value; node.dispatchEvent(new Event(node.type === "range" ? "input" : "change", { bubbles: true })); }, value);
        } else {
          await page.goto(`${base}/site/blog.example.com?key=${encodeURIComponent(world.pins.next)}&day=${later(40)}`);
        }
      };
      await set(script ? "#slide" : "#day", script ? "40" : later(40));
      if (script) await page.waitForFunction(() => /You may rotate to the next key on/.test(document.querySelector("#answer").textContent), { timeout: 20000 });
      assert.match(await text(page, "#answer"), /You may rotate to the next key on/);
      assert.ok(await page.$("#answer svg[role=img] title"));
      assert.deepEqual(page.complaints.filter((line) => !line.includes("favicon")), []);
      await page.close();
    });
  }
  for (const script of [false, true]) {
    await test(`a certificate is checked, installed and taken back, ${script ? "with" : "without"} a script`, async () => {
      const name = `renewed-${script}`;
      fs.copyFileSync(world.file("photos.key"), world.file(`${name}.key`));
      world.certificate(name, ["photos.example.com"], 80);
      const page = await open(chrome, `${base}/install?site=photos.example.com`, { script });
      await (await page.$("#file")).uploadFile(world.file(`${name}.pem`));
      const answered = (selector) => script && selector.includes("install")
        ? Promise.all([page.waitForSelector("#verdict", { timeout: 20000 }), page.click(selector)])
        : Promise.all([page.waitForNavigation(), page.click(selector)]);
      await answered("form[data-install] .go");
      assert.match(await text(page, "#verdict"), new RegExp(`${name}\\.pem is fit to be served`));
      await answered("form[data-apply] .go");
      assert.match(await text(page, "#verdict"), /^Installed\. .* serves it for photos\.example\.com/);
      await answered("tbody form button");
      assert.match(await text(page, "#verdict"), /^Rolled back\. /);
      await page.close();
    });
  }
  await test("a refused certificate names the ways out, and a private key stays in the browser", async () => {
    world.key("stranger");
    world.certificate("stranger", ["blog.example.com", "www.example.com"], 80);
    const page = await open(chrome, `${base}/install?site=blog.example.com`);
    await (await page.$("#file")).uploadFile(world.file("stranger.pem"));
    await Promise.all([page.waitForSelector("#verdict", { timeout: 20000 }), page.click("form[data-install] .go")]);
    assert.match(await text(page, "#outcome"), /Refused: stranger\.pem would lock readers out.*I have lost the keys/);
    const sent = [];
    page.on("request", (request) => sent.push(request.url()));
    await (await page.$("#file")).uploadFile(world.file("stranger.key"));
    await page.click("form[data-install] .go");
    await page.waitForFunction(() => /has a private key\. It was not sent/.test(document.querySelector("#outcome").textContent), { timeout: 20000 });
    assert.deepEqual(sent, []);
    await page.close();
  });
  await test("pins are computed in the browser, and nothing is sent", async () => {
    const page = await open(chrome, `${base}/fingerprint`);
    const sent = [];
    page.on("request", (request) => sent.push(request.url()));
    for (const [name, pin] of [["blog.pem", "live"], ["blog-next.csr", "next"], ["blog-spare.pub", "spare"]]) {
      await (await page.$("#f")).uploadFile(world.file(name));
      await page.click("form[data-fingerprint] .go");
      await page.waitForFunction((pin) => document.querySelector("#result code.pin")?.textContent === pin, { timeout: 20000 }, world.pins[pin]);
    }
    await (await page.$("#f")).uploadFile(world.file("blog.key"));
    await page.click("form[data-fingerprint] .go");
    await page.waitForFunction(() => /is a private key/.test(document.querySelector("#result").textContent), { timeout: 20000 });
    assert.deepEqual(sent, []);
    assert.equal(await page.$eval("#f", (input) => input.files.length), 0);
    await page.close();
  });
  await test("without a script, a form asks for the pin", async () => {
    const page = await open(chrome, `${base}/fingerprint`, { script: false });
    await (await page.$("#f")).uploadFile(world.file("blog-next.csr"));
    await Promise.all([page.waitForNavigation(), page.click("form[enctype] .go")]);
    assert.equal(await text(page, "code.pin"), world.pins.next);
    assert.match(await text(page, "#pin-title"), /the next key of blog\.example\.com/);
    await (await page.$("#f")).uploadFile(world.file("blog.key"));
    await Promise.all([page.waitForNavigation(), page.click("form[enctype] .go")]);
    assert.match(await text(page, ".verdict"), /is a private key\. It was wiped/);
    await page.close();
  });
  for (const script of [false, true]) {
    await test(`a site is verified on a button, ${script ? "with" : "without"} a script`, async () => {
      const page = await open(chrome, `${base}/site/blog.example.com`, { script });
      await ACTS["site-verified"](page);
      assert.match(await text(page, "[role=status] h3, .verdict[role=status]"), /fault/);
      assert.ok((await page.$$("table.checks")).length >= 4);
      await page.close();
    });
  }
  await test("a CSR is downloaded, without a script", async () => {
    const page = await open(chrome, `${base}/keys?find=blog.example`, { script: false });
    const href = await page.$eval("a[href^='/keys/csr']", (link) => link.href);
    await page.close();
    const got = await fetch(href);
    assert.match(got.headers.get("content-disposition"), /^attachment; filename="blog\.example\.com-\w+\.csr"$/);
    assert.match(await got.text(), /BEGIN CERTIFICATE REQUEST/);
  });
  await test("a withdrawal is shown before it is applied", async () => {
    const page = await open(chrome, `${base}/keys?find=blog.example`, { script: false });
    await ACTS.withdrawn(page);
    assert.match(await text(page, "h1"), /Configuration/);
    assert.match(await text(page, "#difference"), /mode = "withdraw"/);
    await page.close();
  });
  await test("a phone has the reader's name and the way out", async () => {
    const page = await open(chrome, `${base}/`, { width: 360 });
    assert.match(await text(page, ".who"), /Signed in as/);
    assert.ok(await page.$eval(".who b", (name) => name.checkVisibility()));
    await page.close();
  });
  await test("explain is a form", async () => {
    const page = await open(chrome, `${base}/explain`, { script: false });
    await page.type("#url", "https://blog.example.com/page");
    await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
    assert.match(await text(page, ".answer"), /forwarded to/);
    await page.close();
  });
  await test("texts of strangers run nowhere", async () => {
    const strange = encodeURIComponent(XSS);
    for (const address of ["/", "/site/blog.example.com", "/logs", `/?q=${strange}`, `/explain?url=${strange}`, `/site/${strange}`, `/logs?q=${strange}`]) {
      const page = await open(chrome, base + address);
      assert.equal(await page.evaluate(() => window.hurt), undefined, address);
      assert.equal(await page.$("main img, main script"), null, address);
      await page.close();
    }
  });
  await test("the keyboard reaches everything, and shows where it is", async () => {
    const page = await open(chrome, `${base}/site/blog.example.com`);
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => location.hash), "#main");
    const wanted = await page.$$eval("main :is(a[href], button, input:not([type=hidden]), select, textarea, summary)", (nodes) => nodes.filter((node) => node.checkVisibility()).length);
    const seen = new Set();
    for (let at = 0; at < wanted + 40; at++) {
      await page.keyboard.press("Tab");
      const found = await page.evaluate(() => {
        const node = document.activeElement;
        if (!node.closest("main") || node.id === "main") return null;
        node.dataset.seen ??= String(document.querySelectorAll("[data-seen]").length);
        const style = getComputedStyle(node);
        return { at: node.dataset.seen, html: node.outerHTML.slice(0, 120), outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1 };
      });
      if (!found) continue;
      assert.ok(found.outline, `the focus is not visible: ${found.html}`);
      seen.add(found.at);
    }
    assert.ok(seen.size >= wanted, `${seen.size} of ${wanted} were reached`);
    await page.close();
  });
}

// From three answers to a served site, without a script.
async function firstSite(chrome, base) {
  await test("the first site comes from three answers", async () => {
    const page = await open(chrome, `${base}/`, { script: false });
    await ACTS["first-file"](page, empty);
    assert.match(await text(page, "#file"), /The file that it would write/);
    assert.match(await page.$eval("#toml", (editor) => editor.value), /hosts = \["blog\.example\.com", "www\.example\.com"\]/);
    await page.close();
  });
}

async function axe(chrome, base, world, pages) {
  const source = fs.readFileSync(packages.resolve("axe-core/axe.min.js"), "utf8");
  for (const [name, address] of Object.entries(pages)) {
    for (const [width, scheme] of [[360, "dark"], [1600, "light"]]) {
      await test(`axe: ${name}, ${width} ${scheme}`, async () => {
        const page = await open(chrome, base + address(world), { width, scheme });
        await ACTS[name]?.(page, world);
        // The policy of the pages forbids the script; the debugger does not ask it.
        await page.evaluate(source);
        const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
        const shown = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html).slice(0, 3).join(" ")}`);
        assert.deepEqual(shown, []);
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "it scrolls sideways");
        await page.close();
      });
    }
  }
}

async function lighthouse(chrome, base, world, pages) {
  const { default: look } = await import(packages.resolve("lighthouse"));
  const port = Number(new URL(chrome.wsEndpoint()).port);
  for (const [name, address] of Object.entries(pages).filter(([name]) => !ACTS[name])) {
    await test(`lighthouse: ${name}`, async () => {
      const found = await look(base + address(world), { port, output: "json", logLevel: "silent", onlyCategories: ["accessibility", "best-practices"] });
      const failed = Object.values(found.lhr.audits).filter((audit) => audit.score !== null && audit.score < 0.9 && audit.scoreDisplayMode !== "informative");
      // Loopback has no certificate, and a missing page answers with 404.
      const known = new Set(["is-on-https", "redirects-http", ...(name === "error" ? ["errors-in-console"] : [])]);
      assert.deepEqual(failed.map((audit) => `${audit.id}: ${audit.title}`).filter((line) => !known.has(line.split(":")[0])), []);
    });
  }
}

let chrome;
try {
  await world.make();
  await world.start();
  await world.traffic(14);
  const base = await world.relay();
  chrome = await browser();
  await flows(chrome, base);
  await axe(chrome, base, world, PAGES);
  if (!process.env.PINTLE_NO_LIGHTHOUSE) await lighthouse(chrome, base, world, PAGES);
  await empty.empty();
  await empty.start();
  const first = await empty.relay();
  await axe(chrome, first, empty, FIRST_PAGES);
  if (!process.env.PINTLE_NO_LIGHTHOUSE) await lighthouse(chrome, first, empty, FIRST_PAGES);
  await firstSite(chrome, first);
} finally {
  await chrome?.close();
  await world.stop();
  await empty.stop();
}
console.log(`${count} ok, ${failures.length} failed`);
process.exitCode = failures.length ? 1 : 0;
