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
  fingerprint: () => "/fingerprint",
  "fingerprint-pin": (world) => `/fingerprint?pin=${encodeURIComponent(world.pins.next)}`,
  explain: () => "/explain",
  explained: () => "/explain?url=https%3A%2F%2Fblog.example.com%2Fpage&fields=X-Forwarded-Proto%3A+https",
  doctor: () => "/doctor",
  logs: () => "/logs",
  error: () => "/site/nobody.example",
};

export const later = (days) => new Date(Date.now() + days * 86400000).toISOString().slice(0, 10);
