// The browser, and the list of pages that people read.

import { createRequire } from "node:module";
import path from "node:path";

// The packages lie outside of the repository, in target/npm.
export const packages = createRequire(path.resolve(process.env.PINTLE_NPM ?? "target/npm", "x.js"));
const puppeteer = packages("puppeteer-core");

export const browser = () => puppeteer.launch({
  executablePath: process.env.PINTLE_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"],
});

// Each page by its name, and its address in a world.
export const PAGES = {
  overview: () => "/",
  site: () => "/site/blog.example.com",
  "site-later": (world) => `/site/blog.example.com?key=${encodeURIComponent(world.pins.next)}&day=${later(40)}#ledger`,
  "site-plain": () => "/site/docs.example.net",
  "site-long": (world) => `/site/${world.long}`,
  "site-verified": () => "/site/blog.example.com",
  keys: () => "/keys",
  "keys-made": () => "/keys?find=photos",
  withdrawn: () => "/keys?find=blog",
  "config-wrong": () => "/config",
  "keys-found": () => "/keys?find=blog",
  "keys-nothing": () => "/keys?find=nothing",
  rotate: () => "/keys/rotate?site=blog.example.com",
  "rotate-none": () => "/keys/rotate?site=docs.example.net",
  config: () => "/config",
  "config-version": () => "/config?find=backups",
  install: () => "/install?site=blog.example.com",
  "install-sites": () => "/install",
  fingerprint: () => "/fingerprint",
  "fingerprint-pin": (world) => `/fingerprint?pin=${encodeURIComponent(world.pins.next)}`,
  explain: () => "/explain",
  explained: () => "/explain?url=https%3A%2F%2Fblog.example.com%2Fpage&fields=X-Forwarded-Proto%3A+https",
  doctor: () => "/doctor",
  logs: () => "/logs",
  login: () => "/login",
  error: () => "/site/nobody.example",
};

const submit = (selector) => async (page) => {
  await Promise.all([page.waitForNavigation({ waitUntil: "load" }), page.click(selector)]);
};

// Forms whose answers are looked at, by the names of pages.
export const ACTS = {
  "site-verified": submit("form[action$='/verify#verify'] button"),
  "keys-made": submit("button[value=spare]"),
  withdrawn: submit("form[action='/keys/withdraw'] button"),
  "config-wrong": async (page) => {
    await page.$eval("#toml", (editor) => { editor.value = editor.value.replace("recent =", "recently ="); });
    await submit("button[value=check]")(page);
  },
  "first-file": async (page, world) => {
    await page.type("#hosts", "blog.example.com www.example.com");
    await page.type("#url", world.url);
    await submit("form[action='/first'] button")(page);
  },
  "first-refused": async (page) => {
    await page.type("#hosts", "blog.example.com");
    await page.type("#url", "http://127.0.0.1:1");
    await submit("form[action='/first'] button")(page);
  },
};

// Pages of a process without a site.
export const FIRST_PAGES = {
  first: () => "/",
  "first-file": () => "/",
  "first-refused": () => "/",
  "first-keys": () => "/keys",
  "first-config": () => "/config",
};

export const later = (days) => new Date(Date.now() + days * 86400000).toISOString().slice(0, 10);
