// The list of users: those with the most streams, or those whose id begins with the input.

import { $, attr, h, reconcile, text } from "./dom.js";
import { call } from "./api.js";
import { Poll } from "./poll.js";

const maxMatches = 20;
const maxIdBytes = 128;
let open = "";
let asked = 0;

/** Returns why the console cannot show a user id, or "". */
export function invalidReason(user) {
  const bytes = new TextEncoder().encode(user).length;
  if (bytes < 1 || bytes > maxIdBytes || /\p{Cc}|\p{Cs}/u.test(user)) {
    return "A user id has 1 to 128 bytes of UTF-8 and no control characters.";
  }
  return user === "." || user === ".." ? "Browsers cannot send this user id: use the command line." : "";
}

/** Returns the link to a user in this page. */
export const address = (user) => `#user/${encodeURIComponent(user)}`;

/** Builds the list of users and the search field, and keeps the list up to date. */
export function build() {
  const poll = new Poll(5, refresh);
  const field = $("find");
  let typed = 0;
  field.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => poll.now(), 150);
  });
  $("search").addEventListener("submit", (e) => {
    e.preventDefault();
    const user = field.value.trim();
    if (user === "") return;
    const why = invalidReason(user);
    if (why) text($("find-hint"), why);
    else location.hash = address(user);
  });
  // The arrow keys move the focus between the field and the list.
  $("search").addEventListener("keydown", (e) => e.key === "ArrowDown" && move(e, 0));
  $("matches").addEventListener("keydown", (e) => {
    const at = links().indexOf(document.activeElement);
    if (e.key === "ArrowDown") move(e, at + 1);
    if (e.key === "ArrowUp") at === 0 ? field.focus() : move(e, at - 1);
  });
  poll.now();
  return poll;
}

/** Marks the open user in the list. */
export function mark(user) {
  open = user;
  for (const a of links()) attr(a, "aria-current", a.textContent === open ? "true" : null);
}

const links = () => [...$("matches").querySelectorAll("a")];

function move(e, to) {
  const link = links()[to];
  if (!link) return;
  e.preventDefault();
  link.focus();
}

async function refresh() {
  const prefix = $("find").value.trim();
  const mine = ++asked;
  const why = prefix && !/^\.{1,2}$/.test(prefix) ? invalidReason(prefix) : "";
  if (why) {
    show({ users: [] }, why);
    return;
  }
  try {
    const found = await call("GET", `/api/v1/streams/users?prefix=${encodeURIComponent(prefix)}&max=${maxMatches}`);
    if (mine === asked) show(found, hint(prefix, found));
  } catch (problem) {
    text($("find-hint"), problem.message);
  }
}

function hint(prefix, { users, more }) {
  if (!users.length) {
    return prefix ? `No user whose id begins with “${prefix}” has streams. Open shows a user without streams too.`
      : "No users have streams.";
  }
  const which = prefix ? `Users with streams whose id begins with “${prefix}”` : "Users with the most streams";
  return more ? `${which}; there are more` : which;
}

function show({ users }, hintText) {
  text($("find-hint"), hintText);
  attr($("matches"), "hidden", users.length === 0);
  reconcile($("matches").tBodies[0], users, {
    key: ({ userId }) => userId,
    create: ({ userId }) => h("tr", null,
      h("th", { scope: "row", class: "free" }, h("a", { href: address(userId) }, userId)), h("td", { class: "n" })),
    update: (tr, { streams, limit }) => {
      text(tr.lastChild, `${streams} of ${limit}`);
      attr(tr.lastChild, "data-level", streams >= limit ? "warn" : null);
    },
  });
  mark(open);
}
