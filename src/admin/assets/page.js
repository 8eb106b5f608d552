// The pages work without this file. With it: copying by a button, live numbers, a slider that asks at once, pins that the
// browser computes itself, and an editor that is checked meanwhile.
"use strict";

const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Copying. The button names the element whose text it copies, and says that it did.
function copying(within) {
  for (const button of all("button.copy[data-copy]", within)) {
    if (!navigator.clipboard) return;
    const label = button.firstChild;
    const word = label.textContent;
    button.hidden = false;
    button.addEventListener("click", async () => {
      const from = document.getElementById(button.dataset.copy);
      await navigator.clipboard.writeText(from.textContent);
      label.textContent = "Copied";
      say(`Copied${button.querySelector(".vh")?.textContent.replace(/^ /, ": ") ?? ""}`);
      setTimeout(() => { label.textContent = word; }, 1500);
    });
  }
}

// An answer to the reader's own action, for screen readers.
function say(words) {
  let place = one("#announcement");
  if (!place) {
    place = document.createElement("p");
    place.id = "announcement";
    place.className = "vh";
    place.setAttribute("role", "status");
    document.body.append(place);
  }
  place.textContent = words;
}

// Live numbers: the server sends one event, and the browser asks again after ten seconds.
function live(facts) {
  const source = new EventSource(facts.dataset.live);
  source.addEventListener("rates", (event) => {
    if (document.hidden) return;
    for (const { name, figure, spark } of JSON.parse(event.data)) {
      const place = one(`[data-figure="${name}"]`, facts);
      if (place && place.textContent !== figure) place.textContent = figure;
      const [area, line] = all(`[data-spark="${name}"] path`, facts);
      if (spark && line) {
        area.setAttribute("d", spark[0]);
        line.setAttribute("d", spark[1]);
      }
    }
  });
  addEventListener("pagehide", () => source.close());
}

// The question about a rotation: the slider sets the day, and the answer comes without a button.
function asking(form) {
  const [day, slide] = [one("#day", form), one("#slide", form)];
  const first = Date.parse(`${slide.dataset.from}T00:00:00Z`);
  const DAY = 86400000;
  let [timer, asked] = [0, 0];
  slide.closest(".field").hidden = false;
  const ask = async () => {
    const number = ++asked;
    const address = new URL(form.action, location);
    address.search = new URLSearchParams(new FormData(form));
    address.hash = "";
    const response = await fetch(address, { headers: { Accept: "text/html" } });
    if (number !== asked || !response.ok) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    const [before, after] = [one("#answer"), one("#answer", fresh)];
    if (!after) return;
    const open = one("details", before)?.open;
    before.replaceChildren(...after.childNodes);
    const details = one("details", before);
    if (details) details.open = open ?? false;
    history.replaceState(null, "", address);
  };
  const soon = () => { clearTimeout(timer); timer = setTimeout(ask, 120); };
  slide.addEventListener("input", () => {
    day.value = new Date(first + slide.value * DAY).toISOString().slice(0, 10);
    slide.setAttribute("aria-valuetext", day.value);
    soon();
  });
  day.addEventListener("change", () => {
    const days = Math.round((Date.parse(`${day.value}T00:00:00Z`) - first) / DAY);
    if (days >= 0) { slide.value = days; soon(); }
  });
  one("#key", form).addEventListener("change", soon);
  slide.setAttribute("aria-valuetext", day.value);
}

// One element of DER at a place: its tag, and where its contents begin and end.
function element(bytes, at) {
  if (at + 2 > bytes.length) throw new Error("cut short");
  let [length, begin] = [bytes[at + 1], at + 2];
  if (length & 0x80) {
    const count = length & 0x7f;
    if (count < 1 || count > 4 || begin + count > bytes.length) throw new Error("no DER");
    length = 0;
    for (; begin < at + 2 + count; begin++) length = length * 256 + bytes[begin];
  }
  if (begin + length > bytes.length) throw new Error("cut short");
  return { tag: bytes[at], at, begin, end: begin + length };
}

function children(bytes, parent) {
  const found = [];
  for (let at = parent.begin; at < parent.end && found.length < 64; at = found.at(-1).end) found.push(element(bytes, at));
  return found;
}

const SEQUENCE = 0x30, INTEGER = 0x02, BITS = 0x03, BYTES = 0x04, OID = 0x06, VERSION = 0xa0;
const is_spki = (bytes, parts) =>
  parts.length === 2 && parts[0].tag === SEQUENCE && parts[1].tag === BITS && children(bytes, parts[0])[0]?.tag === OID;
class Private extends Error {}

// The SubjectPublicKeyInfo of a certificate, a CSR or a public key. Throws for anything like a private key.
function spki(bytes) {
  const whole = element(bytes, 0);
  if (whole.tag !== SEQUENCE || whole.end !== bytes.length) throw new Error("no DER");
  const parts = children(bytes, whole);
  if (is_spki(bytes, parts)) return ["public key", bytes];
  const [first, second] = parts;
  // PKCS#1, SEC1 and PKCS#8 begin with a version; an encrypted key ends with a string of bytes; PKCS#12 begins with version 3.
  if (first?.tag === INTEGER || (parts.length === 2 && second.tag === BYTES)) throw new Private();
  if (first?.tag !== SEQUENCE || second?.tag !== SEQUENCE || parts[2]?.tag !== BITS) throw new Error("unknown");
  const inner = children(bytes, first);
  const key = inner.find((part) => part.tag === SEQUENCE && is_spki(bytes, children(bytes, part)));
  if (!key) throw new Error("unknown");
  const kind = inner[0].tag === VERSION || inner.length > 5 ? "certificate" : "CSR";
  return [kind, bytes.slice(key.at, key.end)];
}

// The first block of PEM as bytes, or the bytes themselves.
function der(bytes) {
  const text = new TextDecoder("latin1").decode(bytes);
  if (/PRIVATE KEY/i.test(text.replaceAll("\0", ""))) throw new Private();
  const block = /-----BEGIN ([A-Z0-9 ]+)-----([\s\S]*?)-----END \1-----/.exec(text);
  if (!block) return bytes;
  const plain = atob(block[2].replace(/\s+/g, ""));
  return Uint8Array.from(plain, (letter) => letter.charCodeAt(0));
}

function made(tag, attributes = {}, ...content) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...content);
  return node;
}

function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "i");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(space, "use"));
  svg.firstChild.setAttribute("href", `#${name}`);
  return svg;
}

function copyline(id, text, words, kind) {
  const button = made("button", { type: "button", class: `${kind} copy`, "data-copy": id, hidden: "" }, "Copy", made("span", { class: "vh" }, ` ${words}`));
  return made("div", { class: "copyline" }, made("code", { class: kind === "go" ? "pin big" : "pin", id }, text), button);
}

// The fingerprint tool: the file never leaves the browser. The pin does, if the reader asks whose key it is.
function fingerprint(form) {
  if (!crypto.subtle) return;
  one("[data-offline]", form).hidden = false;
  const [file, text] = [one("[type=file]", form), one("textarea", form)];
  const show = (node, words) => { one("#result").replaceChildren(node); say(words); node.setAttribute("tabindex", "-1"); node.focus(); };
  const refuse = (title, more, command) => {
    const box = made("section", { class: "verdict v-bad", role: "alert" },
      made("h2", { class: "h3" }, icon("bad"), made("span", {}, title)), made("p", {}, more));
    if (command) box.append(made("pre", {}, command));
    show(box, title);
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const chosen = file.files[0];
    const name = chosen?.name ?? "Pasted";
    let bytes;
    try {
      if (!chosen && !text.value.trim()) return refuse("There is nothing to look at", "Choose a file, or paste a certificate, a CSR or a public key.");
      if (chosen?.size > 65536) return refuse(`${name} is too long`, "A certificate, a CSR or a public key fits into 64 KiB.");
      bytes = chosen ? new Uint8Array(await chosen.arrayBuffer()) : new TextEncoder().encode(text.value.trim());
      const [kind, key] = spki(der(bytes));
      found(name, kind, new Uint8Array(await crypto.subtle.digest("SHA-256", key)));
    } catch (error) {
      if (error instanceof Private) {
        bytes?.fill(0);
        form.reset();
        refuse(`${name} is a private key. It was wiped, and not sent`,
          "A pin needs the public half only. On the machine that has the key, make the public half:", "openssl pkey -in FILE -pubout -out FILE.pub");
      } else {
        refuse(`${name} has no pin`, "Show a certificate, a CSR or a public key, in PEM or DER.");
      }
    }
  });
  const found = (name, kind, digest) => {
    const pin = btoa(String.fromCharCode(...digest));
    const hex = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const card = made("section", { class: "card", "aria-labelledby": "pin-title" },
      made("p", { class: "lab" }, name), made("h2", { id: "pin-title" }, `The pin of this ${kind}`), copyline("pin", pin, "the pin", "go"),
      made("p", { class: "quiet" }, "Your browser computed it; nothing was sent. ",
        made("a", { href: `/fingerprint?pin=${encodeURIComponent(pin)}` }, "Whose key is it?"), " (This sends the pin alone.)"));
    const forms = [["curl", `sha256//${pin}`], ["OkHttp", `sha256/${pin}`], ["TLSA", `3 1 1 ${hex}`], ["header", `pin-sha256="${pin}"`], ["hex", hex]];
    const rows = forms.map(([form, text], at) =>
      made("tr", {}, made("th", { scope: "row" }, form), made("td", {}, copyline(`form-${at}`, text, `the ${form} form`, "tiny"))));
    const table = made("table", { class: "forms" }, made("caption", { class: "vh" }, "The pin in other forms"), made("tbody", {}, ...rows));
    one("#forms-part").replaceChildren(made("div", { class: "card flush" }, table));
    copying(one("#forms-part"));
    show(card, `The pin of this ${kind} is ${pin}`);
    copying(card);
  };
}

// The editor: line numbers that follow the text, and the verdict of "Check" while somebody types.
function editing(form) {
  const [text, marks] = [one("textarea", form), one(".editor pre", form)];
  if (!text || !marks || text.readOnly) return;
  let timer = 0;
  const number = () => {
    const lines = text.value.split("\n");
    text.rows = Math.max(8, lines.length);
    marks.replaceChildren(...lines.map((line) => made("span", {}, line || " ")));
  };
  const check = async () => {
    const checked = text.value;
    const fields = new URLSearchParams(new FormData(form));
    fields.set("do", "check");
    let page;
    try {
      const answer = await fetch(form.action, { method: "POST", body: fields });
      page = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch {
      page = document.implementation.createHTMLDocument();
    }
    if (text.value !== checked) return;
    // Another page has no verdict: the session has ended, for one. The old verdict is about an older text.
    if (!one("#verdict", page)) return unchecked();
    for (const part of ["#verdict", "#difference", "#marks", ".head"]) {
      const [now, next] = [one(part), one(part, page)];
      if (now && next) now.replaceChildren(...next.childNodes);
    }
  };
  const unchecked = () => one("#verdict")?.replaceChildren(made("h2", { id: "problems" }, "Problems"),
    made("div", { class: "verdict v-warn" }, made("h3", {}, icon("warn"), made("span", {}, "This text is not checked")),
      made("p", {}, "pintle did not answer, or your session has ended. “Check” says more; your text stays.")));
  one("#verdict")?.setAttribute("aria-live", "polite");
  text.addEventListener("input", () => {
    number();
    clearTimeout(timer);
    timer = setTimeout(check, 700);
  });
}

// The longest chain or key, in bytes.
const FILE_MAX = 256 << 10;

// The check of a certificate: the verdict comes beside the form, which keeps its files.
function installing(form) {
  const [file, text, outcome] = [one("#file", form), one("#pem", form), one("#outcome")];
  const is_private = async () => {
    const chosen = file.files[0];
    const bytes = chosen ? new Uint8Array(await chosen.arrayBuffer()) : new TextEncoder().encode(text.value);
    return /PRIVATE KEY/i.test(new TextDecoder("latin1").decode(bytes).replaceAll("\0", ""));
  };
  const show = (words) => { say(words); outcome.focus(); };
  const refuse = (title, words, command) => {
    form.reset();
    outcome.replaceChildren(made("section", { class: "verdict v-bad", "aria-labelledby": "verdict" },
      made("h2", { id: "verdict" }, icon("bad"), made("span", {}, title)), made("p", {}, words)));
    if (command) outcome.firstChild.append(made("pre", {}, command));
    show(title);
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const checked = new FormData(form, event.submitter);
    try {
      const long = [...file.files, ...(one("[type=file][name=key]", form)?.files ?? [])].find((chosen) => chosen.size > FILE_MAX);
      if (long) {
        return refuse(`${long.name} is too long. It was not sent`, "A chain or a key has a few kilobytes. Choose another file.");
      }
      if (!("keys" in form.dataset) && await is_private()) {
        return refuse(`${file.files[0]?.name ?? "The pasted text"} has a private key. It was not sent`,
          "Private keys stay off this page. On the machine that runs pintle:",
          one("#by-command", form)?.textContent ?? "sudo pintle install");
      }
      const answer = await fetch(form.action, { method: "POST", body: checked });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = one("#outcome", page);
      if (!next) throw new Error("another page");
      outcome.replaceChildren(...next.childNodes);
      one(".head").replaceChildren(...one(".head", page).childNodes);
      // The files are here already: nobody has to choose the key again.
      for (const again of all("form[data-apply] [name=key]", outcome)) {
        const key = one("[type=file][name=key]", form);
        if (key?.files.length) again.files = key.files;
      }
      show(one("#verdict", outcome)?.textContent ?? "");
    } catch {
      // Without an answer here, the browser shows the page itself.
      const sent = made("input", { type: "hidden", name: "do", value: "check" });
      form.append(sent);
      form.submit();
    }
  });
}

copying(document);
all("form[data-install]").forEach(installing);
all("[data-live]").forEach(live);
all("form[data-ask]").forEach(asking);
all("form[data-fingerprint]").forEach(fingerprint);
all("form[data-check]").forEach(editing);
