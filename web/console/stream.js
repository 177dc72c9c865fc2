// The event stream. EventSource cannot send a key, so this module reads the same format
// with fetch. After a lost connection it resumes at the last event.

import { call, credentials, keyProblem, needKey } from "./api.js";

const path = "/api/v1/events";
const maxSilence = 40_000; // ms; the node sends something every 15 s
const maxWait = 10_000;

/** Parses the text of an event stream, which arrives in pieces. */
export class Parser {
  #rest = "";
  #data = [];
  #type = "";
  #id;

  /** The id of the last event, at which a new connection resumes; undefined if no event had an id. */
  cursor;
  /** The minimum wait before a new connection in milliseconds, as the node sends it. */
  retry = 500;

  /** Adds a piece and returns the events that it completes. */
  push(piece) {
    const lines = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    return lines.map((line) => this.#line(line)).filter(Boolean);
  }

  #line(line) {
    if (line === "") {
      const event = this.#data.length ? { id: this.#id, type: this.#type || "message", data: this.#data.join("\n") } : null;
      this.#data = [];
      this.#type = "";
      this.cursor = this.#id;
      return event;
    }
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id") this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
    return null;
  }
}

/** An EventStream follows the events until it is stopped. It reconnects after a lost connection. */
export class EventStream {
  #onEvents;
  #onState;
  #abort = null;
  #cursor = "";
  #minWait = 500; // ms before a new connection
  #wake = () => {};

  /** onEvents receives arrays of decoded events, onState "open", "lost" or "off". */
  constructor({ onEvents, onState }) {
    this.#onEvents = onEvents;
    this.#onState = onState;
  }

  /** Starts following; it does nothing where it does already. */
  start() {
    if (this.#abort) return;
    this.#abort = new AbortController();
    this.#follow(this.#abort.signal);
  }

  /** Stops following. The next start resumes where this one was. */
  stop() {
    this.#abort?.abort();
    this.#abort = null;
    this.#wake();
    this.#onState("off");
  }

  /** Reconnects now, if it waits to reconnect. */
  retry() {
    this.#wake();
  }

  async #follow(signal) {
    for (let wait = this.#minWait; !signal.aborted; wait = Math.min(wait * 2, maxWait)) {
      try {
        await this.#connect(signal, () => { wait = 0; });
      } catch { /* the connection is lost */ }
      if (signal.aborted) return;
      this.#onState("lost");
      await new Promise((resolve) => {
        wait = Math.max(wait, this.#minWait);
        const timer = setTimeout(resolve, wait * (0.75 + Math.random() / 2));
        this.#wake = () => { clearTimeout(timer); resolve(); };
      });
    }
  }

  async #connect(stopped, opened) {
    const dead = new AbortController();
    let watchdog = setTimeout(() => dead.abort(), maxSilence);
    try {
      const response = await fetch(path, {
        cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.any([stopped, dead.signal]),
        headers: {
          Accept: "text/event-stream", ...credentials(),
          ...(this.#cursor ? { "Last-Event-ID": this.#cursor } : {}),
        },
      });
      if (!response.ok) {
        await this.#refused(response);
        return;
      }
      opened();
      this.#onState("open");
      const parser = new Parser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(watchdog);
        watchdog = setTimeout(() => dead.abort(), maxSilence);
        this.#deliver(parser.push(value));
        this.#cursor = parser.cursor ?? this.#cursor;
        this.#minWait = Math.min(parser.retry, maxWait);
      }
    } finally {
      clearTimeout(watchdog);
      dead.abort();
    }
  }

  async #refused(response) {
    const problem = await response.json().catch(() => ({}));
    if (response.status === 422 || response.status === 400) this.#cursor = ""; // the cursor is not valid
    const why = keyProblem(response.status, problem.detail ?? "", true);
    if (why) await call("GET", "/api/v1/stats").catch(() => needKey(why));
  }

  #deliver(raw) {
    const events = [];
    for (const { data } of raw) {
      try { events.push(JSON.parse(data)); } catch { /* not an event */ }
    }
    if (events.length) this.#onEvents(events);
  }
}
