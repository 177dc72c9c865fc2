// The heartbeats of one stream, for streamcount.js. It loads this file as a module
// for what both use, and runs it as a Worker named "streamcount", because browsers
// hold up the timers of pages that nobody sees: to one a minute, while a stream may
// want a heartbeat every few seconds. The timers of workers are left alone.

const FIRST_RETRY = 250;
const MOST_PATIENCE = 10_000;

// A machine that slept wakes with its timers late by as long as it slept. Nothing
// waits longer than this without a look at the clock.
const LONGEST_NAP = 10_000;

/**
 * The wait before the n-th retry, in milliseconds, at most limit. Half of it is left
 * to chance, so that players who failed together do not come back together.
 */
export function backoff(n, limit) {
  const most = Math.min(limit, FIRST_RETRY * 2 ** Math.min(n, 20));
  return most / 2 + Math.random() * most / 2;
}

/** A tenth either way is left to chance. */
function around(ms) {
  return ms * (0.9 + Math.random() * 0.2);
}

/**
 * One request, which never throws. No answer has the status 0.
 *
 * @returns {Promise<{status: number, said: any, after: number, at: number, why: string}>}
 *   said is the answer's JSON or null, after the milliseconds of Retry-After, at the
 *   server's clock in milliseconds or NaN, why a word for people
 */
export async function request(url, { method = "POST", body, authorization, patience = MOST_PATIENCE, keepalive } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (authorization) headers.Authorization = authorization;
  // An abort rather than AbortSignal.timeout, which televisions often lack.
  const giveUp = new AbortController();
  const timer = setTimeout(() => giveUp.abort(), patience);
  try {
    const answer = await fetch(url, {
      method, headers, keepalive, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", signal: giveUp.signal,
    });
    const isJSON = /^application\/(problem\+)?json\b/.test(answer.headers.get("Content-Type") ?? "");
    const said = isJSON ? await answer.json().catch(() => null) : null;
    return {
      status: answer.status, said, after: retryAfter(answer.headers.get("Retry-After")),
      at: Date.parse(answer.headers.get("Date") ?? ""), why: said?.title ?? `status ${answer.status}`,
    };
  } catch (err) {
    const why = giveUp.signal.aborted ? "no answer in time" : String(err?.message ?? err);
    return { status: 0, said: null, after: 0, at: NaN, why };
  } finally {
    clearTimeout(timer);
  }
}

function retryAfter(header) {
  if (!header) return 0;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return ms > 0 ? Math.min(ms, 24 * 3600_000) : 0;
}

/**
 * A Heart sends the heartbeats of one stream at a time. It is spoken to by hear, and
 * speaks by the function it is made with:
 *
 *   hear  {do: "keep", url, authorization, ttlSeconds, heartbeatSeconds}
 *         {do: "now"}                            something has changed: look whether one is due
 *         {do: "authorize", authorization}       a new credential: try with that
 *         {do: "rest"}                           no more heartbeats
 *         {do: "alarm", id, ms}                  say so after so long
 *   tell  {said: "renewed", url, stream}         the lease was renewed
 *         {said: "missed", url, status, why}     it was not, which ends nothing
 *         {said: "gone", url, reason, by}        the stream is over
 *         {said: "unauthorized", url, why}       a credential is missing or no longer good
 *         {said: "alarm", id}
 */
export class Heart {
  #tell;
  #order = null; // what to keep alive
  #timer = 0;
  #due = { wall: 0, running: 0 }; // by the clock on the wall, and by the one that is never set
  #failures = 0; // in a row
  #renewed = 0; // when, by performance.now()
  #beating = false;

  constructor(tell) {
    this.#tell = tell;
  }

  hear(message) {
    switch (message.do) {
      case "keep":
        this.#rest();
        this.#order = message;
        this.#failures = 0;
        this.#renewed = performance.now();
        this.#plan(around(this.#pace()));
        return;
      case "now":
        // A whole town comes back at once when its network does.
        if (this.#isLate()) this.#plan(Math.random() * 500);
        return;
      case "authorize":
        if (!this.#order) return;
        this.#order.authorization = message.authorization;
        if (this.#failures < 2) this.#plan(0); // one that is no better waits like any other
        return;
      case "rest":
        this.#rest();
        return;
      case "alarm":
        setTimeout(() => this.#tell({ said: "alarm", id: message.id }), message.ms);
    }
  }

  #rest() {
    clearTimeout(this.#timer);
    this.#order = null;
  }

  /** Milliseconds between heartbeats. A pace that the lease does not survive is no pace. */
  #pace() {
    const { ttlSeconds, heartbeatSeconds } = this.#order;
    const wanted = heartbeatSeconds > 0 && heartbeatSeconds < ttlSeconds ? heartbeatSeconds : ttlSeconds / 3;
    return Math.max(500, wanted * 1000);
  }

  #isLate() {
    return this.#order && !this.#beating &&
      (this.#failures > 0 || performance.now() - this.#renewed > this.#pace() / 2);
  }

  #plan(ms) {
    this.#due = { wall: Date.now() + ms, running: performance.now() + ms };
    this.#nap();
  }

  /** The clock on the wall may be set, the other may stand still while the machine sleeps: whichever says so first. */
  #nap() {
    clearTimeout(this.#timer);
    const left = Math.min(this.#due.wall - Date.now(), this.#due.running - performance.now());
    if (left <= 0) {
      this.#beat();
      return;
    }
    this.#timer = setTimeout(() => this.#nap(), Math.min(left, LONGEST_NAP));
  }

  async #beat() {
    const order = this.#order;
    if (!order || this.#beating) return;
    this.#beating = true;
    const sent = performance.now();
    const answer = await request(order.url, {
      authorization: order.authorization, patience: Math.min(MOST_PATIENCE, order.ttlSeconds * 1000 * 2 / 3),
    });
    this.#beating = false;
    if (order !== this.#order) { // told something else meanwhile
      if (this.#order) this.#nap();
      return;
    }
    this.#judge(order, answer, sent);
  }

  #judge(order, { status, said, after, why }, sent) {
    const { url } = order;
    if (status === 200 && said?.id && !said.degraded) {
      this.#failures = 0;
      this.#renewed = sent;
      this.#tell({ said: "renewed", url, stream: said });
      this.#plan(Math.max(0, around(this.#pace()) - (performance.now() - sent)));
      return;
    }
    if (status === 410 && said?.reason) {
      this.#rest();
      this.#tell({ said: "gone", url, reason: said.reason, by: said.by ?? null });
      return;
    }
    if ((status === 404 || status === 422) && said?.type) { // the service's own word: it does not know this id
      this.#rest();
      this.#tell({ said: "gone", url, reason: "unknown", by: null });
      return;
    }
    // Anything else is no word on the stream, and ends nothing.
    const pace = this.#pace();
    this.#plan(Math.max(backoff(this.#failures++, pace), Math.min(after, pace)));
    if (status === 401) this.#tell({ said: "unauthorized", url, why });
    if (status === 401 && this.#failures === 1) return; // a fresh credential may settle it
    this.#tell({ said: "missed", url, status, why: said?.degraded ? "the service cannot reach its store" : why });
  }
}

if (typeof DedicatedWorkerGlobalScope !== "undefined" && self instanceof DedicatedWorkerGlobalScope &&
    self.name === "streamcount") {
  const heart = new Heart((message) => self.postMessage(message));
  self.onmessage = ({ data }) => heart.hear(data);
  self.postMessage({ said: "ready" });
}
