// How many concurrent streams users have, and how often the limit was reached. These
// figures help to choose a limit, and a price for a higher one.

import { $, attr, bar, h, lines, reconcile, row, table, text } from "./dom.js";
import { count, moment, parse, percent, plural } from "./format.js";

const columns = [
  { name: "streams", title: "Streams", head: true }, { name: "bar", hidden: "Bar", cls: "wide" },
  { name: "users", title: "Users", cls: "n" }, { name: "share", title: "Share", cls: "n" },
  { name: "refused", title: "Refused", cls: "n" },
];

/** Shows the histogram of today. */
export function showConcurrency(data) {
  const into = $("concurrency");
  if (!into.body) {
    const made = table("Users by their maximum of concurrent streams today, and users refused at that limit", columns);
    into.body = made.body;
    into.finding = h("p", { class: "finding" });
    into.named = h("p", { class: "finding", hidden: true });
    into.partial = h("p", { class: "muted small", hidden: true },
      "There were more users than the node can count: later users are missing.");
    into.append(into.finding, into.named, made.el, into.partial, h("p", { class: "muted small" },
      "A row counts the users who had this many concurrent streams or more, and the users who were refused at this limit. " +
      "If many were refused, they may want a plan with one stream more. Refusals are those of this node."));
  }
  text($("concurrency-since"), data.since ? `since ${moment(parse(data.since))}` : "");
  const rows = histogram(data);
  const all = rows[0]?.users ?? 0;
  reconcile(into.body, rows, {
    key: (v) => v.streams,
    create: () => row(columns),
    update: (tr, v) => {
      text(tr.of.streams, v.streams === 0 ? "0" : `${v.streams} or more`);
      bar(tr.of.bar, bars(v, all));
      text(tr.of.users, v.streams === 0 ? "" : count(v.users));
      text(tr.of.share, v.streams === 0 ? "" : percent(v.users, all));
      lines(tr.of.refused, v.refused ? plural(v.refused, "user") : "", v.starts ? plural(v.starts, "start") : "");
    },
  });
  attr(into.partial, "hidden", !data.partial);
  text(into.finding, finding(data, rows, all));
  text(into.named, named(data));
  attr(into.named, "hidden", into.named.textContent === "");
}

// Returns a row for each number of streams up to the largest that a user had or was
// refused at. A limit of 0, which blocks a user, has a row too.
function histogram({ reached, refused: all }) {
  const refused = all.filter((v) => !v.name || v.name === "total"); // other limits do not count every stream
  const most = Math.max(0, ...reached.map((v) => v.streams), ...refused.map((v) => v.limit));
  const least = refused.some((v) => v.limit === 0) ? 0 : 1;
  const out = [];
  for (let n = least; n <= most; n++) {
    const at = refused.filter((v) => v.limit === n);
    const users = reached.find((v) => v.streams === n)?.users ?? 0;
    out.push({ streams: n, users, refused: sum(at, "users"), starts: sum(at, "starts") });
  }
  return out.length && out[0].streams === 0 ? [...out.slice(1), out[0]] : out;
}

const sum = (list, member) => list.reduce((n, v) => n + v[member], 0);

// Describes the refusals by limits of plans that do not count every stream.
function named({ refused }) {
  const list = refused.filter((v) => v.name && v.name !== "total").toSorted((a, b) => b.users - a.users);
  if (!list.length) return "";
  const texts = list.slice(0, 8).map((v) => `${v.name} (${v.limit}): ${plural(v.users, "user")}, ${plural(v.starts, "start")}`);
  return `Refused by other limits of plans: ${texts.join("; ")}${list.length > 8 ? "; and others" : ""}.`;
}

// The users who were refused at this limit had this many streams, except for those who
// reached it before midnight. The rest of the bar is the users who were not refused.
function bars({ users, refused, streams }, all) {
  if (!all) return [];
  const wanted = streams === 0 ? 0 : Math.min(refused, users);
  return [{ share: (users - wanted) / all, cls: "c1" }, { share: wanted / all, cls: "c4" }];
}

function finding({ refused }, rows, all) {
  if (!all) return "No streams today.";
  const people = refused.filter((v) => v.limit > 0 && (!v.name || v.name === "total")).toSorted((a, b) => b.users - a.users);
  if (!people.length) {
    const most = rows.findLast((v) => v.users > 0);
    return `${plural(all, "user")} had streams; the maximum per user was ${most.streams}, and no start was refused${refused.length ? " at a limit of all streams" : ""}.`;
  }
  const { limit, users, starts } = people[0];
  const reached = rows.find((v) => v.streams === limit)?.users ?? 0;
  return `${plural(all, "user")} had streams; ${count(reached)} (${percent(reached, all)}) had ${limit} at once, and ` +
    `${count(users)} ${users === 1 ? "was" : "were"} refused at the limit of ${limit} (${plural(starts, "start")}): ` +
    `a limit of ${limit + 1} would have admitted more of their starts.`;
}
