// What a page lends to a stream, for streamcount.js: a session that no other tab
// has, and a place where its heart beats.

import { Heart } from "./streamcount-worker.js";

const READY_WITHIN = 3_000; // for a worker to speak
const LET_GO_WITHIN = 400; // for the page that was here before a reload
const HEARD_WITHIN = 1_000; // from another tab, which may be busy

/** 128 random bits; crypto.randomUUID is for secure pages alone. */
function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

/**
 * A Tab knows the session of a playback. A reloaded page finds its session again, and
 * so takes over its own slot. A duplicated tab is given a copy of everything that the
 * first one stored, the session too; it notices that that is in use, and makes its own.
 */
export class Tab {
  session = null;
  #options;
  #release = null; // while the session is held

  constructor(options) {
    this.#options = options;
  }

  /** Makes sure that there is a session, and that it is this tab's alone. */
  async claim() {
    if (this.#options.session) {
      this.session = this.#options.session;
      return;
    }
    if (this.#release) return;
    const key = `streamcount.session.${this.#options.name}`;
    let session = this.session ?? recall(key);
    if (!session || !(await this.#hold(session))) {
      session = random();
      await this.#hold(session, true);
    }
    this.session = session;
    remember(key, session);
  }

  /** Lets the page that comes after a reload have the session; and the browser keep this one. */
  letGo() {
    this.#release?.();
    this.#release = null;
  }

  /** Tries to be the only tab with a session. Nobody else can have a fresh one. */
  #hold(session, fresh = false) {
    const name = `streamcount.${session}`;
    if (navigator.locks) return this.#lock(name);
    if (typeof BroadcastChannel !== "undefined") return this.#askAround(name, fresh ? 0 : HEARD_WITHIN);
    return true;
  }

  #lock(name) {
    const giveUp = new AbortController();
    setTimeout(() => giveUp.abort(), LET_GO_WITHIN);
    return new Promise((resolve) => {
      const held = () => {
        resolve(true);
        return new Promise((release) => { this.#release = release; });
      };
      navigator.locks.request(name, { signal: giveUp.signal }, held).catch(() => resolve(false));
    });
  }

  /** Locks are for secure pages. Elsewhere whoever has a session speaks up when another tab asks. */
  #askAround(name, patience) {
    const channel = new BroadcastChannel(name);
    const me = random();
    let holding = false;
    return new Promise((resolve) => {
      const lost = () => {
        channel.close();
        resolve(false);
      };
      channel.onmessage = ({ data }) => {
        if (data.holds && !holding) lost();
        if (!data.asks) return;
        if (holding) channel.postMessage({ holds: me });
        else if (data.asks < me) lost(); // both ask: one of us has to give way
        else channel.postMessage({ asks: me });
      };
      channel.postMessage({ asks: me });
      setTimeout(() => {
        holding = true;
        this.#release = () => channel.close();
        resolve(true);
      }, patience);
    });
  }
}

/** Storage may be forbidden. Then a reload is a new session, and the old slot lapses. */
function recall(key) {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

function remember(key, value) {
  try {
    sessionStorage.setItem(key, value);
  } catch {
    // as above
  }
}

/** Where the heart beats: in a Worker, or in the page where that cannot be. */
export class Pulse {
  inWorker = null; // not known yet
  #worker = null;
  #heart = null;
  #unheard = []; // what the worker was told before it spoke
  #tell;
  #timer = 0;

  constructor(where, tell) {
    this.#tell = tell;
    if (where === false || typeof Worker === "undefined") return this.#stay();
    try {
      this.#worker = new Worker(workerAddress(where), { type: "module", name: "streamcount" });
    } catch {
      return this.#stay();
    }
    this.#worker.onmessage = ({ data }) => (data.said === "ready" ? this.#ready() : tell(data));
    this.#worker.onerror = (event) => { // it could not be loaded, or broke
      event.preventDefault();
      this.#stay();
    };
    // Twice: where the page itself was busy, the worker's word may be waiting.
    this.#timer = setTimeout(() => { this.#timer = setTimeout(() => this.#stay(), READY_WITHIN); }, READY_WITHIN);
  }

  send(message) {
    if (message.do === "keep" || message.do === "rest") {
      this.#unheard = this.#unheard.filter((m) => m.do === "alarm");
    }
    // The last order is kept, should the worker break later.
    if (!this.inWorker || message.do === "keep" || message.do === "rest") this.#unheard.push(message);
    if (this.#heart) this.#heart.hear(message);
    else this.#worker?.postMessage(message);
  }

  end() {
    this.send({ do: "rest" });
    clearTimeout(this.#timer);
    this.#worker?.terminate();
    this.#tell = () => {};
  }

  #ready() {
    clearTimeout(this.#timer);
    this.inWorker = true;
    this.#unheard = this.#unheard.filter((m) => m.do === "keep");
  }

  #stay() {
    if (this.#heart) return;
    clearTimeout(this.#timer);
    this.#worker?.terminate();
    this.inWorker = false;
    this.#heart = new Heart((message) => this.#tell(message));
    for (const message of this.#unheard) this.#heart.hear(message);
  }
}

/** A worker's file has to be of the page's own origin. If it is not, a word of script of this page's leads to it. */
function workerAddress(where) {
  const url = new URL(typeof where === "string" ? where : "./streamcount-worker.js", import.meta.url);
  if (url.origin === location.origin) return url;
  return URL.createObjectURL(new Blob([`import ${JSON.stringify(url.href)};`], { type: "text/javascript" }));
}
