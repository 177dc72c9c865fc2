// The browser client of streamcount: one stream of one user, from start to stop.
// No dependencies; streamcount-page.js and streamcount-worker.js belong beside it.
// docs/browser.md explains.
//
//   import { Stream } from "/streamcount.js";
//   const stream = new Stream({ user: "maya", device: { name: "Laptop" } });
//   stream.addEventListener("refused", (e) => showWhereTheOthersAre(e.detail.active));
//   stream.addEventListener("ended", (e) => pauseAndSay(e.detail.reason, e.detail.by));
//   await stream.start({ content: { id: "film-77", title: "Metropolis" } });
//   if (stream.mayPlay) video.play();
//
// Only a refusal and an ending stop a film. When the service or the network is
// away the film plays on, and the stream catches up with them by itself.

import { Pulse, Tab } from "./streamcount-page.js";
import { backoff, request } from "./streamcount-worker.js";

const START_PATIENCE = 6_000; // one try; the service itself gives up after 5 s
const LONGEST_WAIT = 30_000; // between tries of a start
const RESTLESS = 10_000; // a stream that is lost again within this waits before it starts again

/** Why a stream ended, where the viewer has to be told. */
export const ENDINGS = Object.freeze(["stopped", "replaced", "evicted", "removed"]);

/**
 * A Stream is one playback. Its events are CustomEvents:
 *
 *   started    {stream, streams, limit, quiet}  it has a slot; quiet if nobody pressed play
 *   refused    {limit, streams, active, retryAfterSeconds, evictAfterSeconds, quiet}
 *              the user's slots are taken: pause, and say by what
 *   stopped, replaced, evicted, removed         {reason, by}: it was ended by somebody
 *   ended      {reason, by}                     after each of those four
 *   lost       {reason}    its slot lapsed while nobody could hear it; it starts again by itself
 *   waiting    {status, why, againInSeconds}    a start was not answered: play on
 *   degraded   {status, why, since}             heartbeats are not answered: play on
 *   recovered  {}                               they are again
 *   problem    {status, title, detail}          the service does not take the request as it
 *              is: a fault of the page or of its credential, and none of the viewer
 *   change     {state}     the state is another
 */
export class Stream extends EventTarget {
  #options;
  #base; // address of the user's streams
  #state = "idle";
  #info = null; // what the service last said of the stream
  #wish = {}; // what to start with
  #turn = 0; // what was asked for in an earlier one no longer matters
  #since = 0; // of the stream that we have or had last, by performance.now()
  #losses = 0; // in a row
  #degraded = null;
  #refusal = null;
  #ending = null;
  #away = false; // the page was left, and may come back
  #token = null;
  #tab;
  #pulse = null;
  #flight = null; // the start that is on its way
  #alarms = new Map(); // what to do early when the network is back

  /**
   * @param {object} options
   * @param {string} options.user        whose stream it is
   * @param {string} [options.server]    where streamcount is; where this file came from, if not said
   * @param {string|function} [options.token]  a credential, or a function (also async) that returns one.
   *   It is called with {refused: true} when the last one was no longer good
   * @param {boolean} [options.idIsEnough=true]  heartbeats and stops need no credential; false where the
   *   service runs with --auth-stream-ids=false
   * @param {object} [options.device]    {id, name, type}, for the viewer's other devices to show
   * @param {object} [options.content]   {id, title}
   * @param {string} [options.onLimit]   "deny" or "replace-oldest"
   * @param {string} [options.name="player"]  tells the players of one page apart
   * @param {string} [options.session]   your own id of this playback, instead of one for the tab
   * @param {boolean|string} [options.worker=true]  false for timers in the page; or the address of the worker's file
   * @param {boolean} [options.stopOnLeave=true]  stop when the page is left
   */
  constructor(options) {
    super();
    if (!options?.user) throw new TypeError("streamcount: say whose stream it is: new Stream({ user })");
    this.#options = { idIsEnough: true, name: "player", worker: true, stopOnLeave: true, ...options };
    const server = new URL(options.server ?? new URL("/", import.meta.url), location.href).href.replace(/\/+$/, "");
    this.#base = `${server}/api/v1/streams/users/${encodeURIComponent(options.user)}`;
    this.#tab = new Tab(this.#options);
    addEventListener("pagehide", this.#leave);
    addEventListener("pageshow", this.#comeBack);
    addEventListener("online", this.#hurry);
    document.addEventListener("visibilitychange", this.#hurry);
  }

  /** "idle", "starting", "playing", "waiting" (plays on without an answer), "refused", "ended" or "failed". */
  get state() { return this.#state; }
  /** Whether the film may play. Only a refusal, an ending and a stop forbid it. */
  get mayPlay() { return ["playing", "waiting", "failed"].includes(this.#state); }
  /** The stream as the service last described it; null without one. */
  get info() { return this.#info; }
  /** Since when heartbeats have not been answered; null while they are. */
  get degraded() { return this.#degraded; }
  /** What refused says, while the state is "refused". */
  get refusal() { return this.#refusal; }
  /** What ended says, while the state is "ended". */
  get ending() { return this.#ending; }
  /** Whether heartbeats come from a Worker, and so in hidden pages as well; null before they do. */
  get inWorker() { return this.#pulse?.inWorker ?? null; }

  /**
   * Takes a slot. Returns the state: "playing", "waiting", "refused" or "failed". Its
   * argument is laid over what the Stream was made with: {content, device, onLimit,
   * replaces}, where replaces is the id of a stream of this user to end for it.
   */
  async start(wish = {}) {
    const turn = ++this.#turn;
    this.#losses = 0;
    this.#wish = { ...wish };
    this.#pulse?.send({ do: "rest" });
    this.#info = null; // needs no stop: a session takes over its own slot
    this.#become("starting");
    await this.#ready();
    return turn === this.#turn ? this.#try(turn, false, 0) : this.#state;
  }

  /** Gives the slot back. The service hears of it at once if it can; else the slot lapses. */
  async stop() {
    const id = this.#info?.id;
    const turn = this.#rest("idle");
    if (id) await this.#release(id, () => turn === this.#turn);
  }

  /** Stops another stream of the user, as a viewer may wish who was refused. Returns whether it is gone. */
  async stopOther(id) {
    const { status } = await this.#ask(`/streams/${encodeURIComponent(id)}/stop`, {}, true);
    return status === 200 || status === 410 || status === 404;
  }

  /** The user's streams, as {streams, limit, active}; null if the service does not say. */
  async list() {
    const { status, said, at } = await this.#ask("", { method: "GET" }, true);
    if (status === 404) return { streams: 0, limit: this.#refusal?.limit ?? null, active: [], at };
    return status === 200 && said?.active ? { ...said, at } : null;
  }

  /** Stops, and lets go of the page. The Stream cannot be used any more. */
  async close() {
    removeEventListener("pagehide", this.#leave);
    removeEventListener("pageshow", this.#comeBack);
    removeEventListener("online", this.#hurry);
    document.removeEventListener("visibilitychange", this.#hurry);
    await this.stop();
    this.#tab.letGo();
  }

  /** Two starts of one session must not be on their way at once: the first might come second. */
  async #ready() {
    await this.#tab.claim();
    await this.#flight;
  }

  /** One try of a start, and all that follow from it. */
  async #try(turn, quiet, failures) {
    const { device, content, onLimit } = this.#options;
    const { device: d = device, content: c = content, onLimit: o = onLimit, replaces } = this.#wish;
    // Nobody is evicted unless somebody pressed play.
    const body = { session: this.#tab.session, device: d, content: c, onLimit: quiet ? undefined : o, replaces };
    this.#flight = this.#ask("/start", { body, patience: START_PATIENCE }, true);
    const answer = await this.#flight;
    if (turn !== this.#turn) { // stopped, left or started anew meanwhile; that start takes the slot over
      if (answer.said?.stream && this.#state !== "starting") this.#release(answer.said.stream.id, () => true);
      return this.#state;
    }
    const { status, said } = answer;
    if (status === 200 && said?.stream?.id) return this.#admitted(said, quiet);
    if (status === 403 && Number.isInteger(said?.limit)) return this.#refused(answer, quiet);
    const again = Math.max(backoff(failures, LONGEST_WAIT), Math.min(answer.after, LONGEST_WAIT));
    if (said?.type && [400, 401, 403, 404, 409, 413, 415, 422].includes(status)) {
      this.#say("problem", { status, title: said.title, detail: said.detail });
      this.#become("failed");
      // A credential may come right by itself, a wrong request will not.
      if (status === 401 || status === 403) this.#later(turn, LONGEST_WAIT, () => this.#try(turn, quiet, failures + 1));
      return this.#state;
    }
    this.#become("waiting");
    this.#say("waiting", { status, why: answer.why, againInSeconds: again / 1000 });
    this.#later(turn, again, () => this.#try(turn, quiet, failures + 1));
    return this.#state;
  }

  #admitted(said, quiet) {
    this.#info = said.stream;
    this.#since = performance.now();
    const wasDegraded = this.#degraded !== null;
    this.#degraded = null;
    this.#wish.replaces = undefined; // done; a start that follows must not end anything more
    this.#beat();
    this.#become("playing");
    this.#say("started", { stream: said.stream, streams: said.streams, limit: said.limit, quiet });
    if (wasDegraded) this.#say("recovered", {});
    return this.#state;
  }

  #refused({ said, after, at }, quiet) {
    this.#rest("refused", {
      limit: said.limit, streams: said.streams ?? said.active?.length ?? said.limit, active: said.active ?? [],
      retryAfterSeconds: after / 1000, evictAfterSeconds: said.evictAfterSeconds ?? 0, at, quiet,
    });
    this.#say("refused", this.#refusal);
    return this.#state;
  }

  /** Starts without anybody having pressed play: after a loss, or when the page is back. */
  async #startAgain() {
    const turn = ++this.#turn;
    this.#info = null;
    this.#become("waiting");
    await this.#ready();
    if (turn !== this.#turn) return;
    const restless = performance.now() - this.#since < RESTLESS;
    this.#losses = restless ? this.#losses + 1 : 0;
    if (this.#losses < 2) return this.#try(turn, true, 0);
    this.#later(turn, backoff(this.#losses + 1, LONGEST_WAIT), () => this.#try(turn, true, 0));
  }

  async #beat() {
    const authorization = this.#options.idIsEnough ? undefined : await this.#authorization();
    if (!this.#info) return;
    this.#heart().send({
      do: "keep", url: this.#address(this.#info.id, "heartbeat"), authorization,
      ttlSeconds: this.#info.ttlSeconds, heartbeatSeconds: this.#info.heartbeatSeconds,
    });
  }

  #heart() {
    this.#pulse ??= new Pulse(this.#options.worker, (message) => this.#hear(message));
    return this.#pulse;
  }

  async #hear(message) {
    if (message.said === "alarm") return this.#alarms.get(message.id)?.();
    if (!this.#info || message.url !== this.#address(this.#info.id, "heartbeat")) return; // of a stream before
    switch (message.said) {
      case "renewed":
        this.#info = { ...this.#info, ...message.stream };
        if (this.#degraded) {
          this.#degraded = null;
          this.#say("recovered", {});
        }
        return;
      case "missed":
        if (this.#degraded) return;
        this.#degraded = new Date();
        this.#say("degraded", { status: message.status, why: message.why, since: this.#degraded });
        return;
      case "unauthorized":
        return this.#authorizeHeart(message.why);
      case "gone":
        return this.#gone(message.reason, message.by);
    }
  }

  async #authorizeHeart(why) {
    const authorization = await this.#authorization(true);
    if (authorization) this.#pulse?.send({ do: "authorize", authorization });
    else this.#say("problem", { status: 401, title: why, detail: "Heartbeats need a credential: see the option token." });
  }

  #gone(reason, by) {
    if (!ENDINGS.includes(reason)) { // nobody's doing: expired, ended, or an id that is not known any more
      this.#say("lost", { reason });
      return this.#startAgain();
    }
    this.#rest("ended", { reason, by });
    this.#say(reason, this.#ending);
    this.#say("ended", this.#ending);
  }

  /** Leaves the stream that there was, and makes what was under way irrelevant. */
  #rest(state, why = null) {
    this.#pulse?.end();
    this.#pulse = null;
    this.#alarms.clear();
    this.#info = null;
    this.#degraded = null;
    this.#refusal = state === "refused" ? why : null;
    this.#ending = state === "ended" ? why : null;
    this.#turn++;
    this.#become(state);
    return this.#turn;
  }

  /** Tells the service that a stream is over, and tries again while that is wanted. */
  async #release(id, wanted) {
    for (let n = 0; n < 4 && wanted(); n++) {
      const { status } = await this.#ask(`/streams/${id}/stop`, { keepalive: true }, !this.#options.idIsEnough);
      if (status !== 0 && status !== 429 && status < 500) return;
      await new Promise((resolve) => setTimeout(resolve, backoff(n + 1, LONGEST_WAIT)));
    }
  }

  /** The page is being left: what is sent now is sent without us. */
  #leave = () => {
    this.#tab.letGo();
    if (!this.#options.stopOnLeave || !this.mayPlay && this.#state !== "starting") return;
    const id = this.#info?.id;
    this.#rest("waiting");
    this.#away = true;
    if (!id) return;
    const url = this.#address(id, "stop");
    // A beacon has no headers, so it is for where the stream's id is all it takes.
    if (this.#options.idIsEnough && navigator.sendBeacon?.(url)) return;
    const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    fetch(url, { method: "POST", keepalive: true, headers }).catch(() => {}); // nobody is left to be told
  };

  /** Back, or forward, to a page that the browser had kept. */
  #comeBack = (event) => {
    if (!event.persisted) return;
    if (this.#away) this.#startAgain();
    this.#away = false;
  };

  /** The network is back, or the page is seen again. A whole town may be, so not all at once. */
  #hurry = () => {
    if (document.hidden && !navigator.onLine) return;
    this.#pulse?.send({ do: "now" });
    for (const go of this.#alarms.values()) setTimeout(go, Math.random() * 500);
  };

  /** Does something after so long, or when there is reason to think that it will work sooner. */
  #later(turn, ms, go) {
    const id = Math.random();
    this.#alarms.set(id, () => {
      if (this.#alarms.delete(id) && turn === this.#turn) go();
    });
    this.#heart().send({ do: "alarm", id, ms });
  }

  #address(id, call) { return `${this.#base}/streams/${encodeURIComponent(id)}/${call}`; }

  /** One call about the user's streams, with a fresh credential if the first was not good enough. */
  async #ask(path, how, withToken) {
    const authorization = withToken ? await this.#authorization() : undefined;
    const answer = await request(this.#base + path, { ...how, authorization });
    if (answer.status !== 401 || !withToken) return answer;
    const fresh = await this.#authorization(true);
    return fresh && fresh !== authorization ? request(this.#base + path, { ...how, authorization: fresh }) : answer;
  }

  async #authorization(refused = false) {
    const { token } = this.#options;
    if (!token) return undefined;
    if (typeof token === "string") this.#token = token;
    else if (refused || !this.#token) {
      try {
        this.#token = await token({ refused });
      } catch (err) {
        this.#say("problem", { status: 0, title: "No credential", detail: String(err?.message ?? err) });
      }
    }
    return this.#token ? `Bearer ${this.#token}` : undefined;
  }

  #become(state) {
    if (state === this.#state) return;
    this.#state = state;
    if (state !== "refused") this.#refusal = null;
    if (state !== "ended") this.#ending = null;
    this.#say("change", { state });
  }

  #say(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
}
