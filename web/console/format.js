// Formats of numbers and times.

const whole = new Intl.NumberFormat("en");
const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minuteFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** 12,345 */
export const count = (n) => whole.format(n ?? 0);

/** "1 stream", "2 streams" */
export const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;

/** A rate per second: 0, 0.3, 12, 1,240 */
export function rate(n = 0) {
  if (n === 0) return "0";
  if (n < 0.05) return "<0.1";
  return n < 10 ? n.toFixed(1) : whole.format(Math.round(n));
}

/** Milliseconds: 0.84, 12.3, 480 */
export function millis(n = 0) {
  if (n < 1) return n.toFixed(2);
  return n < 100 ? n.toFixed(1) : whole.format(Math.round(n));
}

/** A share of a whole: 4 % */
export function percent(part, all) {
  if (!all) return "0 %";
  const p = part / all * 100;
  return p > 0 && p < 1 ? "<1 %" : `${Math.round(p)} %`;
}

/** Bytes: 12 kB, 3.4 MB */
export function bytes(n = 0) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; n >= 1000 && i < units.length - 1; i++) n /= 1000;
  return `${n < 10 && i > 0 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

/** A duration: 8 s, 4 min, 2 h 5 min, 3 d */
export function span(ms) {
  const sec = Math.max(0, Math.round(ms / 1000));
  if (sec < 60) return `${sec} s`;
  const min = Math.floor(sec / 60);
  if (min < 60) return `${min} min`;
  const hours = Math.floor(min / 60);
  if (hours < 24) return min % 60 ? `${hours} h ${min % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

/** A remaining time in seconds: 84 s, 4:05 min */
export function countdown(ms) {
  const sec = Math.ceil(ms / 1000);
  return sec < 120 ? `${sec} s` : `${Math.floor(sec / 60)}:${String(sec % 60).padStart(2, "0")} min`;
}

/** A time of the API in milliseconds, or undefined. */
export const parse = (at) => (at ? Date.parse(at) : undefined);

/** 14:03:59 */
export const clock = (ms) => clockFormat.format(ms);

/** 14:03 */
export const minute = (ms) => minuteFormat.format(ms);

/** 14:03 today, "3 Nov, 14:03" on another day */
export function moment(ms) {
  return new Date(ms).toDateString() === new Date().toDateString() ? minute(ms) : dayFormat.format(ms);
}
