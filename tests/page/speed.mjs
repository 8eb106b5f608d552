// The time and the size of each page with ten thousand sites that promise pins: the median of 21 answers over the admin
// socket, in milliseconds. Build pintle with --release for numbers that count.

import path from "node:path";
import { World } from "./world.mjs";

const [pintle, target] = process.argv.slice(2);
const SITES = Number(process.env.SITES ?? 10000);
const ROUNDS = 21;

const world = new World(path.join(target, "many"), pintle);
await world.many(SITES);
const host = world.hostOf(SITES - 1);
const pages = [
  "/", "/?page=9", `/?q=${SITES - 1}`, "/?state=bad", `/site/${host}`, "/keys", "/keys?page=9", `/keys?find=${SITES - 1}`,
  `/keys/rotate?site=${host}`, "/config", "/explain", `/explain?url=https%3A%2F%2F${host}%2F`, "/doctor", "/logs", "/fingerprint",
  "/live", "/login",
];
let slow = 0;
try {
  const begin = performance.now();
  await world.start();
  console.log(`${SITES} sites; started in ${((performance.now() - begin) / 1000).toFixed(1)} s`);
  for (const page of pages) {
    const times = [];
    let size = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const begin = performance.now();
      const { status, body } = await world.call("GET", page);
      times.push(performance.now() - begin);
      if (status !== 200) throw new Error(`${page}: ${status}`);
      size = Buffer.byteLength(body);
    }
    times.sort((a, b) => a - b);
    const median = times[ROUNDS >> 1];
    if (median > 10) slow += 1;
    console.log(`${median.toFixed(2).padStart(9)} ms ${(size / 1024).toFixed(1).padStart(6)} KiB  ${page}`);
  }
} finally {
  await world.stop();
}
console.log(slow ? `${slow} pages take more than 10 ms` : "each page takes less than 10 ms");
