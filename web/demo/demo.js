// The demo player: a film that plays while its stream has a slot. It uses streamcount.js as
// any player can.

import { Stream, covers } from "/streamcount.js";
import { Film, films } from "/demo/film.js";
import { Screens } from "/demo/screens.js";
import { blocksText, clock, endingText, nameOf, placesText, playingTime, refusalText } from "/demo/texts.js";

const REFRESH_INTERVAL = 2_000; // of the user's screens
const MAX_LOG_LINES = 60;

const $ = (id) => document.getElementById(id);

/** The storage of the browser. It may be blocked; then nothing is stored. */
const storage = {
  get(store, key, otherwise) {
    try { return store().getItem(`streamcount.demo.${key}`) ?? otherwise; } catch { return otherwise; }
  },
  set(store, key, value) {
    try { store().setItem(`streamcount.demo.${key}`, value); } catch { /* storage is blocked */ }
  },
};
const thisTab = () => sessionStorage;
const allTabs = () => localStorage;

const film = new Film($("film"));
let currentFilm = films[0];
let stream = null;
let skew = 0; // of the service's clock relative to this one, in milliseconds
let active = []; // the user's screens, as the service last listed them
let limit = null;
let updatedAt = null; // of active; null before the first answer
let stale = false; // the last list was not answered
let paused = false; // by the viewer
let pauseAfter = 20; // minutes

const others = new Screens($("overlay-others"), [
  { label: "Play here instead", describe: (name) => `Play here instead of ${name}`,
    act: (other) => play({ replaces: other.id }), when: isEnough },
  { label: "Stop", describe: (name) => `Stop ${name}`, act: stopOther, when: isEnough },
], { note: (other) => (refusingLimits().length ? blocksText(blocksOf(other)) : ""),
  selectable: (other) => mayCombine() && blocksOf(other).length > 0, onSelect: drawScreens });
const screens = new Screens($("screens"), [
  { label: "Stop", describe: (name) => `Stop ${name}`, act: stopOther },
]);

function setUp() {
  const query = new URLSearchParams(location.search);
  $("user").value = query.get("user") ?? storage.get(allTabs, "user", "maya");
  $("type").value = query.get("type") ?? storage.get(thisTab, "type", "browser");
  $("profile").value = query.get("profile") ?? storage.get(thisTab, "profile", "");
  $("device").value = query.get("device") ?? storage.get(thisTab, "device", null) ?? nextDevice();
  if (query.get("pauseAfter") > 0) pauseAfter = Number(query.get("pauseAfter"));
  saveSettings();
  for (const f of films) $("films").append(new Option(f.title, f.id));
  selectFilm(storage.get(thisTab, "film", films[Math.floor(Math.random() * films.length)].id));
  openStream($("user").value);
  $("stop").addEventListener("click", stop);
  $("pause").addEventListener("click", pauseOrResume);
  $("overlay-main").addEventListener("click", () => play());
  $("overlay-selected").addEventListener("click", () => play({ replaces: others.selected }));
  $("overlay-oldest").addEventListener("click", () => play({ onLimit: "replace-oldest" }));
  $("films").addEventListener("change", changeFilm);
  $("settings").addEventListener("submit", (event) => event.preventDefault());
  $("settings").addEventListener("change", changeSettings);
  document.addEventListener("visibilitychange", refreshScreens);
  setInterval(refreshScreens, REFRESH_INTERVAL);
  setInterval(tick, 250);
  // A reloaded page continues to play.
  if (storage.get(thisTab, "playing", "") === "yes") play();
  else refreshScreens();
}

/** Each tab of a browser begins with another device name. */
function nextDevice() {
  const names = ["Living room TV", "Laptop", "Phone", "Tablet", "Bedroom TV", "Kitchen screen"];
  const n = Number(storage.get(allTabs, "screens", "0")) || 0;
  storage.set(allTabs, "screens", String(n + 1));
  return names[n % names.length];
}

function saveSettings() {
  storage.set(allTabs, "user", $("user").value);
  for (const name of ["device", "type", "profile"]) storage.set(thisTab, name, $(name).value);
}

/** Creates a Stream for a user and listens to its events. */
function openStream(user) {
  stream = new Stream({ user, pauseAfter, token: ({ refused }) => (refused ? "" : $("token").value) });
  const current = stream;
  const on = (type, act) => stream.addEventListener(type, ({ detail }) => {
    appendLog(type, detail);
    if (current === stream) act?.(detail);
  });
  on("change", render);
  on("started", (d) => {
    limit = d.limit;
    render();
    refreshScreens();
  });
  on("refused", (d) => {
    setScreens(d);
    render();
  });
  for (const type of ["waiting", "degraded", "recovered", "lost", "problem", "ended"]) on(type, render);
}

function isActive() {
  return stream.mayPlay || ["starting", "paused"].includes(stream.state);
}

/** A paused film keeps its place for pauseAfter minutes. After that, a resume starts the stream again. */
function pauseOrResume() {
  paused = !paused;
  if (paused) stream.pause();
  else stream.resume();
  render();
}

async function play(options = {}) {
  if (!$("settings").reportValidity()) return;
  storage.set(thisTab, "playing", "yes");
  paused = false;
  await stream.start({ ...options, device: { name: $("device").value, type: $("type").value },
    profile: $("profile").value || undefined, content: { id: currentFilm.id, title: currentFilm.title } });
  refreshScreens();
}

async function stop() {
  storage.set(thisTab, "playing", "");
  await stream.stop();
  refreshScreens();
}

async function stopOther(other, button) {
  button.disabled = true;
  if (!(await stream.stopOther(other.id))) button.disabled = false;
  refreshScreens();
}

function selectFilm(id) {
  currentFilm = films.find((f) => f.id === id) ?? films[0];
  $("films").value = currentFilm.id;
  storage.set(thisTab, "film", currentFilm.id);
  film.show(currentFilm);
}

/** Another film or device name is a new start, which takes over the slot of the session. */
function changeFilm() {
  selectFilm($("films").value);
  if (isActive()) play();
}

async function changeSettings(event) {
  if (!$("settings").reportValidity()) return;
  saveSettings();
  if ([$("device"), $("type"), $("profile")].includes(event.target)) {
    if (isActive()) play();
    return;
  }
  const before = stream, resume = isActive();
  active = [];
  limit = updatedAt = null;
  openStream($("user").value);
  render();
  await before.close();
  if (resume) play();
  else refreshScreens();
}

/** Updates the list of the user's screens. */
async function refreshScreens() {
  if (document.hidden) return;
  const current = stream;
  const list = await current.list();
  if (current !== stream) return;
  stale = !list;
  if (list) setScreens(list);
  keepFocus(drawScreens);
}

function setScreens(list) {
  active = list.active;
  limit = list.limit ?? limit;
  updatedAt = new Date();
  if (list.at > 0) skew = list.at + 500 - Date.now(); // the header has whole seconds
}

function render() {
  keepFocus(draw);
}

function draw() {
  const state = stream.state;
  $("stage").dataset.state = stream.degraded ? "degraded" : state;
  const runs = stream.mayPlay && !paused;
  film.run(runs);
  $("film").setAttribute("aria-label", `${currentFilm.title}, ${runs ? "playing" : "not playing"}`);
  $("stop").hidden = $("pause").hidden = !isActive();
  setText("pause", paused ? "Resume" : "Pause");
  $("overlay").hidden = isActive();
  const [title, text] = overlay();
  setText("overlay-title", title);
  setText("overlay-text", text);
  setText("overlay-main", state === "ended" ? "Play here again" : "Play");
  setText("chip", chip());
  $("chip").hidden = $("chip").textContent === "";
  $("status").classList.toggle("unseen", !isActive()); // the overlay shows the status
  drawScreens();
}

/** If the change removes the focused button, focuses the button that replaces it. */
function keepFocus(change) {
  const focused = document.activeElement;
  change();
  if (focused === document.body || focused.checkVisibility()) return;
  if (isActive()) $("stop").focus();
  else $("overlay-title").focus();
}

/** Returns the limits that refused the start, of a plan with several. */
function refusingLimits() { return stream.refusal?.limits ?? []; }

/** Returns a stream as the refusal described it. The list of the user's screens does not say what blocks a start. */
function asRefused(other) { return stream.refusal?.active.find(({ id }) => id === other.id); }

function blocksOf(other) { return asRefused(other)?.blocks ?? []; }

/** Returns whether the end of one screen is enough for a start here. */
function isEnough(other) { return refusingLimits().length === 0 || Boolean(asRefused(other)?.enough); }

/** Returns whether several screens have to end, and may. */
function mayCombine() {
  return refusingLimits().length > 0 && !stream.refusal.active.some(({ enough }) => enough) &&
    refusingLimits().every(({ limit }) => limit > 0);
}

/** Returns whether the reason for the refusal still exists. */
function isFull() {
  if (stream.state !== "refused") return false;
  if (refusingLimits().length === 0) return active.length >= stream.refusal.limit;
  const gone = stream.refusal.active.filter(({ id }) => !active.some((other) => other.id === id));
  return !covers(stream.refusal, gone.map(({ id }) => id));
}

/** Returns the title and the text that are shown instead of the film. */
function overlay() {
  switch (stream.state) {
    case "refused": {
      const n = stream.refusal.limit;
      if (!isFull()) return ["A place is free now", "Press play to use it."];
      if (refusingLimits().length) return refusalText(stream.refusal, mayCombine());
      if (n === 0) return ["Nothing may be played", `The limit of ${$("user").value} is 0.`];
      const wait = stream.refusal.evictAfterSeconds;
      return [n === 1 ? "The only place is in use" : `All ${n} places are in use`,
        wait ? `This screen was replaced a moment ago and can replace another one in ${wait} s.` :
          "These screens are playing. Choose one to stop."];
    }
    case "ended":
      return endingText(stream.ending.reason, stream.ending.by);
    default:
      return ["Ready when you are", "Playing uses one of your places."];
  }
}

function chip() {
  if (stream.state === "paused") return "Paused. The place is free for another screen until you resume";
  if (stream.degraded) return `No answer since ${clock(stream.degraded)}. Playing on and retrying`;
  if (stream.state === "waiting") return "No answer to the start. Playing on and retrying";
  if (stream.state === "failed") return "The service rejects this request. See the event log";
  return "";
}

function status() {
  switch (stream.state) {
    case "starting": return "Starting.";
    case "paused": return "Paused for a long time. The place was released.";
    case "playing":
      if (stream.degraded) return "The service is not answering. The film plays on.";
      if (paused) return `Paused. The place is kept for ${pauseAfter} minutes.`;
      return `Playing ${currentFilm.title} as “${$("device").value}”.`;
    case "waiting": return "The service did not answer. The film plays on.";
    case "failed": return "The service rejects the request. This is not the limit, so the film plays on.";
    case "refused":
    case "ended": return `${$("overlay-title").textContent}. ${$("overlay-text").textContent}`;
    default: return "Nothing is playing here.";
  }
}

function drawScreens() {
  const now = Date.now() + skew, mine = stream.info?.id;
  screens.show(active, mine, stale && updatedAt ? updatedAt.getTime() + skew : now);
  setText("count", active.length > 0 || limit !== null ? placesText(active.length, limit) : "");
  $("nobody").hidden = active.length > 0 || stale;
  $("stale").hidden = !stale;
  setText("stale", updatedAt ? `The service is not answering. This is the list of ${clock(updatedAt)}.` :
    "The service is not answering.");
  const full = isFull();
  others.show(full ? active : [], mine, now);
  $("overlay-others").hidden = !full || active.length === 0;
  $("overlay-oldest").hidden = !full || active.length === 0 || refusingLimits().length > 0;
  $("overlay-selected").hidden = !full || !mayCombine();
  $("overlay-selected").disabled = !full || !covers(stream.refusal, others.selected);
  $("overlay-main").hidden = full;
  if (stream.state === "refused") {
    const [title, text] = overlay();
    setText("overlay-title", title);
    setText("overlay-text", text);
  }
  setText("status", status());
}

function tick() {
  setText("clock", playingTime(film.played));
  keepFocus(drawScreens);
}

/** Sets a text if it differs, so that screen readers do not read it again. */
function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function appendLog(type, detail) {
  const words = [clock(new Date()), type];
  if (type === "change") words.push(detail.state);
  if (detail.reason) words.push(detail.reason);
  if (detail.by?.device?.name) words.push(`by ${nameOf(detail.by)}`);
  if (detail.why ?? detail.title) words.push(`(${detail.why ?? detail.title})`);
  if (detail.detail) words.push(detail.detail);
  for (const { location: at, message } of detail.members ?? []) words.push(`${at}: ${message};`);
  const line = document.createElement("li");
  line.textContent = words.join(" ");
  $("log").prepend(line);
  while ($("log").children.length > MAX_LOG_LINES) $("log").lastChild.remove();
}

setUp();
render();
