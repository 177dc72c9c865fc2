// One user: the streams, the limit, and the actions on them.

import { $, announce, attr, bar, h, lines, reconcile, row, table, text } from "./dom.js";
import { call, find, limitPath, now, streamsPath } from "./api.js";
import { ask } from "./dialogs.js";
import { filterUser } from "./feed.js";
import { changeLimit, describe, removeLimit } from "./limit.js";
import { countdown, minute, moment, parse, plural } from "./format.js";
import { Poll } from "./poll.js";
import { invalidReason } from "./users.js";

const columns = [
  { name: "device", title: "Device, title", head: true, cls: "free" }, { name: "since", title: "Since, region" },
  { name: "left", title: "Expires in", cls: "left" }, { name: "act", hidden: "Stop", cls: "act" },
];
const maxPips = 12;

let id = "";
let parts = null;
let known = {}; // the user's streams and override, as shown
let readOnly = false; // the key may only read: streams have handles instead of ids

const poll = new Poll(2, refresh);

/** Shows a user; "" shows none. */
export function open(user) {
  id = user;
  known = {};
  parts = null;
  const into = $("user");
  if (!user) {
    into.replaceChildren(h("p", { class: "empty" },
      "Choose a user to see their streams, stop one, or change the limit."));
    return;
  }
  const why = invalidReason(user);
  if (why) {
    into.replaceChildren(h("p", { class: "empty" }, why));
    return;
  }
  parts = build();
  into.replaceChildren(...parts.all);
  parts.title.focus({ preventScroll: true });
  into.scrollIntoView({ block: "nearest" });
  poll.now();
}

/** Refreshes the user after events about them. */
export function onEvents(events) {
  if (parts && events.some((e) => e.userId === id || e.type === "gap")) poll.now();
}

function build() {
  const made = table("", columns, "list streams");
  const p = {
    title: h("h3", { tabindex: -1 }, id),
    usage: h("p", { class: "usage" }), pips: h("span", { class: "pips", "aria-hidden": "true" }), used: h("span"),
    source: h("p", { class: "muted small" }), error: h("p", { class: "error", role: "alert" }),
    setLimit: h("button", { type: "button", onclick: setLimit }, "Change limit"),
    table: made.el, body: made.body, empty: h("p", { class: "empty", hidden: true }, "No streams."),
    removeLimit: h("button", { type: "button", hidden: true, onclick: dropLimit }, "Remove override"),
    removeAll: h("button", { type: "button", class: "danger-quiet", hidden: true, onclick: removeAll }, "Stop all"),
  };
  p.usage.append(p.pips, p.used);
  text(made.el.caption, `Streams of ${id}`);
  attr(made.el, "hidden", true);
  p.all = [
    h("div", { class: "user-head" }, p.title, p.usage,
      h("a", { class: "close", href: "#", "aria-label": "Close this user" }, "×")),
    p.source,
    h("div", { class: "actions" },
      p.setLimit, p.removeLimit,
      h("button", { type: "button", onclick: () => filterUser(id) }, "Filter events"), p.removeAll),
    p.error, p.table, p.empty,
  ];
  return p;
}

async function refresh() {
  if (!parts) return;
  const user = id;
  try {
    const [streams, own] = await Promise.all([find(streamsPath(user)), find(limitPath(user))]);
    if (user !== id) return;
    known = { streams, own };
    text(parts.error, "");
    show();
  } catch (problem) {
    if (user === id) text(parts.error, problem.message);
  }
}

function show() {
  const { streams, own } = known;
  const list = streams?.active ?? [];
  showUsage(streams, own);
  if (list.length) readOnly = list.every((v) => !v.id);
  attr(parts.removeLimit, "hidden", !own || readOnly);
  attr(parts.setLimit, "hidden", readOnly);
  attr(parts.removeAll, "hidden", list.length === 0 || readOnly);
  const hadFocus = parts.all.some((el) => el.contains(document.activeElement));
  reconcile(parts.body, list, {
    key: (v) => v.id ?? v.handle,
    create: (v) => {
      const tr = row(columns);
      const device = v.device?.name ?? v.device?.type ?? "an unnamed device";
      if (v.id) {
        tr.of.act.append(h("button", { type: "button", class: "danger-quiet", "aria-label": `Stop ${device}`,
          onclick: () => stop(tr.shown) }, "Stop"));
      } else {
        tr.of.act.append(h("span", { class: "muted small", title: "The stream's handle" }, v.handle));
      }
      return tr;
    },
    update: (tr, v) => {
      tr.shown = v;
      lines(tr.of.device, v.device?.name ?? v.device?.type ?? "Unnamed device", v.content?.title ?? v.content?.id ?? "no title");
      text(tr.of.device.more ??= tr.of.device.appendChild(h("span", { class: "second" })), attributes(v));
      lines(tr.of.since, v.startedAt ? moment(parse(v.startedAt)) : "–", v.region);
    },
  });
  attr(parts.table, "hidden", list.length === 0);
  attr(parts.empty, "hidden", list.length > 0);
  // If the focused row is gone, focus the user.
  if (hadFocus && !$("user").contains(document.activeElement)) parts.title.focus();
  countDown();
}

// What started a stream in place of its player, and its attributes for limits of plans.
function attributes({ via, device, profile, content, labels, priority }) {
  const pairs = { via, type: device?.name && device.type, profile, content: content?.type, labels: content?.labels?.join(", "), ...labels, priority };
  return Object.entries(pairs).filter(([, value]) => (value ?? "") !== "").map(([key, value]) => `${key}: ${value}`).join(" · ");
}

function showUsage(streams, own) {
  const n = streams?.streams ?? 0;
  const limit = streams?.limit ?? own?.limit;
  const counted = streams?.counted ?? n;
  text(parts.used, limit === undefined ? plural(n, "stream")
    : `${n} of ${plural(limit, "stream")}` + (counted === n ? "" : `, counted as ${counted}`));
  attr(parts.used, "data-level", limit !== undefined && counted >= limit ? "warn" : null);
  const pips = limit > maxPips || counted > maxPips ? 0 : Math.max(limit ?? 0, counted);
  parts.pips.replaceChildren(...Array.from({ length: pips }, (_, i) =>
    h("i", { class: i >= (limit ?? pips) ? "over" : i < counted ? "full" : "" })));
  text(parts.source, source(own));
}

function source(own) {
  if (!own) return "No override: the plan of each start applies, or the default.";
  const rule = describe(own);
  return `${rule[0].toUpperCase()}${rule.slice(1)}, set for this user.`;
}

/** Updates the remaining times of the streams. */
export function countDown() {
  if (!parts) return;
  for (const tr of parts.body.rows) {
    const { expiresAt, ttlSeconds } = tr.shown;
    if (!expiresAt) continue;
    const left = Math.max(0, parse(expiresAt) - now());
    text(tr.of.left.time ??= tr.of.left.appendChild(h("span")), left > 0 ? countdown(left) : "due");
    bar(tr.of.left, [{ share: left / (ttlSeconds * 1000), cls: left < ttlSeconds * 333 ? "c3" : "c1" }]);
  }
}

async function stop(stream) {
  const user = id;
  const device = stream.device?.name ?? stream.device?.type ?? "Unnamed device";
  const done = await ask({
    title: "Stop this stream?", action: "Stop stream", danger: true,
    body: [
      h("p", null, h("strong", null, device), stream.content?.title ? ` plays ${stream.content.title}` : "",
        stream.startedAt ? ` since ${minute(parse(stream.startedAt))}` : "", stream.via ? ` via ${stream.via}` : "", ", user ", h("strong", null, user), "."),
      h("p", { class: "muted small" },
        "The slot is free at once. The player is notified at its next heartbeat and may start again."),
    ],
    submit: () => ensureEnded(call("DELETE", streamsPath(user, stream.id))),
  });
  if (done) announce(`The stream on ${device} has been stopped.`);
  poll.now();
}

async function removeAll() {
  const user = id;
  const n = known.streams?.streams ?? 0;
  const done = await ask({
    title: "Stop all streams?", action: "Stop all", danger: true,
    body: [h("p", null, plural(n, "stream"), " of ", h("strong", null, user), ", and any stream that starts in the meantime."),
      h("p", { class: "muted small" }, "The node's audit log records this.")],
    submit: () => ensureEnded(call("DELETE", streamsPath(user))),
  });
  if (done) announce(`All streams of ${user} have been stopped.`);
  poll.now();
}

// Accepts that the stream has already ended, and explains the unknown outcome of a call
// without an answer.
async function ensureEnded(pending) {
  try {
    await pending;
  } catch (problem) {
    if (problem.status === 404 || problem.status === 410) return;
    if (problem.status === 0) {
      throw new Error("The node did not answer, so the stop may or may not have happened. Check the list or try again.");
    }
    throw problem;
  }
}

async function setLimit() {
  const user = id;
  if (await changeLimit(user, known)) announce(`The limit of ${user} has been changed.`);
  poll.now();
}

async function dropLimit() {
  const user = id;
  if (await removeLimit(user, known.own)) announce(`The override of ${user} has been removed.`);
  poll.now();
}
