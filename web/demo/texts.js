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
