// The texts of the demo player. Device names are input from other users, so the page uses
// them as text only.

/** Returns a time of day such as 20:31, or "" without a time. */
export function clock(time) {
  const at = new Date(time ?? NaN);
  return isNaN(at) ? "" : at.toLocaleTimeString([], { hour: "numeric", minute: "2-digit" });
}

/** Returns a playing time such as 1:05. */
export function playingTime(ms) {
  const s = Math.floor(ms / 1000);
  return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
}

/** Returns the name of a stream's device. */
export function nameOf(stream) {
  return stream?.device?.name || "an unnamed screen";
}

function quoted(by) {
  return by?.device?.name ? `“${by.device.name}”` : "another screen";
}

/** Returns why a stream ended, as a heading and a sentence. */
export function endingText(reason, by) {
  const when = by?.startedAt ? ` at ${clock(by.startedAt)}` : "";
  switch (reason) {
    case "evicted":
      return ["Another screen took over", `A film was started on ${quoted(by)}${when} in place of the oldest screen, which was this one.`];
    case "replaced":
      return ["Another screen took over", `The film continues on ${quoted(by)}${when && `, since ${clock(by.startedAt)}`}.`];
    case "removed":
      return ["All screens were stopped", "All streams of this user were ended."];
    default:
      return ["Stopped remotely", "This screen was stopped from another device or by an operator."];
  }
}

/** Returns limits as words. */
function limitsText(names) {
  return names.map((name) => (name === "total" ? "the number of screens" : `“${name}”`)).join(" and ");
}

/** Returns for which of the limits that refused a start a screen counts. */
export function blocksText(names) {
  return names.length ? `Counts for ${limitsText(names)}` : "Stopping it makes no room";
}

/**
 * Returns why a plan with several limits refused a start, as a heading and a sentence. several is whether more than
 * one screen has to be stopped.
 */
export function refusalText({ message, limits, evictAfterSeconds }, several) {
  const names = limitsText(limits.map(({ name }) => name));
  if (limits.some(({ limit }) => limit === 0)) return [message || "Not part of this plan", `The plan does not allow this here: ${names}.`];
  const reached = `The ${limits.length > 1 ? "limits" : "limit"} ${names} ${limits.length > 1 ? "are" : "is"} reached.`;
  const next = several ? "Select the screens to stop, for each limit one." : "Choose the screen to stop.";
  const wait = `This screen was replaced a moment ago and can replace another one in ${evictAfterSeconds} s.`;
  return [message || "A limit is reached", `${reached} ${evictAfterSeconds ? wait : next}`];
}

/** Describes a screen in the list. now is the service's time. */
export function screenText(stream, now) {
  const left = Math.ceil((Date.parse(stream.expiresAt) - now) / 1000);
  const silent = stream.ttlSeconds - left;
  const title = stream.content?.title ?? "untitled";
  if (silent <= stream.heartbeatSeconds * 1.5 + 1) return `${title}, since ${clock(stream.startedAt)}`;
  return left > 0 ? `No heartbeat for ${silent} s. Its place is free in ${left} s` : "No heartbeat. Its place is free soon";
}

/** Returns the number of screens with the limit. */
export function placesText(streams, limit) {
  return limit === null ? String(streams) : `${streams} of ${limit}`;
}
