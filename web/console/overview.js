// The figures of all users: tiles, charts, latency, regions.

import { $, attr, bar, h, reconcile, row, s, table, text } from "./dom.js";
import { sparkline, TimeChart } from "./chart.js";
import { now } from "./api.js";
import { count, millis, minute, parse, percent, plural, rate } from "./format.js";

const tiles = [
  {
    key: "streams", label: "Streams", cls: "c1", value: (v) => count(v.streams),
    note: (v) => [plural(Object.keys(v.regions).length, "region"), ...Object.entries(v.via ?? {}).map(([via, n]) => `${count(n)} via ${via}`)].join(", "),
  },
  {
    key: "users", label: "Users", cls: "c2", value: (v) => count(v.users),
    note: (v) => (v.users ? `${(v.streams / v.users).toFixed(2)} each` : "no streams"),
  },
  {
    key: "usersAtLimit", label: "At their limit", cls: "c3", value: (v) => count(v.usersAtLimit),
    note: (v) => `${percent(v.usersAtLimit, v.users)} of users`,
  },
  {
    key: "starts", label: "Starts", unit: "/s", cls: "c1", value: (v) => rate(v.rates.starts),
    note: (v) => `${rate(v.rates.stops)} stops/s`,
  },
  {
    key: "refusals", label: "Refusals", unit: "/s", cls: "c4", value: (v) => rate(v.rates.refusals),
    note: () => "at this node",
  },
  {
    key: "expiries", label: "Expiries", unit: "/s", cls: "c3", value: (v) => rate(v.rates.expiries),
    note: (v) => `${rate(v.rates.heartbeats)} heartbeats/s`,
  },
];

let streams;
let rates;
let past = []; // the samples of the history
let totals = ""; // text with the sums of the history
let live = null; // the current totals, the last sample of the charts

/** Creates the elements for the figures. */
export function build() {
  reconcile($("tiles"), tiles, {
    key: ({ key }) => key,
    create: ({ label, unit }) => {
      const tile = h("div", { class: "tile" });
      tile.value = h("b", { class: "value" }, "–");
      tile.note = h("span", { class: "note" });
      tile.spark = s("svg", {
        class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true",
      });
      tile.append(h("dt", null, label),
        h("dd", null, tile.value, unit && h("span", { class: "unit" }, unit), tile.note, tile.spark));
      return tile;
    },
  });
  streams = new TimeChart($("chart-streams"), {
    title: "Streams and users", format: count,
    series: [{ key: "streams", label: "streams", cls: "c1" }, { key: "users", label: "users", cls: "c2" },
      { key: "usersAtLimit", label: "at their limit", cls: "c3" }],
  });
  rates = new TimeChart($("chart-rates"), {
    title: "Per second", format: rate, height: 140, floor: 0.4,
    series: [{ key: "starts", label: "starts", cls: "c1" }, { key: "stops", label: "stops", cls: "c2" },
      { key: "expiries", label: "expiries", cls: "c3" }, { key: "refusals", label: "refusals, this node", cls: "c4" }],
  });
}

/** Shows the statistics. */
export function showStats(stats) {
  [...$("tiles").children].forEach((tile, i) => {
    text(tile.value, tiles[i].value(stats));
    text(tile.note, tiles[i].note(stats));
  });
  live = {
    at: now(), streams: stats.streams, users: stats.users, usersAtLimit: stats.usersAtLimit, starts: stats.rates.starts,
    stops: stats.rates.stops, expiries: stats.rates.expiries, refusals: stats.rates.refusals,
  };
  draw();
  showRegions(stats);
  showLatency(stats.latency);
}

/** Shows the history. */
export function showHistory(history) {
  const every = history.everySeconds || 10;
  past = history.samples.map((v) => ({
    at: parse(v.at), streams: v.streams, users: v.users, usersAtLimit: v.usersAtLimit, starts: v.starts / every,
    stops: v.stops / every, expiries: v.expiries / every, refusals: v.refusals / every,
  }));
  totals = past.length ? `${plural(sum(history, "starts"), "start")}, ` +
    `${plural(sum(history, "refusals"), "refusal")} and ${plural(sum(history, "expiries"), "expiry", "expiries")} ` +
    `since ${minute(past[0].at)}.` : "";
  [...$("tiles").children].forEach((tile, i) => {
    sparkline(tile.spark, thin(past.map((v) => v[tiles[i].key]), 60), tiles[i].cls);
  });
  draw();
}

function draw() {
  const samples = live && !(past.at(-1)?.at > live.at) ? [...past, live] : past;
  streams.update(samples, describe(samples));
  rates.update(samples, totals);
}

const sum = (history, key) => history.samples.reduce((n, v) => n + v[key], 0);

function describe(samples) {
  if (samples.length < 2) return "The node samples the totals every ten seconds: the line appears soon.";
  const pick = (better) => samples.reduce((best, v) => (better(v.streams, best.streams) ? v : best));
  const max = pick((a, b) => a > b);
  const min = pick((a, b) => a < b);
  return `${plural(samples.at(-1).streams, "stream")} now; maximum ${count(max.streams)} at ${minute(max.at)}, ` +
    `minimum ${count(min.streams)} at ${minute(min.at)}.`;
}

// A sparkline is 100 px wide, so it shows the means of n groups of values.
function thin(values, n) {
  if (values.length <= n) return values;
  const out = [];
  for (let i = 0; i < n; i++) {
    const piece = values.slice(Math.floor(i * values.length / n), Math.floor((i + 1) * values.length / n));
    out.push(piece.reduce((a, b) => a + b, 0) / piece.length);
  }
  return out;
}

const regionColumns = [
  { name: "region", title: "Region", head: true, cls: "free" }, { name: "bar", hidden: "Bar", cls: "wide" },
  { name: "streams", title: "Streams", cls: "n" }, { name: "share", title: "Share", cls: "n" },
];

function showRegions({ regions, streams: all }) {
  const into = $("regions");
  const list = Object.entries(regions).sort(([a, n], [b, m]) => m - n || a.localeCompare(b));
  into.table ??= into.appendChild(table("Streams by region", regionColumns).el);
  into.empty ??= into.appendChild(h("p", { class: "empty" }, "No streams."));
  attr(into.table, "hidden", list.length === 0);
  attr(into.empty, "hidden", list.length > 0);
  reconcile(into.table.tBodies[0], list, {
    key: ([region]) => region,
    create: () => row(regionColumns),
    update: (tr, [region, n]) => {
      text(tr.of.region, region || "none");
      bar(tr.of.bar, [{ share: n / all, cls: "c1" }]);
      text(tr.of.streams, count(n));
      text(tr.of.share, percent(n, all));
    },
  });
}

const latencyColumns = [
  { name: "call", title: "Call", head: true }, { name: "count", title: "Calls", cls: "n" },
  { name: "p50Ms", title: "p50", cls: "n" },
  { name: "p95Ms", title: "p95", cls: "n" }, { name: "p99Ms", title: "p99", cls: "n" },
];

function showLatency(latency) {
  const into = $("latency");
  into.body ??= (() => {
    const made = table("Latency of calls in milliseconds", latencyColumns);
    into.append(made.el, h("p", { class: "muted small" },
      "In milliseconds, from the arrival of the request to the end of the answer."));
    return made.body;
  })();
  reconcile(into.body, ["start", "heartbeat", "stop"], {
    key: (call) => call,
    create: () => row(latencyColumns),
    update: (tr, call) => {
      const v = latency[call];
      text(tr.of.call, call);
      text(tr.of.count, count(v.count));
      for (const p of ["p50Ms", "p95Ms", "p99Ms"]) text(tr.of[p], v.count ? millis(v[p]) : "–");
    },
  });
}
