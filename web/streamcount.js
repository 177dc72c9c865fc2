// The browser client of streamcount: one stream of one user, from start to stop.
// No dependencies; streamcount-page.js and streamcount-worker.js belong beside it.
// See docs/browser.md.
//
//   import { Stream } from "/streamcount.js";
//   const stream = new Stream({ user: "maya", device: { name: "Laptop" } });
//   stream.addEventListener("refused", (e) => showActiveStreams(e.detail.active));
//   stream.addEventListener("ended", (e) => pauseAndShow(e.detail.reason, e.detail.by));
//   await stream.start({ content: { id: "film-77", title: "Metropolis" } });
//   if (stream.mayPlay) video.play();
//
// Only a refusal and the end of the stream stop a film. While the service or the network
// is unavailable, the film plays on, and the client retries.

import { HeartbeatClient, TabSession, encode, startBody } from "./streamcount-page.js";
import { backoff, isRejection, request } from "./streamcount-worker.js";

const START_TIMEOUT = 6_000; // for one attempt; the service has a timeout of 5 s
const MAX_WAIT = 30_000; // between attempts to start
const MAX_SLOW_WAIT = 300_000; // between attempts after a rejection
const RESTART_WINDOW = 10_000; // a stream that is lost within this time after its start is restarted with a backoff
const MAX_BLOCKED = 3; // failed calls without any answer until a problem is dispatched
const MAX_TIMEOUT = 2 ** 31 - 1; // a longer setTimeout fires at once

const LIMIT_REACHED = "Maximum number of streams reached";

/** The reasons for the end of a stream that have an event of the same name. The viewer is notified of these and of unknown reasons. */
export const ENDINGS = Object.freeze(["stopped", "replaced", "evicted", "removed"]);

/** The reasons after which the client restarts the stream without notifying the viewer. */
const SILENT_REASONS = ["expired", "ended", "unknown"];

/**
 * Returns whether the end of the streams with these ids is enough for a start that a plan with
 * several limits refused, as far as the refusal shows: one of them is enough alone, or each
 * limit loses as many streams as it needs. refusal is the detail of the event refused.
 */
export function covers(refusal, ids) {
  const ends = refusal.active.filter((stream) => ids.includes(stream.id));
  return ends.some((stream) => stream.enough) || refusal.limits.length > 0 && refusal.limits.every(({ name, limit, counted }) =>
    limit > 0 && ends.filter((stream) => stream.blocks?.includes(name)).length > counted - limit);
}

/** The answer to calls for a user id that a browser cannot send. */
const UNUSABLE_USER = Object.freeze({
  status: 0, retryAfter: 0, at: NaN, why: "the user id cannot be sent", blocked: false, unsent: true,
  data: {
    title: "The user id cannot be sent",
    detail: "A browser cannot send this user id: it has an unpaired surrogate, or it is . or .., which browsers " +
      "remove from addresses.",
    errors: [{ location: "path.user", message: "a browser cannot send this id" }],
  },
});

/**
 * A Stream is one playback. Its events are CustomEvents:
 *
 *   started    {stream, streams, limit, quiet}  the stream has a slot; quiet if the client restarted it
 *   refused    {limit, streams, active, message, limits, retryAfterSeconds, evictAfterSeconds, quiet}
 *              the user is at the limit: pause, and show the active streams. Under a plan with several limits,
 *              message is the plan's text for viewers, limits are the {name, limit, counted, count, message} that
 *              refuse the start, and each active stream has blocks, the names of those that it counts for, and
 *              enough, whether its end alone is enough. Otherwise message is "" and limits is empty
 *   stopped, replaced, evicted, removed         {reason, by}: the stream was ended by a call
 *   ended      {reason, by}    after each of these four, and for unknown reasons
 *   lost       {reason}    the stream expired while heartbeats failed; the client restarts it
 *   waiting    {status, why, againInSeconds}    a start failed without a decision: play on
 *   degraded   {status, why, since}             heartbeats fail: play on
 *   recovered  {}                               heartbeats succeed again
 *   problem    {status, title, detail, members, againInSeconds}
 *              the service rejects the request itself: the page, its credential or the
 *              configuration is wrong. The film plays on without being counted, and the start is
 *              retried. members are {location, message} of the invalid members
 *   change     {state}     the state has changed
 */
export class Stream extends EventTarget {
  #options;
  #base; // URL of the user
  #query; // of starts and heartbeats
  #state = "idle";
  #info = null; // the stream as the service last described it
  #pendingOptions = {}; // of the last start
  #generation = 0; // incremented by each start, stop and end; work of an earlier generation is obsolete
  #startedAt = 0; // of the current or last stream, by performance.now()
  #restarts = 0; // in a row
  #degraded = null;
  #heartbeatRejected = false; // since #degraded
  #refusal = null;
  #ending = null;
  #pageLeft = false; // the page may return from the back/forward cache
  #token = null;
  #session;
  #heartbeats = null;
  #startInFlight = null; // the start in flight
  #timers = new Map(); // retries, which run early when the network is back
  #answered = false; // the service has answered a call of this Stream
  #blockedCalls = 0; // consecutive calls that the browser failed
  #pausedAt = null; // by the wall clock, which includes the time that a machine sleeps
  #pauseTimer = 0;

  /**
   * @param {object} options
   * @param {string} options.user        id of the user
   * @param {string} [options.server]    URL of the service; default the origin of this file
   * @param {string|function} [options.token]  a credential, or a function (also async) that returns one.
   *   It is called with {refused: true} when the last one was not valid
   * @param {string|string[]} [options.playbackTokens]  formats of the playback tokens that starts and heartbeats
   *   return: "jwt", "akamai", "secure-link" or "cloudfront"
   * @param {function} [options.onToken]  called with each playback token: {jwt, expiresAt, ...}
   * @param {boolean} [options.idIsEnough=true]  heartbeats and stops need no credential; set it to false for a
   *   service with --auth-stream-ids=false
   * @param {object} [options.device]    {id, name, type}, which the user's other devices can show
   * @param {object} [options.content]   {id, title, type, labels}
   * @param {string} [options.profile]   profile of the account, for limits of plans
   * @param {object} [options.labels]    labels for limits of plans. The service accepts labels, priority and network
   *   with an API key only, not with a viewer's token
   * @param {number} [options.priority]  0 to 9
   * @param {string} [options.network]   a text that is the same for all devices on a network
   * @param {string} [options.onLimit]   "deny" or "replace-oldest"
   * @param {string} [options.name="player"]  distinguishes several players in one page
   * @param {string} [options.session]   session id of this playback, instead of an id for the tab
   * @param {boolean|string} [options.worker=true]  false for timers in the page, or the URL of the worker's file
   * @param {boolean} [options.stopOnLeave=true]  stop the stream when the user leaves the page
   * @param {HTMLMediaElement} [options.media]  the element that plays the film, whose pause and play events
   *   are used; without it, call pause and resume
   * @param {number} [options.pauseAfter=20]  minutes of pause after which the slot is released until the
   *   film is resumed; Infinity for never
   */
  constructor(options) {
    super();
    if (!options?.user) throw new TypeError("streamcount: the option user is required: new Stream({ user })");
    this.#options = { idIsEnough: true, name: "player", worker: true, stopOnLeave: true, pauseAfter: 20, ...options };
    if (!(this.#options.pauseAfter >= 0)) throw new TypeError("streamcount: pauseAfter: want minutes, 0 or more");
    const server = new URL(options.server ?? new URL("/", import.meta.url), location.href).href.replace(/\/+$/, "");
    const user = encode(options.user);
    this.#base = user === null ? null : `${server}/api/v1/streams/users/${user}`;
    const formats = [options.playbackTokens ?? []].flat();
    this.#query = formats.length > 0 ? `?token=${encodeURIComponent(formats.join(","))}` : "";
    this.#session = new TabSession(this.#options);
    addEventListener("pagehide", this.#onPageHide);
    addEventListener("pageshow", this.#onPageShow);
    addEventListener("online", this.#retryNow);
    document.addEventListener("visibilitychange", this.#retryNow);
    options.media?.addEventListener("pause", this.#onPause);
    options.media?.addEventListener("play", this.#onPlay);
  }

  /**
   * "idle", "starting", "playing", "waiting" (no answer; plays on and retries), "failed" (rejected; plays on and
   * retries less often), "paused" (long enough that the slot was released), "refused" or "ended".
   */
  get state() { return this.#state; }
  /** Whether the film may play. It may not after a refusal, an end of the stream, or a stop. */
  get mayPlay() { return ["playing", "waiting", "failed"].includes(this.#state); }
  /** The stream as the service last described it; null without one. */
  get info() { return this.#info; }
  /** The time since which heartbeats have failed; null while they succeed. */
  get degraded() { return this.#degraded; }
  /** The detail of the event refused, while the state is "refused". */
  get refusal() { return this.#refusal; }
  /** The detail of the event ended, while the state is "ended". */
  get ending() { return this.#ending; }
  /** Whether a Worker sends the heartbeats, so that they are in time in hidden pages; null if unknown. */
  get inWorker() { return this.#heartbeats?.inWorker ?? null; }

  /**
   * Starts the stream. Returns the state: "playing", "waiting", "refused" or "failed". The
   * argument {content, device, profile, labels, priority, network, onLimit, replaces} overrides the options of the
   * constructor. replaces is the id of a stream of this user to end in the same step, or a list of ids.
   */
  async start(options = {}) {
    const generation = ++this.#generation;
    this.#restarts = 0;
    this.#pendingOptions = { ...options };
    this.#clearPause();
    if (this.#options.media?.paused) this.pause(); // autoplay may be forbidden
    this.#heartbeats?.send({ type: "stop" });
    this.#info = null; // it needs no stop, because a start takes over the slot of its session
    this.#setState("starting");
    await this.#claimSession();
    return generation === this.#generation ? this.#attemptStart(generation, false, 0) : this.#state;
  }

  /** Stops the stream. If the service cannot be reached, the slot expires. */
  async stop() {
    const id = this.#info?.id;
    const generation = this.#reset("idle");
    if (id) await this.#sendStop(id, () => generation === this.#generation);
  }

  /**
   * Reports that the film is paused. A paused film keeps its slot for pauseAfter minutes. With the option media
   * the client calls this.
   */
  pause() {
    if (this.#pausedAt !== null) return;
    this.#pausedAt = Date.now();
    this.#checkPause();
  }

  /** Reports that the film was resumed. If the slot was released, starts the stream again. Returns the state. */
  async resume() {
    const { state } = this;
    this.#clearPause();
    if (state === "paused") await this.#startAgain(false);
    return this.#state;
  }

  /** Stops another stream of the user, for example after a refusal. Returns whether it has ended. */
  async stopOther(id) {
    const at = encode(id);
    if (at === null) return false; // not the id of a stream
    const { status } = await this.#call(`/streams/${at}/stop`, {}, true);
    return status === 200 || status === 410 || status === 404;
  }

  /** Returns the user's streams as {streams, limit, active}, or null without an answer. */
  async list() {
    const { status, data, at } = await this.#call("", { method: "GET" }, true);
    if (status === 404) return { streams: 0, limit: this.#refusal?.limit ?? null, active: [], at };
    return status === 200 && data?.active ? { ...data, at } : null;
  }

  /** Stops the stream and removes the listeners. The Stream cannot be used again. */
  async close() {
    removeEventListener("pagehide", this.#onPageHide);
    removeEventListener("pageshow", this.#onPageShow);
    removeEventListener("online", this.#retryNow);
    document.removeEventListener("visibilitychange", this.#retryNow);
    this.#options.media?.removeEventListener("pause", this.#onPause);
    this.#options.media?.removeEventListener("play", this.#onPlay);
    await this.stop();
    this.#session.release();
  }

  /** Claims the session and waits for a start in flight: two concurrent starts of one session could be reordered. */
  async #claimSession() {
    await this.#session.claim();
    await this.#startInFlight;
  }

  /** Makes one attempt to start the stream and handles its answer. */
  async #attemptStart(generation, quiet, failures) {
    const defined = Object.entries(this.#pendingOptions).filter(([, value]) => value !== undefined);
    const chosen = { ...this.#options, ...Object.fromEntries(defined) };
    let body;
    try {
      // A restart by the client evicts no other stream.
      body = startBody({ ...chosen, session: this.#session.session, onLimit: quiet ? undefined : chosen.onLimit,
        replaces: this.#pendingOptions.replaces });
    } catch (err) { // for example a BigInt
      return this.#rejected(generation, quiet, failures, { status: 0, retryAfter: 0, data: {
        title: "The start cannot be written as JSON", detail: String(err?.message ?? err),
      } });
    }
    this.#startInFlight = this.#call("/start" + this.#query, { body, timeout: START_TIMEOUT }, true);
    const answer = await this.#startInFlight;
    if (generation !== this.#generation) { // stopped or restarted since; a new start takes over the slot
      if (answer.data?.stream && this.#state !== "starting") this.#sendStop(answer.data.stream.id, () => true);
      return this.#state;
    }
    const { status, data } = answer;
    if (status === 200 && data?.stream?.id) return this.#admitted(data, quiet);
    if (status === 403 && (data?.title === LIMIT_REACHED || data?.error === LIMIT_REACHED)) return this.#refused(answer, quiet);
    if (isRejection(status) || answer.unsent) return this.#rejected(generation, quiet, failures, answer);
    const wait = Math.max(backoff(failures, MAX_WAIT), Math.min(answer.retryAfter, MAX_WAIT));
    this.#setState("waiting");
    this.#dispatch("waiting", { status, why: answer.why, againInSeconds: wait / 1000 });
    this.#retryLater(generation, wait, () => this.#attemptStart(generation, quiet, failures + 1));
    return this.#state;
  }

  /**
   * Handles a rejected start. The start is retried with long waits, because a new token or
   * a corrected configuration may make the service accept it.
   */
  #rejected(generation, quiet, failures, { status, data, retryAfter }) {
    const slow = Math.min(MAX_SLOW_WAIT, MAX_WAIT * 2 ** Math.min(failures, 10));
    const wait = Math.max(slow / 2 + Math.random() * slow / 2, Math.min(retryAfter, MAX_SLOW_WAIT));
    this.#setState("failed");
    this.#reportProblem({ status, data }, wait);
    this.#retryLater(generation, wait, () => this.#attemptStart(generation, quiet, failures + 1));
    return this.#state;
  }

  #reportProblem({ status, data }, wait = null) {
    this.#dispatch("problem", {
      status, title: data?.title ?? `Status ${status}`, detail: data?.detail ?? "",
      members: Array.isArray(data?.errors) ? data.errors : [], againInSeconds: wait === null ? null : wait / 1000,
    });
  }

  #admitted(data, quiet) {
    this.#info = data.stream;
    this.#startedAt = performance.now();
    const wasDegraded = this.#degraded !== null;
    this.#degraded = null;
    this.#pendingOptions.replaces = undefined; // a restart must not end another stream
    this.#startHeartbeats();
    this.#setState("playing");
    this.#passToken(data.token);
    this.#dispatch("started", { stream: data.stream, streams: data.streams, limit: data.limit, quiet });
    if (wasDegraded) this.#dispatch("recovered", {});
    return this.#state;
  }

  #refused({ data, retryAfter, at }, quiet) {
    const active = Array.isArray(data.active) ? data.active : [];
    const limits = Array.isArray(data.limits) ? data.limits : [];
    this.#reset("refused", {
      limit: data.limit ?? active.length, streams: data.streams ?? active.length, active,
      message: limits.find((limit) => limit.message)?.message ?? "", limits,
      retryAfterSeconds: retryAfter / 1000, evictAfterSeconds: data.evictAfterSeconds ?? 0, at, quiet,
    });
    this.#dispatch("refused", this.#refusal);
    return this.#state;
  }

  /** Starts the stream again. A quiet start, by the client and not by the viewer, evicts no other stream. */
  async #startAgain(quiet = true) {
    const generation = ++this.#generation;
    this.#info = null;
    this.#setState("waiting");
    await this.#claimSession();
    if (generation !== this.#generation) return;
    const isRepeated = performance.now() - this.#startedAt < RESTART_WINDOW;
    this.#restarts = isRepeated ? this.#restarts + 1 : 0;
    if (this.#restarts < 2 || !quiet) return this.#attemptStart(generation, quiet, 0);
    this.#retryLater(generation, backoff(this.#restarts + 1, MAX_WAIT), () => this.#attemptStart(generation, quiet, 0));
  }

  #onPause = () => this.pause();
  #onPlay = () => { this.resume(); };

  #clearPause() {
    clearTimeout(this.#pauseTimer);
    this.#pausedAt = null;
  }

  /** Releases the slot when the pause is too long. */
  #checkPause() {
    clearTimeout(this.#pauseTimer);
    if (this.#pausedAt === null) return;
    const left = this.#pauseLeft();
    if (left > 0) {
      if (left < Infinity) this.#pauseTimer = setTimeout(() => this.#checkPause(), Math.min(left, MAX_TIMEOUT));
      return;
    }
    if (!this.mayPlay && this.#state !== "starting") return;
    const id = this.#info?.id;
    const generation = this.#reset("paused");
    if (id) this.#sendStop(id, () => generation === this.#generation);
  }

  /** Returns the milliseconds until a pause releases the slot. */
  #pauseLeft() {
    return this.#pausedAt === null ? Infinity : this.#pausedAt + this.#options.pauseAfter * 60_000 - Date.now();
  }

  async #startHeartbeats() {
    const authorization = this.#options.idIsEnough ? undefined : await this.#authorization();
    if (!this.#info) return;
    this.#heartbeatClient().send({
      type: "start", url: this.#heartbeatAddress(), authorization,
      ttlSeconds: this.#info.ttlSeconds, heartbeatSeconds: this.#info.heartbeatSeconds,
    });
  }

  #heartbeatClient() {
    this.#heartbeats ??= new HeartbeatClient(this.#options.worker, (message) => this.#onMessage(message));
    return this.#heartbeats;
  }

  async #onMessage(message) {
    if (message.type === "timer") return this.#timers.get(message.id)?.();
    if (!this.#info || message.url !== this.#heartbeatAddress()) return; // of an earlier stream
    switch (message.type) {
      case "renewed":
        this.#info = { ...this.#info, ...message.stream };
        this.#passToken(message.stream.token);
        if (this.#degraded) {
          this.#degraded = null;
          this.#dispatch("recovered", {});
        }
        return;
      case "missed":
        this.#passToken(message.problem?.token); // of a degraded answer
        return this.#onMissed(message);
      case "unauthorized":
        return this.#refreshHeartbeatToken(message.why);
      case "gone":
        return this.#onGone(message.reason, message.by);
    }
  }

  #onMissed({ status, why, problem }) {
    if (!this.#degraded) {
      this.#degraded = new Date();
      this.#heartbeatRejected = false;
      this.#dispatch("degraded", { status, why, since: this.#degraded });
    }
    if (!isRejection(status) || status === 401 || this.#heartbeatRejected) return;
    this.#heartbeatRejected = true;
    this.#reportProblem({ status, data: problem });
  }

  async #refreshHeartbeatToken(why) {
    const authorization = await this.#authorization(true);
    if (authorization) this.#heartbeats?.send({ type: "authorize", authorization });
    else this.#reportProblem({ status: 401, data: { title: why, detail: "Heartbeats need a credential: see the option token." } });
  }

  #onGone(reason, by) {
    if (SILENT_REASONS.includes(reason)) {
      this.#dispatch("lost", { reason });
      if (this.#pauseLeft() <= 0) { // the machine slept during a pause
        this.#reset("paused");
        return;
      }
      return this.#startAgain();
    }
    this.#reset("ended", { reason, by });
    if (ENDINGS.includes(reason)) this.#dispatch(reason, this.#ending);
    this.#dispatch("ended", this.#ending);
  }

  /** Discards the stream, cancels all work in progress and sets the state. Returns the new generation. */
  #reset(state, why = null) {
    this.#heartbeats?.close();
    this.#heartbeats = null;
    this.#timers.clear();
    this.#info = null;
    this.#degraded = null;
    this.#refusal = state === "refused" ? why : null;
    this.#ending = state === "ended" ? why : null;
    this.#generation++;
    this.#setState(state);
    return this.#generation;
  }

  /** Stops a stream. Retries while wanted returns true. */
  async #sendStop(id, wanted) {
    for (let n = 0; n < 4 && wanted(); n++) {
      const { status } = await this.#call(`/streams/${encode(id)}/stop`, { keepalive: true }, !this.#options.idIsEnough);
      if (status !== 0 && status !== 429 && status < 500) return;
      await new Promise((resolve) => setTimeout(resolve, backoff(n + 1, MAX_WAIT)));
    }
  }

  /** The page is being unloaded, or enters the back/forward cache. */
  #onPageHide = () => {
    this.#session.release();
    if (!this.#options.stopOnLeave || !this.mayPlay && this.#state !== "starting") return;
    const id = this.#info?.id;
    this.#reset("waiting");
    this.#pageLeft = true;
    if (!id) return;
    const url = this.#address(id, "stop");
    // A beacon has no headers, so it cannot carry a credential.
    if (this.#options.idIsEnough && navigator.sendBeacon?.(url)) return;
    const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    fetch(url, { method: "POST", keepalive: true, headers, redirect: "error", credentials: "omit" })
      .catch(() => {}); // the page is unloaded
  };

  /** The page returns from the back/forward cache. */
  #onPageShow = (event) => {
    if (!event.persisted) return;
    if (this.#pageLeft && this.#pauseLeft() <= 0) this.#reset("paused");
    else if (this.#pageLeft) this.#startAgain();
    this.#pageLeft = false;
  };

  /** The network is back, or the page is visible again. Retries have a jitter, because many players do this at the same time. */
  #retryNow = () => {
    this.#checkPause(); // timers are late after a sleep
    if (document.hidden && !navigator.onLine) return;
    this.#heartbeats?.send({ type: "wake" });
    for (const go of this.#timers.values()) setTimeout(go, Math.random() * 500);
  };

  /** Calls go after ms milliseconds, or when retryNow is called, unless the generation has changed. */
  #retryLater(generation, ms, go) {
    const id = Math.random();
    this.#timers.set(id, () => {
      if (this.#timers.delete(id) && generation === this.#generation) go();
    });
    this.#heartbeatClient().send({ type: "timer", id, ms });
  }

  /** Passes a playback token to the player, whose errors must not affect the stream. */
  #passToken(token) {
    if (!token) return;
    try {
      this.#options.onToken?.(token);
    } catch (err) {
      setTimeout(() => { throw err; }); // as of a listener of an event
    }
  }

  #heartbeatAddress() { return this.#address(this.#info.id, "heartbeat") + this.#query; }

  #address(id, call) { return `${this.#base}/streams/${encode(id)}/${call}`; }

  /** Makes one call for the user. After a 401 it retries with a new credential. */
  async #call(path, how, withToken) {
    if (this.#base === null) return UNUSABLE_USER;
    const authorization = withToken ? await this.#authorization() : undefined;
    const answer = await request(this.#base + path, { ...how, authorization });
    this.#watchBlocked(answer);
    if (answer.status !== 401 || !withToken) return answer;
    const fresh = await this.#authorization(true);
    return fresh && fresh !== authorization ? request(this.#base + path, { ...how, authorization: fresh }) : answer;
  }

  /** Dispatches a problem if the browser has failed every call so far, because the cause may be the configuration. Browsers give no reason. */
  #watchBlocked({ status, blocked }) {
    this.#answered ||= status > 0;
    if (this.#answered || !blocked || !navigator.onLine || ++this.#blockedCalls !== MAX_BLOCKED) return;
    const own = new URL(this.#base).origin === location.origin;
    this.#reportProblem({ status: 0, data: {
      title: "The browser cannot call the service",
      detail: `${MAX_BLOCKED} calls of ${new URL(this.#base).origin} failed without an answer. ` + (own ?
        "The service may be down, or may answer with a redirect, which is not followed." :
        `The service may be down, or CORS may refuse the call: the service has to allow this page's origin, ${location.origin}, ` +
        "by --cors-origins (or --cors-allow-null), and headers that monitoring scripts add by --cors-headers. " +
        "A redirect and the page's own content security policy (connect-src) have the same effect."),
    } });
  }

  async #authorization(refused = false) {
    const { token } = this.#options;
    if (!token) return undefined;
    if (typeof token === "string") this.#token = token;
    else if (refused || !this.#token) {
      try {
        this.#token = await token({ refused });
      } catch (err) {
        this.#reportProblem({ status: 0, data: { title: "No credential", detail: String(err?.message ?? err) } });
      }
    }
    return this.#token ? `Bearer ${this.#token}` : undefined;
  }

  #setState(state) {
    if (state === this.#state) return;
    this.#state = state;
    if (state !== "refused") this.#refusal = null;
    if (state !== "ended") this.#ending = null;
    this.#dispatch("change", { state });
  }

  #dispatch(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
}
