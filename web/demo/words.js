// What the demo player says. Names come from other people's devices, so they are
// only ever put on the page as text.

/** A time of day, such as 20:31; "" where there is none. */
export function clock(time) {
  const at = new Date(time ?? NaN);
  return isNaN(at) ? "" : at.toLocaleTimeString([], { hour: "numeric", minute: "2-digit" });
}

/** A playing time, such as 1:05. */
export function played(ms) {
  const s = Math.floor(ms / 1000);
  return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
}

/** What a device is called. */
export function nameOf(stream) {
  return stream?.device?.name || "a screen without a name";
}

function quoted(by) {
  return by?.device?.name ? `“${by.device.name}”` : "another screen";
}

/** Why a stream ended, as a heading and a sentence. */
export function ending(reason, by) {
  const when = by?.startedAt ? ` at ${clock(by.startedAt)}` : "";
  switch (reason) {
    case "evicted":
      return ["Another screen took over", `Playing was started on ${quoted(by)}${when}, instead of on the screen that had ` +
        "been playing longest. That was this one."];
    case "replaced":
      return ["Another screen took over", `Playing goes on on ${quoted(by)}${when && `, since ${clock(by.startedAt)}`}.`];
    case "removed":
      return ["All screens were stopped", "Somebody ended everything that this user was watching."];
    default:
      return ["Stopped from elsewhere", "Somebody stopped this screen."];
  }
}

/** How a screen in the list is doing. now is the service's clock. */
export function doing(stream, now) {
  const left = Math.ceil((Date.parse(stream.expiresAt) - now) / 1000);
  const silent = stream.ttlSeconds - left;
  const title = stream.content?.title ?? "something";
  if (silent <= stream.heartbeatSeconds * 1.5 + 1) return `${title}, since ${clock(stream.startedAt)}`;
  return left > 0 ? `Silent for ${silent} s. Its place comes back in ${left} s` : "Silent. Its place comes back any moment";
}

export function places(streams, limit) {
  return limit === null ? String(streams) : `${streams} of ${limit}`;
}
