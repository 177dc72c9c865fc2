// Calls of the API, and the key that they carry.

const storage = "streamcount-key";
let key = read();
let offset = 0; // how far the node's clock is ahead of this one, in milliseconds
let asking = null; // a promise of a key, while somebody is asked for it
let askForKey = async () => "";

function read() {
  try { return sessionStorage.getItem(storage) ?? ""; } catch { return ""; }
}

/** A Problem is an answer that is an error, or none at all (status 0). */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The node answered ${status}.`);
    this.status = status;
    this.title = body.title ?? "";
    this.body = body;
  }
}

/** Says how a key is asked for: a function from a reason to a promise of the key. */
export const onKeyNeeded = (ask) => { askForKey = ask; };

/** Reports whether there is a key. */
export const hasKey = () => key !== "";

/** Keeps a key for as long as the tab lives; "" forgets it. */
export function keep(next) {
  key = next;
  try {
    if (next) sessionStorage.setItem(storage, next);
    else sessionStorage.removeItem(storage);
  } catch { /* memory will do */ }
}

/** Asks for a key, once however many calls need it. */
export function needKey(why) {
  asking ??= askForKey(why).then(keep).finally(() => { asking = null; });
  return asking;
}

/** The time on the node, as far as it is known. */
export const now = () => Date.now() + offset;

/** The headers that a request has to carry. */
export const credentials = () => (key ? { Authorization: `Bearer ${key}` } : {});

/** Says why a key is needed for what was answered, or "" if it is not. */
export function keyProblem(status, detail, reading) {
  if (status === 401) return hasKey() ? `The key was refused. ${detail}` : "This node asks who you are.";
  return status === 403 && reading ? "This key may not read statistics. Use one of scope read, operator or all." : "";
}

/** Makes a call, and returns the decoded answer. It throws a Problem. */
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
  noteClock(response, began);
  const why = keyProblem(response.status, answer.detail ?? "", method === "GET");
  if (why) {
    // Others may have asked for one and got it while this call was under way.
    if (sent === key) await needKey(why);
    return call(method, path, body);
  }
  if (!response.ok) throw new Problem(response.status, answer);
  return answer;
}

/** Makes a GET, and returns undefined where there is nothing (404). */
export async function find(path) {
  try {
    return await call("GET", path);
  } catch (problem) {
    if (problem.status === 404) return undefined;
    throw problem;
  }
}

/** The path of a user's streams, or of one of them. */
export const streamsPath = (user, id) =>
  `/api/v1/streams/users/${encodeURIComponent(user)}` + (id ? `/streams/${encodeURIComponent(id)}` : "");

/** The path of what a user has of its own. */
export const limitPath = (user) => `/api/v1/limits/users/${encodeURIComponent(user)}`;

// A node's Date has whole seconds: less than two may be nothing.
function noteClock(response, began) {
  const there = Date.parse(response.headers.get("Date") ?? "");
  const off = there + 500 - (began + Date.now()) / 2;
  offset = Math.abs(off) > 2000 ? off : 0;
}
