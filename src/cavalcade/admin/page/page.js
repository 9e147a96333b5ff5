// The page: what the events say, shown. Everything from the server goes in as text, never as markup.

import { Chart } from "./chart.js";
import { follow } from "./stream.js";

const FEED_ENTRIES = 200;
const LATE_S = 0.1, VERY_LATE_S = 0.25; // of a loop; requests notice
const BUSY = 0.9;
const NOT_THE_TOKEN = "That is not the token.";

const at = (id) => document.getElementById(id);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// -- how values are written ------------------------------------------------------------------------------------------------

function rate(value) {
  return value > 0 && value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en");
}

const count = (value) => (Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(1));

function brief(seconds) {
  if (!seconds || seconds < 0) return "–";
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : span(seconds);
}

function span(seconds) {
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  for (const [big, bigS, small, smallS] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
    if (whole >= bigS) {
      const rest = Math.floor((whole % bigS) / smallS);
      return `${Math.floor(whole / bigS)} ${big}${rest ? ` ${rest} ${small}` : ""}`;
    }
  }
  return `${whole} s`;
}

const scale = (seconds) => (seconds === 0 ? "0" : brief(seconds));
const mebibytes = (bytes) => (bytes ? `${Math.round(bytes / 1048576)} MiB` : "–");
const slotName = (worker) => `slot ${worker.slot}`;
const state = (worker) => (worker.stopped ? "stopped" : worker.blocked ? "blocked" : worker.phase);

// -- now -------------------------------------------------------------------------------------------------------------------

const TILES = [
  ["Requests/s", (status) => rate(status.requests_per_s)],
  ["Failed (5xx)/s", (status) => rate(status.errors_per_s), (status) => (status.errors_per_s > 0 ? "bad" : "")],
  ["Latency p50", (status) => brief(status.p50_s)],
  ["Latency p95", (status) => brief(status.p95_s)],
  ["Latency p99", (status) => brief(status.p99_s)],
  ["In flight", (status) => status.in_flight.toLocaleString("en")],
  ["Queued", (status) => status.queued.toLocaleString("en"), (status) => (status.queued > 0 ? "warn" : "")],
  ["Connections", (status) => status.connections.toLocaleString("en")],
  ["Workers ready", (status) => `${status.workers_ready} of ${status.workers_wanted}`,
    (status) => (status.workers_ready < status.workers_wanted ? "warn" : "")],
  ["Generation", (status) => (status.reloading ? `${status.generation} → ${status.reloading}` : `${status.generation}`)],
];

function showTiles(status) {
  const tiles = at("tiles");
  if (!tiles.children.length) {
    for (const [title] of TILES) {
      const tile = element("div");
      tile.append(element("dt", title), element("dd"));
      tiles.append(tile);
    }
  }
  TILES.forEach(([, show, tone], place) => {
    const value = tiles.children[place].lastElementChild;
    value.textContent = show(status);
    value.className = tone ? tone(status) : "";
  });
}

function showHead(status) {
  const name = status.name === status.app ? status.name : `${status.name} (${status.app})`;
  at("name").textContent = name;
  document.title = `${status.ready ? "" : "! "}${name} – Cavalcade`;
  const stage = at("stage");
  stage.textContent = status.degraded ? `${status.stage}, degraded` : status.stage;
  stage.className = `badge ${status.degraded ? "bad" : status.ready ? "good" : "warn"}`;
  at("about").textContent = [
    `up ${span(status.uptime_s)}`, `pid ${status.pid}`, `cavalcade ${status.version} (${status.build})`, status.listeners.join(", "),
  ].join(" · ");
}

// -- charts ----------------------------------------------------------------------------------------------------------------

const charts = {
  throughput: new Chart(at("charts"), "Throughput, requests a second", rate, 2),
  latency: new Chart(at("charts"), "Latency", scale, 0.001),
  inFlight: new Chart(at("charts"), "In flight", count, 2),
  lag: new Chart(at("charts"), "Loop lag by worker", scale, 0.01),
};

function showCharts(status) {
  const now = performance.now() / 1000;
  charts.throughput.push(now, new Map([["all", status.requests_per_s], ["failed", status.errors_per_s]]));
  charts.latency.push(now, new Map([["p50", status.p50_s], ["p95", status.p95_s], ["p99", status.p99_s]]));
  charts.inFlight.push(now, new Map([["in flight", status.in_flight], ["queued", status.queued]]));
  const lags = new Map();
  for (const worker of status.workers) lags.set(slotName(worker), Math.max(worker.loop_lag_s, lags.get(slotName(worker)) ?? 0));
  charts.lag.push(now, new Map([...lags].sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true }))));
}

// -- tables ----------------------------------------------------------------------------------------------------------------

// Each: title, value, classes of the cell, tone.
const WORKER_COLUMNS = [
  ["Slot", (worker) => worker.slot],
  ["Worker", (worker) => worker.id],
  ["Pid", (worker) => worker.pid || "–"],
  ["Generation", (worker) => worker.generation],
  ["Phase", state, "left", (worker) => ({ ready: "good", stopped: "bad", blocked: "bad" })[state(worker)] ?? "warn"],
  ["Age", (worker) => span(worker.age_s)],
  ["Req/s", (worker) => rate(worker.requests_per_s)],
  ["In flight", (worker) => worker.in_flight],
  ["Busy", busy, "", (worker) => (worker.busy >= BUSY ? "warn" : "")],
  ["Lag", (worker) => brief(worker.loop_lag_s), "",
    (worker) => (worker.loop_lag_s >= VERY_LATE_S ? "bad" : worker.loop_lag_s >= LATE_S ? "warn" : "")],
  ["p95", (worker) => brief(worker.p95_s)],
  ["RSS", (worker) => mebibytes(worker.rss)],
  ["Restarts", (worker) => worker.restarts],
  ["Last reason", (worker) => [worker.last_restart, worker.retiring && `retires: ${worker.retiring}`].filter(Boolean).join(", "), "left wide"],
];

const STALL_COLUMNS = [
  ["Place", (stall) => stall.place, "left wide mono"],
  ["Times", (stall) => stall.count],
  ["Blocked", (stall) => span(stall.seconds)],
  ["Requests waited", (stall) => stall.requests],
  ["Delay in all", (stall) => span(stall.delay_s)],
];

function busy(worker) {
  const share = element("span", `${Math.round(worker.busy * 100)}%`);
  const meter = element("meter");
  Object.assign(meter, { min: 0, max: 1, high: BUSY, value: worker.busy });
  meter.setAttribute("aria-hidden", "true");
  share.append(meter);
  return share;
}

// The roles are said, because a phone's layout takes the table out of the tags.
function fill(table, columns, rows) {
  table.setAttribute("role", "table");
  if (!table.tHead) {
    const row = table.createTHead().insertRow();
    row.setAttribute("role", "row");
    for (const [title, , classes] of columns) {
      const cell = element("th", title, classes);
      cell.scope = "col";
      cell.setAttribute("role", "columnheader");
      row.append(cell);
    }
    table.createTBody();
  }
  table.tBodies[0].replaceChildren(...rows.map((each) => {
    const row = element("tr");
    row.setAttribute("role", "row");
    columns.forEach(([title, show, classes, tone], place) => {
      const cell = element(place ? "td" : "th", undefined, [classes, tone && tone(each)].filter(Boolean).join(" "));
      if (!place) cell.scope = "row";
      cell.setAttribute("role", place ? "cell" : "rowheader");
      cell.dataset.label = title;
      cell.append(show(each)); // a node, or text, which stays text
      row.append(cell);
    });
    return row;
  }));
}

function showTables(status) {
  const workers = [...status.workers].sort((one, other) => one.slot - other.slot || one.id - other.id);
  fill(at("workers"), WORKER_COLUMNS, workers);
  fill(at("stalls"), STALL_COLUMNS, status.stalls.slice(0, 10));
  at("stalls").hidden = !status.stalls.length;
  at("no-stalls").hidden = status.stalls.length > 0;
}

// -- events ----------------------------------------------------------------------------------------------------------------

const TONES = { warning: "warn", error: "bad", critical: "bad" };

function showEntry(entry) {
  const item = element("li");
  const date = new Date(entry.time * 1000);
  const time = element("time", date.toLocaleTimeString("en-GB"));
  time.dateTime = date.toISOString();
  time.title = date.toLocaleString("en-GB");
  const text = element("div", undefined, "text");
  text.append(element("span", entry.text));
  if (entry.fix) text.append(element("div", `→ ${entry.fix}`, "fix"));
  if (entry.trace) {
    const details = element("details");
    details.append(element("summary", "Traceback"), element("pre", entry.trace));
    text.append(details);
  }
  item.append(time, element("span", entry.event, `kind ${TONES[entry.level] ?? ""}`), text);
  const feed = at("feed");
  feed.prepend(item);
  while (feed.children.length > FEED_ENTRIES) feed.lastElementChild.remove();
}

// -- the connection --------------------------------------------------------------------------------------------------------

function showLink(state, text) {
  const link = at("link");
  if (link.textContent !== text) link.textContent = text; // or a screen reader would say it again and again
  link.dataset.state = state;
}

async function askForToken(wrong) {
  showLink("waiting", "It needs a token.");
  at("ask-says").textContent = wrong ? NOT_THE_TOKEN : "";
  for (;;) {
    if (!at("ask").open) at("ask").showModal();
    at("token").focus();
    await submission();
    const token = at("token").value.trim();
    at("token").value = "";
    if (/^[\x21-\x7e]+$/.test(token)) {
      at("ask").close();
      return token;
    }
    at("ask-says").textContent = NOT_THE_TOKEN; // no header could carry it
  }
}

function submission() {
  return new Promise((done) => {
    at("ask-form").addEventListener("submit", (event) => {
      event.preventDefault(); // it stays open until the token can be one
      done();
    }, { once: true });
  });
}

at("ask").addEventListener("cancel", (event) => event.preventDefault()); // without a token there is nothing to go back to

follow("events", {
  token: askForToken,
  live: () => showLink("live", "Live"),
  lost: (text) => showLink("lost", `${text} Trying again …`),
  event(name, data) {
    if (name === "entry") showEntry(data);
    if (name === "bye") showLink("lost", "The server stops.");
    if (name !== "status") return;
    showHead(data);
    showTiles(data);
    showCharts(data);
    showTables(data);
  },
});
