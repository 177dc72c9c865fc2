// The demo player: a film that plays while its stream lives. It shows what a real
// player does with streamcount.js, and nothing that a real one could not do.

import { Stream } from "/streamcount.js";
import { Film, films } from "/demo/film.js";
import { Screens } from "/demo/screens.js";
import { clock, ending, nameOf, places, played } from "/demo/words.js";

const LOOK_EVERY = 2_000; // at the user's screens
const HEARD_MOST = 60; // lines of what the player heard

const $ = (id) => document.getElementById(id);

/** Storage may be forbidden; then nothing is remembered. */
const memory = {
  get(store, key, otherwise) {
    try { return store().getItem(`streamcount.demo.${key}`) ?? otherwise; } catch { return otherwise; }
  },
  set(store, key, value) {
    try { store().setItem(`streamcount.demo.${key}`, value); } catch { /* as above */ }
  },
};
const thisTab = () => sessionStorage;
const allTabs = () => localStorage;

const film = new Film($("film"));
let showing = films[0];
let stream = null;
let skew = 0; // what the service's clock is ahead of ours, in milliseconds
let active = []; // the user's screens, as far as we know
let limit = null;
let heardAt = null; // when the service last told us of them; null before
let stale = false; // it did not answer when it was asked again

const others = new Screens($("curtain-others"), [
  { label: "Play here instead", about: (name) => `Play here instead of ${name}`,
    act: (other) => play({ replaces: other.id }) },
  { label: "Stop", about: (name) => `Stop ${name}`, act: stopOther },
]);
const screens = new Screens($("screens"), [
  { label: "Stop", about: (name) => `Stop ${name}`, act: stopOther },
]);

function setUp() {
  const asked = new URLSearchParams(location.search);
  $("user").value = asked.get("user") ?? memory.get(allTabs, "user", "maya");
  $("device").value = asked.get("device") ?? memory.get(thisTab, "device", null) ?? nextDevice();
  remember();
  for (const f of films) $("films").append(new Option(f.title, f.id));
  choose(memory.get(thisTab, "film", films[Math.floor(Math.random() * films.length)].id));
  use($("user").value);
  $("stop").addEventListener("click", stop);
  $("curtain-main").addEventListener("click", () => play());
  $("curtain-oldest").addEventListener("click", () => play({ onLimit: "replace-oldest" }));
  $("films").addEventListener("change", changeFilm);
  $("settings").addEventListener("submit", (event) => event.preventDefault());
  $("settings").addEventListener("change", changeSettings);
  document.addEventListener("visibilitychange", look);
  setInterval(look, LOOK_EVERY);
  setInterval(tick, 250);
  // Whoever reloads a page that plays wants it to play.
  if (memory.get(thisTab, "playing", "") === "yes") play();
  else look();
}

/** Each tab of a browser begins as another device, so that they can be told apart. */
function nextDevice() {
  const names = ["Living room TV", "Laptop", "Phone", "Tablet", "Bedroom TV", "Kitchen screen"];
  const n = Number(memory.get(allTabs, "screens", "0")) || 0;
  memory.set(allTabs, "screens", String(n + 1));
  return names[n % names.length];
}

function remember() {
  memory.set(allTabs, "user", $("user").value);
  memory.set(thisTab, "device", $("device").value);
}

/** Makes a Stream for a user, and listens to it. */
function use(user) {
  stream = new Stream({ user, token: ({ refused }) => (refused ? "" : $("token").value) });
  const mine = stream;
  const on = (type, act) => stream.addEventListener(type, ({ detail }) => {
    note(type, detail);
    if (mine === stream) act?.(detail);
  });
  on("change", render);
  on("started", (d) => {
    limit = d.limit;
    render();
    look();
  });
  on("refused", (d) => {
    know(d);
    render();
  });
  for (const type of ["waiting", "degraded", "recovered", "lost", "problem", "ended"]) on(type, render);
}

function onAir() {
  return stream.mayPlay || stream.state === "starting";
}

async function play(wish = {}) {
  if (!$("settings").reportValidity()) return;
  memory.set(thisTab, "playing", "yes");
  await stream.start({ ...wish, device: { name: $("device").value, type: "browser" },
    content: { id: showing.id, title: showing.title } });
  look();
}

async function stop() {
  memory.set(thisTab, "playing", "");
  await stream.stop();
  look();
}

async function stopOther(other, button) {
  button.disabled = true;
  if (!(await stream.stopOther(other.id))) button.disabled = false;
  look();
}

function choose(id) {
  showing = films.find((f) => f.id === id) ?? films[0];
  $("films").value = showing.id;
  memory.set(thisTab, "film", showing.id);
  film.show(showing);
}

/** Another film, or another name, is another start: it takes over the slot of the one before. */
function changeFilm() {
  choose($("films").value);
  if (onAir()) play();
}

async function changeSettings(event) {
  if (!$("settings").reportValidity()) return;
  remember();
  if (event.target === $("device")) {
    if (onAir()) play();
    return;
  }
  const before = stream, resume = onAir();
  active = [];
  limit = heardAt = null;
  use($("user").value);
  render();
  await before.close();
  if (resume) play();
  else look();
}

/** Asks which screens the user has. */
async function look() {
  if (document.hidden) return;
  const asked = stream;
  const seen = await asked.list();
  if (asked !== stream) return;
  stale = !seen;
  if (seen) know(seen);
  keepingFocus(drawScreens);
}

function know(seen) {
  active = seen.active;
  limit = seen.limit ?? limit;
  heardAt = new Date();
  if (seen.at > 0) skew = seen.at + 500 - Date.now(); // the header has whole seconds
}

function render() {
  keepingFocus(draw);
}

function draw() {
  const state = stream.state;
  $("stage").dataset.state = stream.degraded ? "degraded" : state;
  film.run(stream.mayPlay);
  $("film").setAttribute("aria-label", `${showing.title}, ${stream.mayPlay ? "playing" : "not playing"}`);
  $("stop").hidden = !onAir();
  $("curtain").hidden = onAir();
  const [title, text] = curtain();
  setText("curtain-title", title);
  setText("curtain-text", text);
  setText("curtain-main", state === "ended" ? "Play here again" : "Play");
  setText("chip", chip());
  $("chip").hidden = $("chip").textContent === "";
  $("status").classList.toggle("unseen", !onAir()); // the curtain says it
  drawScreens();
}

/** Whoever pressed a button that is gone now is next to what took its place. */
function keepingFocus(change) {
  const focused = document.activeElement;
  change();
  if (focused === document.body || focused.checkVisibility()) return;
  if (onAir()) $("stop").focus();
  else $("curtain-title").focus();
}

/** What is said where the film would be. */
function curtain() {
  switch (stream.state) {
    case "refused": {
      const n = stream.refusal.limit;
      if (active.length < n) return ["A place is free now", "Press play to take it."];
      if (n === 0) return ["Nothing may be played", `${$("user").value} has no places at all.`];
      const wait = stream.refusal.evictAfterSeconds;
      return [n === 1 ? "The only place is in use" : `All ${n} places are in use`,
        wait ? `This screen was itself replaced a moment ago, and may take over again in ${wait} s.` :
          "These screens are playing. Choose which one should give way."];
    }
    case "ended":
      return ending(stream.ending.reason, stream.ending.by);
    default:
      return ["Ready when you are", "Playing takes one of the places that you have."];
  }
}

function chip() {
  if (stream.degraded) return `Not heard since ${clock(stream.degraded)}. Playing on, and trying again`;
  if (stream.state === "waiting") return "No answer to the start. Playing on, and trying again";
  if (stream.state === "failed") return "The service does not take this request. See what the player heard";
  return "";
}

function status() {
  switch (stream.state) {
    case "starting": return "Asking for a place.";
    case "playing":
      if (stream.degraded) return "The service is not answering. The film plays on.";
      return `Playing ${showing.title} as “${$("device").value}”.`;
    case "waiting": return "The service did not answer. The film plays on.";
    case "failed": return "The service refuses the request as it is; that is no limit, so the film plays on.";
    case "refused":
    case "ended": return `${$("curtain-title").textContent}. ${$("curtain-text").textContent}`;
    default: return "Nothing is playing here.";
  }
}

function drawScreens() {
  const now = Date.now() + skew, mine = stream.info?.id;
  screens.show(active, mine, stale && heardAt ? heardAt.getTime() + skew : now);
  setText("count", active.length > 0 || limit !== null ? places(active.length, limit) : "");
  $("nobody").hidden = active.length > 0 || stale;
  $("stale").hidden = !stale;
  setText("stale", heardAt ? `The service is not answering. This was so at ${clock(heardAt)}.` :
    "The service does not say.");
  const full = stream.state === "refused" && active.length >= stream.refusal.limit;
  others.show(full ? active : [], mine, now);
  $("curtain-others").hidden = !full || active.length === 0;
  $("curtain-oldest").hidden = !full || active.length === 0;
  $("curtain-main").hidden = full;
  if (stream.state === "refused") {
    const [title, text] = curtain();
    setText("curtain-title", title);
    setText("curtain-text", text);
  }
  setText("status", status());
}

function tick() {
  setText("clock", played(film.played));
  keepingFocus(drawScreens);
}

/** Text that is the same is left alone, so that screen readers do not read it again. */
function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function note(type, detail) {
  const words = [clock(new Date()), type];
  if (type === "change") words.push(detail.state);
  if (detail.reason) words.push(detail.reason);
  if (detail.by?.device?.name) words.push(`by ${nameOf(detail.by)}`);
  if (detail.why ?? detail.title) words.push(`(${detail.why ?? detail.title})`);
  const line = document.createElement("li");
  line.textContent = words.join(" ");
  $("log").prepend(line);
  while ($("log").children.length > HEARD_MOST) $("log").lastChild.remove();
}

setUp();
render();
