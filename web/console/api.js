// Calls of the API, and the API key.

const storage = "streamcount-key";
let key = read();
let offset = 0; // of the node's clock relative to this one, in milliseconds
let asking = null; // a promise of a key while the dialog is open
let askForKey = async () => "";

function read() {
  try { return sessionStorage.getItem(storage) ?? ""; } catch { return ""; }
}

/** A Problem is an error answer, or a missing answer (status 0). */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The node answered ${status}.`);
    this.status = status;
    this.title = body.title ?? "";
    this.body = body;
  }
}

/** Sets the function that asks for a key: it takes a reason and returns a promise of the key. */
export const onKeyNeeded = (ask) => { askForKey = ask; };

/** Returns whether there is a key. */
export const hasKey = () => key !== "";

/** Stores a key until the tab is closed; "" deletes it. */
export function storeKey(next) {
  key = next;
  try {
    if (next) sessionStorage.setItem(storage, next);
    else sessionStorage.removeItem(storage);
  } catch { /* storage is blocked */ }
}

/** Asks for a key. Concurrent calls share one dialog. */
export function needKey(why) {
  asking ??= askForKey(why).then(storeKey).finally(() => { asking = null; });
  return asking;
}

/** Returns the node's time in milliseconds. */
export const now = () => Date.now() + offset;

/** Returns the headers with the credential. */
export const credentials = () => (key ? { Authorization: `Bearer ${key}` } : {});

/** Returns why an answer requires another key, or "". */
export function keyProblem(status, detail, reading) {
  if (status === 401) return hasKey() ? `The key is not valid. ${detail}` : "This node requires an API key.";
  return status === 403 && reading ? "This key may not read statistics. Use one of scope read, operator or all." : "";
}

/** Makes a call and returns the decoded answer. It throws a Problem. */
export async function call(method, path, body) {
  if (asking) await asking;
  const sent = key;
  const began = Date.now();
  let response;
  let answer;
  try {
    response = await fetch(path, {
      method, cache: "no-store", credentials: "omit", redirect: "error",
      headers: { ...credentials(), ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(8000),
    });
    answer = await response.json();
  } catch {
    if (!response?.ok) throw new Problem(response?.status ?? 0, { detail: "The node does not answer." });
    throw new Problem(0, { detail: "The answer could not be read." });
  }
  updateClock(response, began);
  const why = keyProblem(response.status, answer.detail ?? "", method === "GET");
  if (why) {
    // Another call may have received a new key while this call was in flight.
    if (sent === key) await needKey(why);
    return call(method, path, body);
  }
  if (!response.ok) throw new Problem(response.status, answer);
  return answer;
}

/** Makes a GET and returns the answer, or undefined after a 404. */
export async function find(path) {
  try {
    return await call("GET", path);
  } catch (problem) {
    if (problem.status === 404) return undefined;
    throw problem;
  }
}

/** Returns the path of a user's streams, or of one stream. */
export const streamsPath = (user, id) =>
  `/api/v1/streams/users/${encodeURIComponent(user)}` + (id ? `/streams/${encodeURIComponent(id)}` : "");

/** Returns the path of a user's override. */
export const limitPath = (user) => `/api/v1/limits/users/${encodeURIComponent(user)}`;

// The header Date has whole seconds, so an offset of less than two seconds is ignored.
function updateClock(response, began) {
  const there = Date.parse(response.headers.get("Date") ?? "");
  const off = there + 500 - (began + Date.now()) / 2;
  offset = Math.abs(off) > 2000 ? off : 0;
}
