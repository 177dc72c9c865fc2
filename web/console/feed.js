// The feed of events, newest first. It can be filtered and paused.

import { $, attr, h, reconcile, row, text } from "./dom.js";
import { clock, count, parse, plural } from "./format.js";
import { now } from "./api.js";

const kinds = [["start", "Starts"], ["stop", "Stops"], ["refusal", "Refusals"], ["expiry", "Expiries"]];
const maxRecent = 1000; // events stored for a change of the filter
const visible = 150; // rows
const columns = [{ name: "time", cls: "time" }, { name: "kind", cls: "kind" }, { name: "what", cls: "free" }];

const chosen = new Set(kinds.map(([kind]) => kind));
let user = "";
let recent = []; // oldest first
let matching = []; // recent events that match the filter
let paused = null; // value of matching when the feed was paused; null if it is not paused
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

/** Pauses or resumes the feed. */
export function togglePause() {
  paused = paused ? null : matching;
  waiting = 0;
  attr($("feed-pause"), "aria-pressed", paused !== null);
  text($("feed-pause"), paused ? "Resume" : "Pause");
  show();
}

/** Adds events, which are in the order in which they happened. */
export function add(events) {
  const known = events.map((e) => ({ ...e, serial: ++serial, at: parse(e.at) ?? now() }));
  recent = [...recent, ...known].slice(-maxRecent);
  const fresh = known.filter(matches);
  matching = [...matching, ...fresh].slice(-visible);
  if (paused) waiting += fresh.length;
  // The page is drawn at most four times per second.
  timer ||= setTimeout(show, 250);
}

/** Sets the state of the event stream: "open", "lost" or "off". */
export function setState(next) {
  state = next;
  show();
}

const matches = (e) => e.type === "gap" || chosen.has(e.type) && (user === "" || e.userId?.startsWith(user));

function refilter() {
  matching = recent.filter(matches).slice(-visible);
  if (paused) paused = matching;
  waiting = 0;
  show();
}

function show() {
  clearTimeout(timer);
  timer = 0;
  const list = (paused ?? matching).toReversed();
  reconcile($("feed").tBodies[0], list, {
    key: (e) => e.serial,
    create: (e) => describe(row(columns), e),
  });
  text($("feed-state"), paused ? `paused, ${count(waiting)} new` : state === "lost" ? "disconnected, retrying" : "");
  attr($("feed-empty"), "hidden", list.length > 0);
  const filtered = user !== "" || chosen.size < kinds.length;
  text($("feed-empty"), state !== "open" && !list.length ? "Waiting for the node." : filtered && recent.length
    ? "No event matches the filter." : "No events since the page was opened.");
}

function describe(tr, e) {
  text(tr.of.time, clock(e.at));
  text(tr.of.kind, e.type);
  attr(tr.of.kind, "data-kind", e.type);
  if (e.type === "gap") {
    text(tr.of.what, `Events are missing. ${e.detail ?? ""}`);
    return tr;
  }
  tr.of.what.append(
    h("a", { href: `#user/${encodeURIComponent(e.userId)}` }, e.userId),
    h("span", { class: "now-has" }, `${count(e.streams)} of ${count(e.limit)}`),
    h("span", { class: "second" }, details(e).filter(Boolean).join(" · ")),
  );
  return tr;
}

function details({ type, stream, reason, by, node, limit, limits, shard }) {
  const what = [stream?.device?.name ?? stream?.device?.type, stream?.content?.title, stream?.region, stream?.via && `via ${stream.via}`];
  const names = limits?.length ? `${limits.length > 1 ? "limits" : "limit"} ${limits.join(", ")}` : "";
  const taker = (by?.device?.name ? ` by ${by.device.name}` : "") + (names && ` for ${names}`);
  switch (type) {
    case "refusal": return [names || (limit === 0 ? "blocked" : `at the limit of ${plural(limit, "stream")}`), node, shard];
    case "stop": return [reason && reason !== "stopped" ? reason + taker : "", ...what, shard];
    case "expiry": return ["no heartbeats", ...what, shard];
    default: return [...what, shard];
  }
}
