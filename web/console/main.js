// The console: it asks for the statistics every two seconds, follows the events,
// and says how old what it shows is.

import { $, attr, text } from "./dom.js";
import { call, hasKey, keep, onKeyNeeded } from "./api.js";
import { askKey } from "./dialogs.js";
import { clock, span } from "./format.js";
import { Poll, pollAll } from "./poll.js";
import { EventStream } from "./stream.js";
import { showConcurrency } from "./concurrency.js";
import { showService } from "./service.js";
import * as feed from "./feed.js";
import * as overview from "./overview.js";
import * as user from "./user.js";
import * as users from "./users.js";

const stale = 6500; // three polls and a bit

let last = 0; // when statistics came
let looking = Date.now(); // since when the page can be seen
let trouble = ""; // what the last answer said was wrong

const stats = new Poll(2, async () => {
  try {
    const answer = await call("GET", "/api/v1/stats");
    if (trouble || Date.now() - last > stale) stream.retry();
    last = Date.now();
    trouble = "";
    overview.showStats(answer);
    showService(answer);
    text($("who"), [answer.node.id, answer.node.region, answer.node.version].filter(Boolean).join(" · "));
  } catch (problem) {
    trouble = problem.message;
  }
  attr($("forget"), "hidden", !hasKey());
  showState();
});

const history = new Poll(10, () => call("GET", "/api/v1/stats/history").then(overview.showHistory, () => {}));
const concurrency = new Poll(10, () => call("GET", "/api/v1/stats/concurrency").then(showConcurrency, () => {}));

const stream = new EventStream({
  onState: feed.setState,
  onEvents: (events) => {
    feed.add(events);
    user.happened(events);
    if (events.some((e) => e.type === "gap")) pollAll();
  },
});

// The header says how old the figures are, each second; the banner is spoken, so
// its words change only when there is something new to say.
function showState() {
  const age = Date.now() - last;
  const waited = Date.now() - Math.max(last, looking);
  const old = trouble !== "" && last === 0 || waited > stale || trouble !== "" && age > stale;
  const state = old ? "stale" : last ? "live" : "wait";
  attr($("state"), "data-state", state);
  const words = { live: `Live, ${span(age)} old`, wait: "Connecting", stale: last ? `Stale, ${span(age)} old` : "No data" };
  text($("state-text"), words[state]);
  attr(document.body, "data-stale", old);
  const since = last ? `The figures are from ${clock(last)}.` : "There are no figures yet.";
  text($("banner"), old ? `${trouble || "The node does not answer."} ${since} Trying again.` : "");
  attr($("banner"), "class", old ? "banner shown" : "banner");
}

function route() {
  const [, id] = /^#user\/(.+)$/.exec(location.hash) ?? [];
  let name = "";
  try { name = id ? decodeURIComponent(id) : ""; } catch { /* a mangled link leads to nobody */ }
  users.mark(name);
  user.open(name);
  document.title = name ? `${name} · streamcount` : "streamcount";
}

function shortcuts(e) {
  const typing = e.target.closest("input, select, textarea, dialog");
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
  if (e.key === "Escape" && !typing && location.hash.startsWith("#user/")) {
    location.hash = "";
    $("find").focus();
  }
  if (typing) return;
  if (e.key === "/") {
    e.preventDefault();
    $("find").focus();
    $("find").select();
  }
  if (e.key === "p") feed.togglePause();
}

// A browser has six connections to a node at most, for all tabs together: those
// that nobody sees give theirs back.
function seen() {
  if (document.hidden) {
    stream.stop();
    return;
  }
  looking = Date.now();
  stream.start();
}

onKeyNeeded(askKey);
overview.build();
feed.build();
users.build();
route();
addEventListener("hashchange", route);
addEventListener("keydown", shortcuts);
document.addEventListener("visibilitychange", seen);
$("forget").addEventListener("click", () => {
  keep("");
  location.reload(); // so that nothing it was shown stays on the page
});
setInterval(() => {
  showState();
  user.countDown();
}, 1000);
stats.now();
history.now();
concurrency.now();
seen();
