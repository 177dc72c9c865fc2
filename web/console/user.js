// One user: the streams, the limit, and what can be done about them.

import { $, attr, bar, h, lines, reconcile, row, say, table, text } from "./dom.js";
import { call, find, limitPath, now, streamsPath } from "./api.js";
import { ask } from "./dialogs.js";
import { filterUser } from "./feed.js";
import { changeLimit, removeLimit } from "./limit.js";
import { countdown, minute, moment, parse, plural } from "./format.js";
import { Poll } from "./poll.js";
import { whyNot } from "./users.js";

const columns = [
  { name: "device", title: "Device, title", head: true, cls: "free" }, { name: "since", title: "Since, region" },
  { name: "left", title: "Expires in", cls: "left" }, { name: "act", hidden: "Stop", cls: "act" },
];
const mostPips = 12;

let id = "";
let parts = null;
let known = {}; // what is shown: the user's streams, and what they have of their own

const poll = new Poll(2, refresh);

/** Shows a user; "" shows none. */
export function open(user) {
  id = user;
  known = {};
  parts = null;
  const into = $("user");
  if (!user) {
    into.replaceChildren(h("p", { class: "empty" },
      "Choose a user, to see the streams and to stop one, or to change the limit."));
    return;
  }
  const why = whyNot(user);
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

/** Looks at the user again where events are about them. */
export function happened(events) {
  if (parts && events.some((e) => e.userId === id || e.type === "gap")) poll.now();
}

function build() {
  const made = table("", columns, "list streams");
  const p = {
    title: h("h3", { tabindex: -1 }, id),
    usage: h("p", { class: "usage" }), pips: h("span", { class: "pips", "aria-hidden": "true" }), used: h("span"),
    source: h("p", { class: "muted small" }), error: h("p", { class: "error", role: "alert" }),
    table: made.el, body: made.body, empty: h("p", { class: "empty", hidden: true }, "No streams at the moment."),
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
      h("button", { type: "button", onclick: setLimit }, "Change limit"), p.removeLimit,
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
  attr(parts.removeLimit, "hidden", !own);
  attr(parts.removeAll, "hidden", list.length === 0);
  const hadFocus = parts.all.some((el) => el.contains(document.activeElement));
  reconcile(parts.body, list, {
    key: (v) => v.id,
    create: (v) => {
      const tr = row(columns);
      const device = v.device?.name ?? v.device?.type ?? "a device without a name";
      tr.of.act.append(h("button", { type: "button", class: "danger-quiet", "aria-label": `Stop ${device}`,
        onclick: () => stop(tr.shown) }, "Stop"));
      return tr;
    },
    update: (tr, v) => {
      tr.shown = v;
      lines(tr.of.device, v.device?.name ?? v.device?.type ?? "Unnamed device", v.content?.title ?? v.content?.id ?? "no title");
      lines(tr.of.since, v.startedAt ? moment(parse(v.startedAt)) : "–", v.region);
    },
  });
  attr(parts.table, "hidden", list.length === 0);
  attr(parts.empty, "hidden", list.length > 0);
  // The row whose button had the focus may be gone: the next thing to read is the user.
  if (hadFocus && !$("user").contains(document.activeElement)) parts.title.focus();
  countDown();
}

function showUsage(streams, own) {
  const n = streams?.streams ?? 0;
  const limit = streams?.limit ?? own?.limit;
  const counted = streams?.counted ?? n;
  text(parts.used, limit === undefined ? plural(n, "stream")
    : `${n} of ${plural(limit, "stream")}` + (counted === n ? "" : `, counted as ${counted}`));
  attr(parts.used, "data-level", limit !== undefined && counted >= limit ? "warn" : null);
  const pips = limit > mostPips || counted > mostPips ? 0 : Math.max(limit ?? 0, counted);
  parts.pips.replaceChildren(...Array.from({ length: pips }, (_, i) =>
    h("i", { class: i >= (limit ?? pips) ? "over" : i < counted ? "full" : "" })));
  text(parts.source, source(own));
}

function source(own) {
  if (!own) return "Nothing of its own: the limit is that of the start's plan, or the default.";
  return own.plan ? `The plan ${own.plan}, set for this user.` : `A limit of ${own.limit}, set for this user.`;
}

/** Brings the seconds up to date that streams have left. */
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
        stream.startedAt ? ` since ${minute(parse(stream.startedAt))}` : "", ", user ", h("strong", null, user), "."),
      h("p", { class: "muted small" },
        "Its slot is free at once. The player hears of it by its next heartbeat, and may start again."),
    ],
    submit: () => gone(call("DELETE", streamsPath(user, stream.id))),
  });
  if (done) say(`The stream on ${device} is stopped.`);
  poll.now();
}

async function removeAll() {
  const user = id;
  const n = known.streams?.streams ?? 0;
  const done = await ask({
    title: "Stop all streams?", action: "Stop all", danger: true,
    body: [h("p", null, plural(n, "stream"), " of ", h("strong", null, user), ", and any that starts meanwhile."),
      h("p", { class: "muted small" }, "The node's log notes who did it.")],
    submit: () => gone(call("DELETE", streamsPath(user))),
  });
  if (done) say(`All streams of ${user} are stopped.`);
  poll.now();
}

// What has ended meanwhile is what was asked for; and a call that was not answered
// may have been done.
async function gone(doing) {
  try {
    await doing;
  } catch (problem) {
    if (problem.status === 404 || problem.status === 410) return;
    if (problem.status === 0) {
      throw new Error("The node did not answer: it may be done, or not. Look at the list, or try again.");
    }
    throw problem;
  }
}

async function setLimit() {
  const user = id;
  if (await changeLimit(user, known)) say(`The limit of ${user} is changed.`);
  poll.now();
}

async function dropLimit() {
  const user = id;
  if (await removeLimit(user, known.own)) say(`${user} has nothing of its own any more.`);
  poll.now();
}
