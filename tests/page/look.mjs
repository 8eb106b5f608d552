// Screenshots of every page, at 360 and 1600 pixels, light and dark, into target/page.

import fs from "node:fs";
import path from "node:path";
import { World } from "./world.mjs";
import { ACTS, browser, FIRST_PAGES, PAGES } from "./browser.mjs";

const [pintle, target, ...only] = process.argv.slice(2);
const wait = () => new Promise((later) => setTimeout(later, Number(process.env.WAIT ?? 11000)));

// One page in every size and scheme.
async function shoot(chrome, world, base, name, address) {
  for (const width of [360, 1600]) {
    for (const scheme of ["light", "dark"]) {
      const page = await chrome.newPage();
      await page.setViewport({ width, height: 900 });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.goto(base + address(world), { waitUntil: "load" });
      // The answers to forms are pages, too.
      await ACTS[name]?.(page, world);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      if (wide > width) console.log(`${name} ${width}: ${wide} pixels wide`);
      await page.screenshot({ path: path.join(target, `${name}-${width}-${scheme}.png`), fullPage: true });
      await page.close();
    }
  }
}

async function look(world, pages, prepare) {
  const wanted = Object.entries(pages).filter(([name]) => !only.length || only.includes(name));
  if (!wanted.length) return;
  let chrome;
  try {
    await prepare();
    const base = await world.relay();
    chrome = await browser();
    fs.mkdirSync(target, { recursive: true });
    for (const [name, address] of wanted) await shoot(chrome, world, base, name, address);
  } finally {
    await chrome?.close();
    await world.stop();
  }
}

const world = new World(path.join(target, "world"), pintle);
await look(world, PAGES, async () => {
  await world.make();
  await world.start();
  await world.traffic(20);
  await wait();
  await world.traffic(12);
  await wait();
});
const empty = new World(path.join(target, "empty"), pintle);
await look(empty, FIRST_PAGES, async () => {
  await empty.empty();
  await empty.start();
});
