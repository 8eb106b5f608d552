// Screenshots of every page, at 360 and 1600 pixels, light and dark, into target/page.

import fs from "node:fs";
import path from "node:path";
import { World } from "./world.mjs";
import { browser, PAGES } from "./browser.mjs";

const [pintle, target, ...only] = process.argv.slice(2);
const world = new World(path.join(target, "world"), pintle);
await world.make();
await world.start();
let chrome;
try {
  await world.traffic(20);
  await new Promise((later) => setTimeout(later, Number(process.env.WAIT ?? 11000)));
  await world.traffic(12);
  await new Promise((later) => setTimeout(later, Number(process.env.WAIT ?? 11000)));
  const base = await world.relay();
  chrome = await browser();
  fs.mkdirSync(target, { recursive: true });
  for (const [name, address] of Object.entries(PAGES)) {
    if (only.length && !only.includes(name)) continue;
    for (const width of [360, 1600]) {
      for (const scheme of ["light", "dark"]) {
        const page = await chrome.newPage();
        await page.setViewport({ width, height: 900 });
        await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
        await page.goto(base + address(world), { waitUntil: "load" });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        if (wide > width) console.log(`${name} ${width}: ${wide} pixels wide`);
        await page.screenshot({ path: path.join(target, `${name}-${width}-${scheme}.png`), fullPage: true });
        await page.close();
      }
    }
  }
} finally {
  await chrome?.close();
  await world.stop();
}
