// How many streams users have at once, and how often a limit was in the way: what
// one has to know to choose a limit, and a price for a higher one.

import { $, attr, bar, h, lines, reconcile, row, table, text } from "./dom.js";
import { count, moment, parse, percent, plural } from "./format.js";

const columns = [
  { name: "streams", title: "At once", head: true }, { name: "bar", hidden: "Bar", cls: "wide" },
  { name: "users", title: "Users", cls: "n" }, { name: "share", title: "Share", cls: "n" },
  { name: "refused", title: "Refused", cls: "n" },
];

/** Shows today's histogram. */
export function showConcurrency(data) {
  const into = $("concurrency");
  if (!into.body) {
    const made = table("Users by how many streams they had at once today, and those refused at that limit", columns);
    into.body = made.body;
    into.said = h("p", { class: "finding" });
    into.partial = h("p", { class: "muted small", hidden: true },
      "There were more users than the node remembers: those who came later are left out.");
    into.append(into.said, made.el, into.partial, h("p", { class: "muted small" },
      "A row counts the users who had so many streams or more. Those refused at a limit are who would notice a " +
      "higher one: few of them, and the limit costs little goodwill; many, and a plan with one stream more has " +
      "buyers. Refusals are those of the node that answers."));
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
  text(into.said, finding(data, rows, all));
}

// A row for each number of streams up to the largest that anybody had or was
// refused at; a limit of 0 blocks, and has one too.
function histogram({ reached, refused }) {
  const most = Math.max(0, ...reached.map((v) => v.streams), ...refused.map((v) => v.limit));
  const least = refused.some((v) => v.limit === 0) ? 0 : 1;
  const out = [];
  for (let n = least; n <= most; n++) {
    const at = refused.find((v) => v.limit === n);
    const users = reached.find((v) => v.streams === n)?.users ?? 0;
    out.push({ streams: n, users, refused: at?.users ?? 0, starts: at?.starts ?? 0 });
  }
  return out.length && out[0].streams === 0 ? [...out.slice(1), out[0]] : out;
}

// Who was refused here had so many streams, unless that was yesterday: the rest of
// the bar is who was content.
function bars({ users, refused, streams }, all) {
  if (!all) return [];
  const wanted = streams === 0 ? 0 : Math.min(refused, users);
  return [{ share: (users - wanted) / all, cls: "c1" }, { share: wanted / all, cls: "c4" }];
}

function finding({ refused }, rows, all) {
  if (!all) return "Nobody has watched yet today.";
  const people = refused.filter((v) => v.limit > 0).toSorted((a, b) => b.users - a.users);
  if (!people.length) {
    const most = rows.findLast((v) => v.users > 0);
    return `${plural(all, "user")} watched; the most anybody had at once was ${most.streams}, and nobody was refused.`;
  }
  const { limit, users, starts } = people[0];
  const reached = rows.find((v) => v.streams === limit)?.users ?? 0;
  return `${plural(all, "user")} watched; ${count(reached)} (${percent(reached, all)}) had ${limit} at once, and ` +
    `${count(users)} ${users === 1 ? "was" : "were"} refused at the limit of ${limit} (${plural(starts, "start")}): ` +
    `a limit of ${limit + 1} would matter to them.`;
}
