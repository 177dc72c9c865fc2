// The feed of events: the newest first, filtered, and held still on request.

import { $, attr, h, reconcile, row, text } from "./dom.js";
import { clock, count, parse, plural } from "./format.js";
import { now } from "./api.js";

const kinds = [["start", "Starts"], ["stop", "Stops"], ["refusal", "Refusals"], ["expiry", "Expiries"]];
const remembered = 1000; // of all events, for when the filter changes
const visible = 150; // rows
const columns = [{ name: "time", cls: "time" }, { name: "kind", cls: "kind" }, { name: "what", cls: "free" }];

const chosen = new Set(kinds.map(([kind]) => kind));
let user = "";
let recent = []; // oldest first
let matching = []; // those that the filter lets through
let held = null; // what matching was when the feed was paused
let waiting = 0; // matching events since then
let serial = 0;
let timer = 0;
let state = "off";

/** Builds the filters. */
export function build() {
  $("feed-kinds").append(...kinds.map(([kind, label]) => h("label", { class: "chip" }, h("input", {
    type: "checkbox", value: kind, checked: true,
    onchange: (e) => {
      if (e.target.checked) chosen.add(kind);
      else chosen.delete(kind);
      refilter();
    },
  }), h("span", null, label))));
  $("feed-user").addEventListener("input", (e) => filterUser(e.target.value.trim()));
  $("feed-pause").addEventListener("click", togglePause);
  show();
}

/** Shows only the events of users whose id begins with prefix. */
export function filterUser(prefix) {
  user = prefix;
  if ($("feed-user").value.trim() !== prefix) $("feed-user").value = prefix;
  refilter();
}

/** Holds the feed still, or lets it go on. */
export function togglePause() {
  held = held ? null : matching;
  waiting = 0;
  attr($("feed-pause"), "aria-pressed", held !== null);
  text($("feed-pause"), held ? "Go on" : "Pause");
  show();
}

/** Takes events in the order in which they happened. */
export function add(events) {
  const known = events.map((e) => ({ ...e, serial: ++serial, at: parse(e.at) ?? now() }));
  recent = [...recent, ...known].slice(-remembered);
  const fresh = known.filter(matches);
  matching = [...matching, ...fresh].slice(-visible);
  if (held) waiting += fresh.length;
  // However fast events come, the page is drawn four times a second.
  timer ||= setTimeout(show, 250);
}

/** Says how the event stream is: "open", "lost" or "off". */
export function setState(next) {
  state = next;
  show();
}

const matches = (e) => e.type === "gap" || chosen.has(e.type) && (user === "" || e.userId?.startsWith(user));

function refilter() {
  matching = recent.filter(matches).slice(-visible);
  if (held) held = matching;
  waiting = 0;
  show();
}

function show() {
  clearTimeout(timer);
  timer = 0;
  const list = (held ?? matching).toReversed();
  reconcile($("feed").tBodies[0], list, {
    key: (e) => e.serial,
    create: (e) => describe(row(columns), e),
  });
  text($("feed-state"), held ? `paused, ${count(waiting)} new` : state === "lost" ? "interrupted, trying again" : "");
  attr($("feed-empty"), "hidden", list.length > 0);
  const filtered = user !== "" || chosen.size < kinds.length;
  text($("feed-empty"), state !== "open" && !list.length ? "Waiting for the node." : filtered && recent.length
    ? "No event that the filter lets through." : "Nothing has happened since the page was opened.");
}

function describe(tr, e) {
  text(tr.of.time, clock(e.at));
  text(tr.of.kind, e.type);
  attr(tr.of.kind, "data-kind", e.type);
  if (e.type === "gap") {
    text(tr.of.what, `Events were missed. ${e.detail ?? ""}`);
    return tr;
  }
  tr.of.what.append(
    h("a", { href: `#user/${encodeURIComponent(e.userId)}` }, e.userId),
    h("span", { class: "now-has" }, `${count(e.streams)} of ${count(e.limit)}`),
    h("span", { class: "second" }, details(e).filter(Boolean).join(" · ")),
  );
  return tr;
}

function details({ type, stream, reason, by, node, limit, shard }) {
  const what = [stream?.device?.name ?? stream?.device?.type, stream?.content?.title, stream?.region];
  const taker = by?.device?.name ? ` by ${by.device.name}` : "";
  switch (type) {
    case "refusal": return [limit === 0 ? "blocked" : `has all ${plural(limit, "stream")}`, node, shard];
    case "stop": return [reason && reason !== "stopped" ? reason + taker : "", ...what, shard];
    case "expiry": return ["went silent", ...what, shard];
    default: return [...what, shard];
  }
}
