// The console. It polls the statistics every two seconds, follows the events, and shows
// the age of its figures.

import { $, attr, text } from "./dom.js";
import { call, hasKey, onKeyNeeded, storeKey } from "./api.js";
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

const staleAfter = 6500; // ms; a little more than three polls

let updatedAt = 0; // of the statistics
let visibleSince = Date.now();
let lastError = ""; // of the last poll

const stats = new Poll(2, async () => {
  try {
    const answer = await call("GET", "/api/v1/stats");
    if (lastError || Date.now() - updatedAt > staleAfter) stream.retry();
    updatedAt = Date.now();
    lastError = "";
    overview.showStats(answer);
    showService(answer);
    text($("who"), [answer.node.id, answer.node.region, answer.node.version].filter(Boolean).join(" · "));
  } catch (problem) {
    lastError = problem.message;
  }
  attr($("remove-key"), "hidden", !hasKey());
  showState();
});

const history = new Poll(10, () => call("GET", "/api/v1/stats/history").then(overview.showHistory, () => {}));
const concurrency = new Poll(10, () => call("GET", "/api/v1/stats/concurrency").then(showConcurrency, () => {}));

const stream = new EventStream({
  onState: feed.setState,
  onEvents: (events) => {
    feed.add(events);
    user.onEvents(events);
    if (events.some((e) => e.type === "gap")) pollAll();
  },
});

// The header shows the age of the figures and changes every second. Screen readers read
// the banner out, so its text changes only with the state.
function showState() {
  const age = Date.now() - updatedAt;
  const waited = Date.now() - Math.max(updatedAt, visibleSince);
  const old = lastError !== "" && updatedAt === 0 || waited > staleAfter || lastError !== "" && age > staleAfter;
  const state = old ? "stale" : updatedAt ? "live" : "wait";
  attr($("state"), "data-state", state);
  const words = { live: `Live, ${span(age)} old`, wait: "Connecting", stale: updatedAt ? `Stale, ${span(age)} old` : "No data" };
  text($("state-text"), words[state]);
  attr(document.body, "data-stale", old);
  const since = updatedAt ? `The figures are from ${clock(updatedAt)}.` : "There are no figures yet.";
  text($("banner"), old ? `${lastError || "The node does not answer."} ${since} Retrying.` : "");
  attr($("banner"), "class", old ? "banner shown" : "banner");
}

function route() {
  const [, id] = /^#user\/(.+)$/.exec(location.hash) ?? [];
  let name = "";
  try { name = id ? decodeURIComponent(id) : ""; } catch { /* an invalid link opens no user */ }
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

// A browser opens at most six connections to a node, for all tabs together. So a hidden
// page closes its event stream.
function onVisibilityChange() {
  if (document.hidden) {
    stream.stop();
    return;
  }
  visibleSince = Date.now();
  stream.start();
}

onKeyNeeded(askKey);
overview.build();
feed.build();
users.build();
route();
addEventListener("hashchange", route);
addEventListener("keydown", shortcuts);
document.addEventListener("visibilitychange", onVisibilityChange);
$("remove-key").addEventListener("click", () => {
  storeKey("");
  location.reload(); // removes the figures from the page
});
setInterval(() => {
  showState();
  user.countDown();
}, 1000);
stats.now();
history.now();
concurrency.now();
onVisibilityChange();
