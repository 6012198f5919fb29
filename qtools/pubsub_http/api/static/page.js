// q-pubsub: the topics, polled each second; one of them, streamed. In: /topics, /sub, what is typed. Out: the page, /mpub.
// What comes out of a queue is a stranger's: it is only ever put in as text.
"use strict";

const POLL = 1000; // ms
const SAMPLES = 60; // of a rate: a minute
const MOST = 500; // messages on the page; the oldest go
const AGAIN = [500, 1000, 2000, 5000]; // ms until a broken stream is tried again

const $ = (id) => document.getElementById(id);
const history = new Map(); // topic → { total, at, rates }
let topics = [];
let engine = { name: "", capabilities: [] };
let chosen = null; // the topic that is read
let token = sessionStorage.getItem("token") || "";
let gateOpen = null; // resolves once a token was given

// ── asking ──────────────────────────────────────────────────────────────────────────────────────

async function ask(path, settings = {}) {
  for (;;) {
    const headers = { ...settings.headers };
    if (token) headers.authorization = `Bearer ${token}`;
    const answer = await fetch(path, { ...settings, headers, cache: "no-store" });
    if (answer.status !== 401) return answer;
    token = "";
    sessionStorage.removeItem("token");
    await askForToken();
  }
}

function askForToken() {
  if (!gateOpen) {
    gateOpen = new Promise((resolve) => {
      $("gate").showModal();
      $("gate-form").onsubmit = (event) => {
        event.preventDefault();
        token = $("token").value.trim();
        sessionStorage.setItem("token", token);
        $("token").value = "";
        $("gate").close();
        gateOpen = null;
        resolve();
      };
    });
  }
  return gateOpen;
}

const can = (capability) => engine.capabilities.includes(capability);

async function whyNot(answer) {
  const told = await answer.json().catch(() => ({}));
  return told.detail || told.message || `the gateway answers ${answer.status}`;
}

// ── topics ──────────────────────────────────────────────────────────────────────────────────────

function short(number) {
  if (number < 1000) return number < 10 && number % 1 ? number.toFixed(1) : String(Math.round(number));
  if (number < 1e6) return `${(number / 1e3).toFixed(number < 1e4 ? 1 : 0)}k`;
  return `${(number / 1e6).toFixed(number < 1e7 ? 1 : 0)}M`;
}

function note(topic, now) {
  let known = history.get(topic.topic);
  if (!known) history.set(topic.topic, (known = { total: topic.messages, at: now, rates: [] }));
  else if (now > known.at) {
    known.rates.push(Math.max(0, topic.messages - known.total) / ((now - known.at) / 1000));
    if (known.rates.length > SAMPLES) known.rates.shift();
    known.total = topic.messages;
    known.at = now;
  }
  return known.rates;
}

function draw(svg, rates) {
  const { width, height } = svg.viewBox.baseVal;
  const top = Math.max(1, ...rates);
  const step = width / (SAMPLES - 1);
  const begin = width - (rates.length - 1) * step;
  const points = rates.map((rate, nth) => [begin + nth * step, height - 1.5 - (rate / top) * (height - 3)]);
  const line = points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join(" L");
  svg.querySelector(".line").setAttribute("d", points.length > 1 ? `M${line}` : "");
  svg.querySelector(".area").setAttribute(
    "d", points.length > 1 ? `M${begin.toFixed(1)} ${height} L${line} L${width} ${height} Z` : "",
  );
}

// A number that the engine cannot tell is null, and so is a sum with it.
const add = (sum, number) => (sum === null || number === null ? null : sum + number);

function setNumber(element, number, warn = false) {
  element.textContent = number === null ? "" : short(number);
  element.classList.toggle("quiet", !number);
  element.classList.toggle("warn", warn && number > 0);
}

// One row for each topic, made once: a row that is clicked or has the focus stays the same element.
function rowFor(name) {
  for (const row of $("list").children) if (row.dataset.topic === name) return row;
  const row = $("row").content.firstElementChild.cloneNode(true);
  row.dataset.topic = name;
  row.querySelector(".name").textContent = name;
  row.querySelector("button").onclick = () => open(name);
  return row;
}

// Of an engine whose topics keep their messages, a topic has messages, and each group has a lag: what it has not finished.
// Of any other, what waits is in the queues of the channels, or of the topic as long as it has none.
function show() {
  const keeps = can("retention");
  $("depth-name").textContent = keeps ? "Messages" : "Depth";
  $("flight-name").textContent = keeps ? "Lag" : "In flight";
  $("key").hidden = !can("keys_and_headers");
  const wanted = $("search").value.trim().toLowerCase();
  const seen = topics.filter((topic) => topic.topic.toLowerCase().includes(wanted));
  const rows = seen.map((topic) => {
    const row = rowFor(topic.topic);
    const rates = history.get(topic.topic)?.rates ?? [];
    const queued = topic.channels.reduce((sum, channel) => sum + channel.depth + channel.deferred, 0);
    const button = row.querySelector("button");
    setNumber(button.querySelector(".depth"), keeps ? topic.depth : topic.depth + queued);
    const flight = button.querySelector(".flight");
    if (keeps) flight.textContent = "";
    else setNumber(flight, topic.channels.reduce((sum, channel) => add(sum, channel.in_flight), 0));
    setNumber(button.querySelector(".rate .number"), rates.at(-1) ?? 0);
    draw(button.querySelector("svg"), rates);
    button.setAttribute("aria-current", String(topic.topic === chosen));
    const channels = topic.channels.filter((channel) => !channel.channel.startsWith("q-pubsub-"));
    row.querySelector(".channels").replaceChildren(...channels.map(channelRow));
    return row;
  });
  const list = $("list");
  if (rows.length !== list.children.length || rows.some((row, nth) => list.children[nth] !== row)) {
    const focused = document.activeElement;
    list.replaceChildren(...rows);
    if (focused && list.contains(focused)) focused.focus();
  }
  $("empty").hidden = rows.length > 0;
  $("empty").textContent = topics.length ? "No topic has that in its name" : "No topics yet" + (keeps ? "" : ". The first message makes one.");
  about();
}

function channelRow(channel) {
  const row = $("channel").content.firstElementChild.cloneNode(true);
  row.querySelector(".name").textContent = channel.channel;
  row.querySelector(".name").title = channel.channel;
  if (can("retention")) {
    setNumber(row.querySelector(".flight"), channel.depth + channel.deferred);
    return row;
  }
  setNumber(row.querySelector(".depth"), channel.depth + channel.deferred, channel.clients === 0);
  setNumber(row.querySelector(".flight"), channel.in_flight);
  row.querySelector(".clients").textContent = channel.paused
    ? "paused" : channel.clients === null ? "" : channel.clients === 1 ? "1 reader" : `${channel.clients || "no"} readers`;
  return row;
}

function setState(good, text) {
  $("state").className = `state ${good ? "good" : "bad"}`;
  $("state-text").textContent = text;
}

async function poll() {
  try {
    const answer = await ask("/topics");
    if (!answer.ok) throw new Error(await whyNot(answer));
    ({ topics, engine } = await answer.json());
    const now = performance.now();
    for (const topic of topics) note(topic, now);
    setState(true, topics.length === 1 ? "1 topic" : `${topics.length} topics`);
    show();
  } catch (error) {
    setState(false, error instanceof TypeError ? "the gateway is away" : error.message);
  }
  setTimeout(poll, POLL);
}

// ── one topic ───────────────────────────────────────────────────────────────────────────────────

const tail = { stop: null, paused: false, pretty: true, held: [], count: 0, text: "" };

function open(name) {
  chosen = name;
  $("welcome").hidden = true;
  $("tail").hidden = false;
  $("name").textContent = name;
  document.title = `${name} · q-pubsub`;
  document.body.classList.add("reading");
  location.replace(`#${encodeURIComponent(name)}`);
  $("where").value = "";
  setPaused(false);
  empty();
  show();
  listen();
}

function leave() {
  tail.stop?.abort();
  chosen = null;
  $("tail").hidden = true;
  $("welcome").hidden = false;
  document.title = "q-pubsub";
  document.body.classList.remove("reading");
  location.replace("#");
  const row = $("list").querySelector('[aria-current="true"]');
  show();
  (row ?? $("list").querySelector(".row"))?.focus();
}

function about() {
  if (!chosen) return;
  const topic = topics.find((each) => each.topic === chosen);
  const rates = history.get(chosen)?.rates ?? [];
  draw($("big"), rates);
  if (!topic) {
    $("about").textContent = "not there yet";
    return;
  }
  const count = can("retention") ? topic.depth : topic.messages;
  const which = can("retention") ? "in the topic" : "since the broker began";
  const messages = count === null ? "" : ` · ${count.toLocaleString("en")} ${count === 1 ? "message" : "messages"} ${which}`;
  $("about").textContent = `${short(rates.at(-1) ?? 0)}/s${messages}`;
}

// An expression begins as one does; everything else is a text to look for.
const isExpression = (text) => /^(\.|\$[a-z]|\(|\[|\{|"|not\b|select\(|if\b|has\(|any\b|all\b)/.test(text);

async function listen() {
  tail.stop?.abort();
  const stop = (tail.stop = new AbortController());
  const text = $("where").value.trim();
  tail.text = isExpression(text) ? "" : text.toLowerCase();
  const query = new URLSearchParams({ topic: chosen, format: "envelope" });
  if (text && isExpression(text)) query.set("where", text);
  complain("");
  delete $("tail").dataset.listening;
  for (let tries = 0; !stop.signal.aborted; tries += 1) {
    try {
      const answer = await ask(`/sub?${query}`, { signal: stop.signal });
      if (!answer.ok) {
        const told = await whyNot(answer);
        if (stop.signal.aborted) return;
        complain(told);
        $("where").classList.toggle("wrong", answer.status === 400);
        if (answer.status < 500 && answer.status !== 409) return; // it would be the same again
      } else {
        complain("");
        tries = 0;
        $("tail").dataset.listening = text;
        await read(answer.body.getReader());
      }
    } catch (error) {
      if (stop.signal.aborted) return;
      complain("The stream broke; trying again");
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN[Math.min(tries, AGAIN.length - 1)]));
  }
}

async function read(reader) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop();
    take(lines.slice(-MOST).map((line) => JSON.parse(line)));
  }
}

function take(messages) {
  if (tail.text) messages = messages.filter((message) => hasText(message, tail.text));
  if (!messages.length) return;
  if (tail.paused) {
    tail.held = [...tail.held, ...messages].slice(-MOST);
    $("pause").textContent = `Go on (${tail.held.length}${tail.held.length === MOST ? "+" : ""} new)`;
    return;
  }
  const list = $("messages");
  const stays = list.scrollTop > 8 ? list.scrollHeight - list.scrollTop : null; // who reads further down is not moved
  list.prepend(...messages.reverse().map(element));
  while (list.children.length > MOST) list.lastElementChild.remove();
  if (stays !== null) list.scrollTop = list.scrollHeight - stays;
}

function hasText(message, text) {
  return [message.body, message.key].some((each) => each?.toLowerCase().includes(text));
}

// A key, or a value of a header, as an envelope has it: text, { base64 }, null, or a list of these.
function plain(value) {
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (value === null) return "no value";
  return typeof value === "string" ? value : `base64: ${value.base64}`;
}

function element(message) {
  const made = $("message").content.firstElementChild.cloneNode(true);
  const when = new Date(message.timestamp / 1e6);
  const time = made.querySelector("time");
  time.dateTime = when.toISOString();
  time.textContent = `${when.toLocaleTimeString("en-GB")}.${String(when.getMilliseconds()).padStart(3, "0")}`;
  time.title = when.toLocaleString();
  if (message.attempts > 1) made.querySelector(".tries").textContent = `attempt ${message.attempts}`;
  const { key, key_base64: packed, headers = {}, partition, offset } = message;
  if (packed !== undefined || typeof key === "string")
    made.querySelector(".key").textContent = `key ${packed === undefined ? key || "(empty)" : `base64: ${packed}`}`;
  const id = made.querySelector(".id");
  id.textContent = offset === undefined ? message.id : `partition ${partition} · offset ${offset}`;
  id.title = message.id;
  const list = made.querySelector(".headers");
  list.hidden = !Object.keys(headers).length;
  list.replaceChildren(...Object.entries(headers).map(([name, value]) => {
    const entry = document.createElement("li");
    const label = document.createElement("b");
    label.textContent = name;
    entry.append(label, ` ${plain(value)}`);
    return entry;
  }));
  made.message = message;
  made.classList.add("fresh");
  paint(made);
  return made;
}

function paint(made) {
  const { body, body_base64: packed } = made.message;
  const pre = made.querySelector("pre");
  pre.classList.toggle("none", !body && packed === undefined);
  if (body === undefined) pre.textContent = `base64: ${packed}`;
  else if (body === null) pre.textContent = "no body";
  else if (body === "") pre.textContent = "empty body";
  else if (tail.pretty) pre.replaceChildren(...pretty(body));
  else pre.textContent = body;
}

// JSON, indented and coloured; its numbers as they were written, which JSON.parse would not keep. Else the text as it is.
function pretty(body) {
  try {
    const value = JSON.parse(body);
    if (value === null || typeof value !== "object") return [body];
  } catch {
    return [body];
  }
  const out = [];
  const put = (text, kind) => {
    if (!kind) { out.push(text); return; }
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = text;
    out.push(span);
  };
  let depth = 0;
  let flatUntil = -1; // the end of what is short enough to stand in one line
  const line = (nth, gap = " ") => put(nth <= flatUntil ? gap : `\n${"  ".repeat(depth)}`);
  const tokens = body.match(/"(?:[^"\\]|\\.)*"|[{}[\]:,]|[^\s{}[\]:,"]+/g) ?? [];
  for (let nth = 0; nth < tokens.length; nth += 1) {
    const token = tokens[nth];
    if (token === "{" || token === "[") {
      if (tokens[nth + 1] === (token === "{" ? "}" : "]")) { put(token + tokens[(nth += 1)]); continue; }
      if (nth > flatUntil) flatUntil = flat(tokens, nth);
      put(token); depth += 1; line(nth, token === "{" ? " " : "");
    } else if (token === "}" || token === "]") { depth -= 1; line(nth, token === "}" ? " " : ""); put(token); }
    else if (token === ",") { put(","); line(nth); }
    else if (token === ":") put(": ");
    else if (token[0] === '"') put(token, tokens[nth + 1] === ":" ? "k" : "s");
    else put(token, /^[-\d]/.test(token) ? "n" : "w");
  }
  return out;
}

// Where the array or object that begins at `from` ends, if nothing is nested in it and it is short; else -1.
function flat(tokens, from) {
  if (from === 0) return -1;
  let length = 0;
  for (let nth = from + 1; nth < tokens.length && length < 60; nth += 1) {
    if (tokens[nth] === "{" || tokens[nth] === "[") return -1;
    if (tokens[nth] === "}" || tokens[nth] === "]") return nth;
    length += tokens[nth].length + 1;
  }
  return -1;
}

function complain(text) {
  $("trouble").hidden = !text;
  $("trouble").textContent = text;
  if (!text) $("where").classList.remove("wrong");
}

function empty() {
  tail.held = [];
  $("messages").replaceChildren();
}

function setPaused(paused) {
  tail.paused = paused;
  $("pause").textContent = "Pause";
  $("pause").setAttribute("aria-pressed", String(paused));
  if (!paused && tail.held.length) {
    const held = tail.held;
    tail.held = [];
    take(held);
  }
  if (paused) $("pause").textContent = "Go on";
}

async function publish() {
  const body = $("body").value;
  if (!body) return;
  const many = $("lines").checked;
  const told = $("sent");
  try {
    const query = new URLSearchParams({ topic: chosen });
    if (!$("key").hidden && $("key").value) query.set("key", $("key").value);
    const answer = await ask(`/${many ? "mpub" : "pub"}?${query}`, { method: "POST", body });
    told.classList.toggle("bad", !answer.ok);
    if (!answer.ok) { told.textContent = await whyNot(answer); return; }
    const count = Number(answer.headers.get("q-published"));
    told.textContent = count === 1 ? "published" : `${count} published`;
    $("body").value = "";
  } catch {
    told.classList.add("bad");
    told.textContent = "the gateway is away";
  }
  $("body").focus();
}

// ── what is clicked and typed ───────────────────────────────────────────────────────────────────

$("search").oninput = show;
$("pause").onclick = () => setPaused(!tail.paused);
$("clear").onclick = empty;
$("back").onclick = leave;
$("pretty").onclick = () => {
  tail.pretty = !tail.pretty;
  $("pretty").setAttribute("aria-pressed", String(tail.pretty));
  for (const message of $("messages").children) paint(message);
};
let typing;
$("where").oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(() => { empty(); listen(); }, 350);
};
$("publish").onsubmit = (event) => { event.preventDefault(); publish(); };
$("body").oninput = () => { $("sent").textContent = ""; };
$("help-open").onclick = () => $("help").showModal();

function step(by) {
  const rows = [...$("list").querySelectorAll(".row")];
  const at = rows.indexOf(document.activeElement);
  const from = at < 0 ? rows.findIndex((row) => row.getAttribute("aria-current") === "true") : at;
  rows[Math.max(0, Math.min(rows.length - 1, from < 0 ? 0 : from + by))]?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  const field = event.target.closest("input, textarea");
  if (event.key === "Enter" && event.ctrlKey && event.target === $("body")) { publish(); return; }
  if (event.ctrlKey) return;
  if (event.key === "Escape") {
    if (field) field.blur();
    else if (chosen) leave();
    return;
  }
  if (event.key === "ArrowDown" && (!field || field === $("search"))) { event.preventDefault(); step(1); return; }
  if (event.key === "ArrowUp" && !field) { event.preventDefault(); step(-1); return; }
  if (field) return;
  const act = {
    "/": () => $("search").focus(),
    "?": () => $("help").showModal(),
    f: () => chosen && $("where").focus(),
    p: () => chosen && $("body").focus(),
    " ": () => chosen && !event.target.closest("button") && setPaused(!tail.paused),
  }[event.key];
  if (act && (event.key !== " " || !event.target.closest("button"))) { event.preventDefault(); act(); }
});

window.addEventListener("pagehide", () => tail.stop?.abort());

// The topic that the address names; an address that was cut or mistyped, as /#%, names none.
function named() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

const wanted = named();
if (wanted) open(wanted);
poll();
