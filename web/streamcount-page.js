// The parts of streamcount.js that depend on the page: the body of a start, a session
// that no other tab has, and the client of the heartbeat worker.

import { HeartbeatLoop } from "./streamcount-worker.js";

const READY_TIMEOUT = 3_000; // until the worker has loaded
const LOCK_TIMEOUT = 400; // until the page before a reload has released its lock
const CHANNEL_TIMEOUT = 1_000; // for the answer of another tab

const MAX_LABEL = 200; // characters
const MAX_CONTENT_TYPE = 64;

/**
 * Returns the body of a start as JSON. Names, titles and types are made well-formed and
 * cut to the maximum length of the service, so that a start is not rejected because of
 * them. Ids are not changed. Members that are null or undefined are omitted, as are
 * members of device and content that the service does not use.
 */
export function startBody({ session, device, content, profile, labels, priority, network, onLimit, replaces }) {
  const body = {
    session, onLimit, replaces, profile, labels, priority, network,
    device: describe(device, { name: MAX_LABEL, type: MAX_LABEL }),
    content: describe(content, { title: MAX_LABEL, type: MAX_CONTENT_TYPE }),
  };
  return JSON.stringify(body, (_, value) => value ?? undefined);
}

/** Returns the members of a device or content that are sent: the id, the list of labels for plans, and texts up to these lengths. */
function describe(thing, texts) {
  if (typeof thing !== "object" || thing === null) return thing;
  const sent = { id: thing.id };
  if (Array.isArray(thing.labels)) sent.labels = thing.labels.filter((value) => (value ?? "") !== "").map(String);
  for (const [name, most] of Object.entries(texts)) {
    sent[name] = typeof thing[name] === "object" ? thing[name] : label(thing[name], most);
  }
  return sent;
}

/** Returns value as text of at most most characters. Unpaired surrogates become U+FFFD. */
function label(value, most) {
  if (value === undefined) return value;
  const text = String(value).slice(0, 2 * most).replace(/[\uD800-\uDBFF][\uDC00-\uDFFF]|[\uD800-\uDFFF]/g,
    (found) => (found.length === 2 ? found : "\uFFFD"));
  return Array.from(text).slice(0, most).join("");
}

/**
 * Returns an id as a segment of a URL path, or null if that is impossible. Browsers
 * resolve the segments "." and "..", escaped or not, so such an id would change the path.
 */
export function encode(id) {
  const text = String(id);
  if (["", ".", ".."].includes(text)) return null;
  try {
    return encodeURIComponent(text);
  } catch { // an unpaired surrogate
    return null;
  }
}

/** Returns 128 random bits. crypto.randomUUID is available in secure contexts only. */
function randomID() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

/**
 * A TabSession is the session id of a playback. It is stored for the tab, so that a
 * reloaded page has the same session and takes over its own slot. A browser copies the
 * storage of a tab when it duplicates the tab. The duplicate detects that the session is
 * in use and creates another one.
 */
export class TabSession {
  session = null;
  #options;
  #release = null; // releases the session; null while it is not acquired

  constructor(options) {
    this.#options = options;
  }

  /** Sets session to an id that no other tab uses. */
  async claim() {
    if (this.#options.session) {
      this.session = this.#options.session;
      return;
    }
    if (this.#release) return;
    const key = `streamcount.session.${this.#options.name}`;
    let session = this.session ?? loadItem(key);
    if (!session || !(await this.#acquire(session))) {
      session = randomID();
      await this.#acquire(session, true);
    }
    this.session = session;
    storeItem(key, session);
  }

  /** Releases the session for the page after a reload. A page with a lock cannot enter the back/forward cache. */
  release() {
    this.#release?.();
    this.#release = null;
  }

  /** Returns whether this tab has acquired a session. A fresh session is always available. */
  #acquire(session, fresh = false) {
    const name = `streamcount.${session}`;
    if (navigator.locks) return this.#lock(name);
    if (typeof BroadcastChannel !== "undefined") return this.#probeOtherTabs(name, fresh ? 0 : CHANNEL_TIMEOUT);
    return true;
  }

  #lock(name) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), LOCK_TIMEOUT);
    return new Promise((resolve) => {
      const onGranted = () => {
        resolve(true);
        return new Promise((release) => { this.#release = release; });
      };
      navigator.locks.request(name, { signal: controller.signal }, onGranted).catch(() => resolve(false));
    });
  }

  /** Replaces locks outside of secure contexts: a tab that has the session answers other tabs that ask for it. */
  #probeOtherTabs(name, timeout) {
    const channel = new BroadcastChannel(name);
    const ownID = randomID();
    let holding = false;
    return new Promise((resolve) => {
      const lost = () => {
        channel.close();
        resolve(false);
      };
      channel.onmessage = ({ data }) => {
        if (data.holds && !holding) lost();
        if (!data.asks) return;
        if (holding) channel.postMessage({ holds: ownID });
        else if (data.asks < ownID) lost(); // both tabs ask: the lower id wins
        else channel.postMessage({ asks: ownID });
      };
      channel.postMessage({ asks: ownID });
      setTimeout(() => {
        holding = true;
        this.#release = () => channel.close();
        resolve(true);
      }, timeout);
    });
  }
}

/** Storage may be blocked. A reload then creates a new session, and the old slot expires. */
function loadItem(key) {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

function storeItem(key, value) {
  try {
    sessionStorage.setItem(key, value);
  } catch {
    // storage is blocked
  }
}

/**
 * A HeartbeatClient runs a HeartbeatLoop in a Worker, or in the page if a Worker is not
 * possible.
 */
export class HeartbeatClient {
  inWorker = null; // null until the worker has loaded or failed
  #worker = null;
  #loop = null;
  #pending = []; // messages for the loop in the page, should the worker fail
  #onMessage;
  #timer = 0;

  constructor(worker, onMessage) {
    this.#onMessage = onMessage;
    if (worker === false || typeof Worker === "undefined") return this.#runInPage();
    try {
      this.#worker = new Worker(workerAddress(worker), { type: "module", name: "streamcount" });
    } catch {
      return this.#runInPage();
    }
    this.#worker.onmessage = ({ data }) => (data.type === "ready" ? this.#ready() : onMessage(data));
    this.#worker.onerror = (event) => { // it could not be loaded, or has failed
      event.preventDefault();
      this.#runInPage();
    };
    // The timeout runs twice: if the page was busy, the message "ready" may be queued behind the first timeout.
    this.#timer = setTimeout(() => { this.#timer = setTimeout(() => this.#runInPage(), READY_TIMEOUT); }, READY_TIMEOUT);
  }

  send(message) {
    if (message.type === "start" || message.type === "stop") {
      this.#pending = this.#pending.filter((m) => m.type === "timer");
    }
    // The last start or stop stays pending in case the worker fails later.
    if (!this.inWorker || message.type === "start" || message.type === "stop") this.#pending.push(message);
    if (this.#loop) this.#loop.onMessage(message);
    else this.#worker?.postMessage(message);
  }

  close() {
    this.send({ type: "stop" });
    clearTimeout(this.#timer);
    this.#worker?.terminate();
    this.#onMessage = () => {};
  }

  #ready() {
    clearTimeout(this.#timer);
    this.inWorker = true;
    this.#pending = this.#pending.filter((m) => m.type === "start");
  }

  #runInPage() {
    if (this.#loop) return;
    clearTimeout(this.#timer);
    this.#worker?.terminate();
    this.inWorker = false;
    this.#loop = new HeartbeatLoop((message) => this.#onMessage(message));
    for (const message of this.#pending) this.#loop.onMessage(message);
  }
}

/** Returns the URL of the worker. The script of a Worker must have the page's origin, so for another origin it is a blob that imports the file. */
function workerAddress(worker) {
  const url = new URL(typeof worker === "string" ? worker : "./streamcount-worker.js", import.meta.url);
  if (url.origin === location.origin) return url;
  return URL.createObjectURL(new Blob([`import ${JSON.stringify(url.href)};`], { type: "text/javascript" }));
}
