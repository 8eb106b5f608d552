// A world for the pages: a certificate authority, keys, sites in every state, an upstream, and a ledger with a past.

import { execFile, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import { promisify } from "node:util";

const DAY = 86400;
export const XSS = "<img src=x onerror=window.hurt=1>";

const run = (program, ...args) => execFileSync(program, args, { stdio: ["ignore", "pipe", "pipe"] }).toString();

export class World {
  constructor(folder, pintle) {
    this.folder = folder;
    this.pintle = pintle;
    fs.rmSync(folder, { recursive: true, force: true });
    fs.mkdirSync(path.join(folder, "certs"), { recursive: true });
    this.ca();
  }

  file(name) { return path.join(this.folder, "certs", name); }

  ca() {
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650",
      "-subj", "/CN=Test Root", "-keyout", this.file("ca.key"), "-out", this.file("ca.pem"));
  }

  key(name) {
    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", this.file(`${name}.key`));
    run("openssl", "pkey", "-in", this.file(`${name}.key`), "-pubout", "-out", this.file(`${name}.pub`));
    const der = execFileSync("openssl", ["pkey", "-in", this.file(`${name}.key`), "-pubout", "-outform", "DER"]);
    return createHash("sha256").update(der).digest("base64");
  }

  csr(name, host) {
    run("openssl", "req", "-new", "-key", this.file(`${name}.key`), "-subj", `/CN=${host}`, "-addext", `subjectAltName=DNS:${host}`,
      "-out", this.file(`${name}.csr`));
  }

  certificate(name, hosts, days, subject = hosts[0], age = 0) {
    const extensions = this.file(`${name}.ext`);
    fs.writeFileSync(extensions, `subjectAltName=${hosts.map((host) => `DNS:${host}`).join(",")}\nextendedKeyUsage=serverAuth\nkeyUsage=digitalSignature\n`);
    run("openssl", "req", "-new", "-key", this.file(`${name}.key`), "-subj", `/CN=${subject}`, "-out", this.file(`${name}.req`));
    run("faketime", `${age} days ago`, "openssl", "x509", "-req", "-in", this.file(`${name}.req`), "-CA", this.file("ca.pem"), "-CAkey", this.file("ca.key"), "-days", String(days + age),
      "-extfile", extensions, "-out", this.file(`${name}.pem`));
    fs.appendFileSync(this.file(`${name}.pem`), fs.readFileSync(this.file("ca.pem")));
  }

  // The sites, and the sets that clients hold of the first one.
  async make(more = "") {
    const url = await this.listen();
    const [live, next, spare] = ["blog", "blog-next", "blog-spare"].map((name) => this.key(name));
    this.pins = { live, next, spare };
    this.certificate("blog", ["blog.example.com", "www.example.com"], 59, XSS.slice(0, 60), 31);
    this.csr("blog-next", "blog.example.com");
    for (const [name, host, days] of [["docs", "docs.example.net", 9], ["photos", "photos.example.com", 68], ["status", "example.net", 64], ["shop", "shop.example.org", 75], ["long", this.long, 70]]) {
      this.key(name);
      this.certificate(name, [host], days, host.slice(0, 60), days < 10 ? 80 : 20);
    }
    const site = (name, host, extra) => `
[[site]]
hosts = [${host}]
upstream = "${url}"
[site.certificate]
chain = "certs/${name}.pem"
key = "certs/${name}.key"
${extra}`;
    fs.writeFileSync(path.join(this.folder, "pintle.toml"), `
[listen]
https = ["127.0.0.1:0"]
http = ["127.0.0.1:0"]
[state]
directory = "state"
[admin]
edit = true
[sandbox]
connect = "any"
[log]
access = "access.log"
recent = 500
${more}
${site("blog", '"blog.example.com", "www.example.com"', '[site.hsts]\nmax_age = "1y"\n[site.hpkp]\nmax_age = "30d"\nbackups = ["certs/blog-next.csr", "certs/blog-spare.pub"]')}
${site("docs", '"docs.example.net"', '[site.hsts]\nmax_age = "1y"')}
${site("photos", '"photos.example.com"', '[site.hsts]\nramp = ["5m", "1h", "1d", "7d", "30d"]\nramp_every = "7d"')}
${site("status", '"example.net"', '[site.hsts]\nmax_age = "2y"\ninclude_subdomains = true\npreload = true')}
${site("shop", '"shop.example.org"', "")}
${site("long", `"${this.long}"`, "")}
`);
  }

  // Records as lines of the ledger: a JSON text, and the beginning of its SHA-256.
  lines() {
    const now = Math.floor(Date.now() / 1000);
    const at = (days) => new Date((now + days * DAY) * 1000).toISOString().replace(/\.\d+Z/, "Z");
    const { live, next, spare } = this.pins;
    const hosts = ["blog.example.com", "www.example.com"];
    const set = (pins, age, first, last) => ({ site: hosts[0], hosts, pins: [...pins].sort(), max_age: age * DAY, include_subdomains: false, first_sent: at(first), last_sent: at(last) });
    const records = [
      { type: "promise", ...set([live, spare], 30, -115, -45), mode: "enforce" },
      { type: "promise", ...set([live, spare], 30, -45, -6), mode: "enforce" },
      { type: "export", ...set([live, spare], 90, -55, -55), form: "okhttp", id: "3f2a09c1d2e4", leaf_only: false },
      { type: "export", ...set([live, next, spare], 90, -5, -5), form: "okhttp", id: "5b1c7e22aa10", leaf_only: false },
    ];
    return records.map((record) => {
      const json = JSON.stringify(record);
      const sum = createHash("sha256").update(json).digest("hex").slice(0, 16);
      return `{"sum":"${sum}","record":${json}}\n`;
    }).join("");
  }

  // The longest names that DNS allows are hardly longer.
  get long() { return "department-of-things-with-long-names.subdivision-of-the-north-western-region.example.org"; }

  // A process without a site.
  async empty() {
    await this.listen();
    fs.writeFileSync(path.join(this.folder, "pintle.toml"), `
[listen]
https = ["127.0.0.1:0"]
http = ["127.0.0.1:0"]
[state]
directory = "state"
[admin]
edit = true
[sandbox]
connect = "any"
`);
  }

  hostOf(number) { return `site-with-a-name-${number}.many.example.com`; }

  // As many sites, which share a certificate and the keys of their pins.
  async many(count) {
    const url = await this.listen();
    for (const name of ["many", "many-next", "many-spare"]) this.key(name);
    this.certificate("many", ["*.many.example.com"], 60);
    this.csr("many-next", "*.many.example.com");
    const sites = Array.from({ length: count }, (_, number) => `
[[site]]
hosts = ["${this.hostOf(number)}"]
upstream = "${url}"
[site.certificate]
chain = "certs/many.pem"
key = "certs/many.key"
[site.hsts]
max_age = "1y"
[site.hpkp]
max_age = "30d"
backups = ["certs/many-next.csr", "certs/many-spare.pub"]`);
    fs.writeFileSync(path.join(this.folder, "pintle.toml"), `
[listen]
https = ["127.0.0.1:0"]
http = ["127.0.0.1:0"]
[state]
directory = "state"
[admin]
edit = true
[sandbox]
connect = "any"
[log]
access = "off"
recent = 500
${sites.join("\n")}
`);
  }

  // The upstream.
  async listen() {
    const upstream = http.createServer((request, response) => {
      response.writeHead(request.url.includes("fail") ? 502 : 200, { "Content-Type": "text/html" });
      response.end("<!doctype html><title>blog</title>");
    });
    await new Promise((ready) => upstream.listen(0, "127.0.0.1", ready));
    this.upstream = upstream;
    this.url = `http://127.0.0.1:${upstream.address().port}`;
    return this.url;
  }

  get socket() { return path.join(this.folder, "state", "admin.sock"); }

  // One call of the API.
  call(method, target, body = "") {
    return new Promise((resolve, reject) => {
      const request = http.request({ socketPath: this.socket, path: target, method, headers: { Host: "localhost", "Content-Length": Buffer.byteLength(body) } }, (response) => {
        const parts = [];
        response.on("data", (part) => parts.push(part));
        response.on("end", () => resolve({ status: response.statusCode, body: Buffer.concat(parts).toString() }));
      });
      request.on("error", reject);
      request.end(body);
    });
  }

  async start() {
    this.process = spawn(this.pintle, ["run", "-c", path.join(this.folder, "pintle.toml"), "--allow-root", "--log-format", "json"], { stdio: ["ignore", "pipe", "pipe"] });
    this.log = "";
    this.process.stderr.on("data", (part) => { this.log += part; });
    this.process.stdout.on("data", (part) => { this.log += part; });
    for (let tries = 0; ; tries++) {
      try {
        if ((await this.call("GET", "/ready")).status === 200) break;
      } catch { /* not yet */ }
      if (tries > Number(process.env.TRIES ?? 300) || this.process.exitCode !== null) throw new Error(`pintle does not start:\n${this.log}`);
      await new Promise((later) => setTimeout(later, 100));
    }
    if (this.pins) {
      const taken = await this.call("POST", "/v1/ledger", this.lines());
      if (taken.status !== 200) throw new Error(`the ledger takes no records: ${taken.body}`);
    }
    this.status = JSON.parse((await this.call("GET", "/v1/status")).body);
  }

  // Requests of readers, some of which fail.
  async traffic(count) {
    const https = this.status.listening.find((listener) => listener.scheme === "https").address.split(":").pop();
    for (let at = 0; at < count; at++) {
      const fails = at % 7 === 0;
      try {
        // The upstream is in this process: it must get to run meanwhile.
        await promisify(execFile)("curl", ["-sS", "-m", "10", "-o", "/dev/null", "--cacert", this.file("ca.pem"), "--resolve", `blog.example.com:${https}:127.0.0.1`,
          "-A", XSS, `https://blog.example.com:${https}/page-${at}?q=${encodeURIComponent(XSS)}${fails ? "&fail" : ""}`]);
      } catch { /* the upstream's failures are wanted */ }
    }
  }

  // A port of loopback in front of the admin socket.
  async relay() {
    const server = net.createServer((client) => {
      const behind = net.connect(this.socket);
      client.pipe(behind).pipe(client);
      client.on("error", () => behind.destroy());
      behind.on("error", () => client.destroy());
    });
    await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
    this.relaying = server;
    return `http://127.0.0.1:${server.address().port}`;
  }

  async stop() {
    this.relaying?.close();
    this.upstream?.close();
    if (this.process && this.process.exitCode === null) {
      const ended = new Promise((end) => this.process.on("exit", end));
      this.process.kill("SIGTERM");
      await ended;
    }
  }
}
