// The heartbeats of one stream. streamcount.js imports this file for the functions that
// both use, and runs it as a Worker named "streamcount". Browsers throttle the timers of
// hidden pages to one per minute, while a stream may need a heartbeat every few seconds.
// They do not throttle the timers of workers.

const FIRST_RETRY = 250;
const REQUEST_TIMEOUT = 10_000;

// After a machine has slept, its timers are late by the time that it slept. So the loop
// checks the clock at least this often.
const MAX_SLEEP = 10_000;

/**
 * Returns the wait before the n-th retry in milliseconds, at most limit. Half of the wait
 * is random, so that players that failed at the same time do not retry at the same time.
 */
export function backoff(n, limit) {
  const max = Math.min(limit, FIRST_RETRY * 2 ** Math.min(n, 20));
  return max / 2 + Math.random() * max / 2;
}

/** Returns ms with a random deviation of up to 10 %. */
function jitter(ms) {
  return ms * (0.9 + Math.random() * 0.2);
}

/**
 * Makes one request. It never throws: without an answer, the status is 0. A redirect is
 * not followed, because old browsers send the credential to its target, and counts as a
 * network error. Cookies are not sent. The body, if any, is JSON.
 *
 * @returns {Promise<{status: number, data: any, retryAfter: number, at: number, why: string, blocked: boolean}>}
 *   data is the JSON object of the answer or null, retryAfter the Retry-After in
 *   milliseconds, at the server's time in milliseconds or NaN, and why a text for logs.
 *   blocked is whether the browser failed the call: without a network, because of a
 *   redirect, or because CORS or the page's policy forbids the call
 */
export async function request(url, { method = "POST", body, authorization, timeout = REQUEST_TIMEOUT, keepalive } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (authorization) headers.Authorization = authorization;
  // Browsers of televisions often lack AbortSignal.timeout.
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), timeout);
  try {
    const answer = await fetch(url, {
      method, headers, keepalive, body,
      cache: "no-store", redirect: "error", credentials: "omit", signal: controller.signal,
    });
    const isJSON = /^application\/(problem\+)?json\b/.test(answer.headers.get("Content-Type") ?? "");
    const json = isJSON ? await answer.json().catch(() => null) : null;
    const data = typeof json === "object" ? json : null;
    return {
      status: answer.status, data, retryAfter: parseRetryAfter(answer.headers.get("Retry-After")), blocked: false,
      at: Date.parse(answer.headers.get("Date") ?? ""), why: String(data?.title ?? `status ${answer.status}`),
    };
  } catch (err) {
    const timedOut = controller.signal.aborted;
    const why = timedOut ? "no answer in time" : String(err?.message ?? err);
    return { status: 0, data: null, retryAfter: 0, at: NaN, why, blocked: !timedOut };
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Returns whether the service rejects the request itself. It may accept the same request
 * later, after the page, its credential or the configuration has been corrected.
 */
export function isRejection(status) {
  return status >= 400 && status < 500 && ![408, 425, 429].includes(status);
}

function parseRetryAfter(header) {
  if (!header) return 0;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return ms > 0 ? Math.min(ms, 24 * 3600_000) : 0;
}

/**
 * A HeartbeatLoop sends the heartbeats of one stream at a time. It receives messages by
 * onMessage and sends messages by the function post:
 *
 *   onMessage  {type: "start", url, authorization, ttlSeconds, heartbeatSeconds}
 *              {type: "wake"}                        send an overdue heartbeat now
 *              {type: "authorize", authorization}    use a new credential
 *              {type: "stop"}                        send no more heartbeats
 *              {type: "timer", id, ms}               post "timer" after ms milliseconds
 *   post       {type: "renewed", url, stream}        the stream was renewed
 *              {type: "missed", url, status, why, problem}  the stream was not renewed, and has not ended
 *              {type: "gone", url, reason, by}       the stream has ended
 *              {type: "unauthorized", url, why}      the credential is missing or not valid
 *              {type: "timer", id}
 */
export class HeartbeatLoop {
  #post;
  #stream = null; // the message "start" of the current stream
  #timer = 0;
  #due = { wall: 0, running: 0 }; // by the wall clock and by the monotonic clock
  #failures = 0; // in a row
  #renewedAt = 0; // when, by performance.now()
  #inFlight = false;

  constructor(post) {
    this.#post = post;
  }

  onMessage(message) {
    switch (message.type) {
      case "start":
        this.#stop();
        this.#stream = message;
        this.#failures = 0;
        this.#renewedAt = performance.now();
        this.#schedule(jitter(this.#interval()));
        return;
      case "wake":
        // Many players wake at the same time when a network recovers.
        if (this.#isOverdue()) this.#schedule(Math.random() * 500);
        return;
      case "authorize":
        if (!this.#stream) return;
        this.#stream.authorization = message.authorization;
        if (this.#failures < 2) this.#schedule(0); // if the new credential fails too, wait as after any failure
        return;
      case "stop":
        this.#stop();
        return;
      case "timer":
        setTimeout(() => this.#post({ type: "timer", id: message.id }), message.ms);
    }
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#stream = null;
  }

  /** Returns the interval of heartbeats in milliseconds. An interval of the TTL or more is not valid. */
  #interval() {
    const { ttlSeconds, heartbeatSeconds } = this.#stream;
    const wanted = heartbeatSeconds > 0 && heartbeatSeconds < ttlSeconds ? heartbeatSeconds : ttlSeconds / 3;
    return Math.max(500, wanted * 1000);
  }

  #isOverdue() {
    return this.#stream && !this.#inFlight &&
      (this.#failures > 0 || performance.now() - this.#renewedAt > this.#interval() / 2);
  }

  #schedule(ms) {
    this.#due = { wall: Date.now() + ms, running: performance.now() + ms };
    this.#sleep();
  }

  /**
   * Waits until the heartbeat is due by either clock: the wall clock may be set, and the
   * monotonic clock may stop while the machine sleeps.
   */
  #sleep() {
    clearTimeout(this.#timer);
    const left = Math.min(this.#due.wall - Date.now(), this.#due.running - performance.now());
    if (left <= 0) {
      this.#send();
      return;
    }
    this.#timer = setTimeout(() => this.#sleep(), Math.min(left, MAX_SLEEP));
  }

  async #send() {
    const stream = this.#stream;
    if (!stream || this.#inFlight) return;
    this.#inFlight = true;
    const sent = performance.now();
    const answer = await request(stream.url, {
      authorization: stream.authorization, timeout: Math.min(REQUEST_TIMEOUT, stream.ttlSeconds * 1000 * 2 / 3),
    });
    this.#inFlight = false;
    if (stream !== this.#stream) { // a newer message has replaced the stream
      if (this.#stream) this.#sleep();
      return;
    }
    this.#handleAnswer(stream, answer, sent);
  }

  #handleAnswer(stream, { status, data, retryAfter, why }, sent) {
    const { url } = stream;
    if (status === 200 && data?.id && !data.degraded) {
      this.#failures = 0;
      this.#renewedAt = sent;
      this.#post({ type: "renewed", url, stream: data });
      this.#schedule(Math.max(0, jitter(this.#interval()) - (performance.now() - sent)));
      return;
    }
    if (status === 410 && (data?.reason || data?.type)) {
      this.#stop();
      this.#post({ type: "gone", url, reason: String(data.reason ?? "ended"), by: data.by ?? null });
      return;
    }
    if ((status === 404 || status === 422) && data?.type) { // a problem of the service: there is no such stream
      this.#stop();
      this.#post({ type: "gone", url, reason: "unknown", by: null });
      return;
    }
    // No other answer ends the stream.
    const interval = this.#interval();
    this.#schedule(Math.max(backoff(this.#failures++, interval), Math.min(retryAfter, interval)));
    if (status === 401) this.#post({ type: "unauthorized", url, why });
    if (status === 401 && this.#failures === 1) return; // a new credential may be enough
    this.#post({ type: "missed", url, status, problem: data, why: data?.degraded ? "the service cannot reach its store" : why });
  }
}

if (typeof DedicatedWorkerGlobalScope !== "undefined" && self instanceof DedicatedWorkerGlobalScope &&
    self.name === "streamcount") {
  const loop = new HeartbeatLoop((message) => self.postMessage(message));
  self.onmessage = ({ data }) => loop.onMessage(data);
  self.postMessage({ type: "ready" });
}
