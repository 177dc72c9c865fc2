// Finding users: the busiest, or those whose id begins with what is typed.

import { $, attr, h, reconcile, text } from "./dom.js";
import { call } from "./api.js";
import { Poll } from "./poll.js";

const most = 20;
const legal = /^[A-Za-z0-9._~@:|+=-]{1,128}$/;
let open = "";
let asked = 0;

/** Says why a browser cannot ask about a user, or "" if it can. */
export function whyNot(user) {
  if (!legal.test(user)) return "A user id has 1 to 128 characters out of A-Z a-z 0-9 . _ ~ @ : | + = -";
  return user === "." || user === ".." ? "Browsers cannot ask about a user of that id: use the command line." : "";
}

/** The address of a user in this page. */
export const address = (user) => `#user/${encodeURIComponent(user)}`;

/** Keeps the list of users up to date, and the field to find them by. */
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
    const why = whyNot(user);
    if (why) text($("find-hint"), why);
    else location.hash = address(user);
  });
  // Arrows go from the field through the list and back.
  $("search").addEventListener("keydown", (e) => e.key === "ArrowDown" && move(e, 0));
  $("matches").addEventListener("keydown", (e) => {
    const at = links().indexOf(document.activeElement);
    if (e.key === "ArrowDown") move(e, at + 1);
    if (e.key === "ArrowUp") at === 0 ? field.focus() : move(e, at - 1);
  });
  poll.now();
  return poll;
}

/** Marks the user that is open. */
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
  const why = prefix ? whyNot(prefix) : "";
  if (why && !legal.test(prefix)) {
    show({ users: [] }, why);
    return;
  }
  try {
    const found = await call("GET", `/api/v1/streams/users?prefix=${encodeURIComponent(prefix)}&most=${most}`);
    if (mine === asked) show(found, hint(prefix, found));
  } catch (problem) {
    text($("find-hint"), problem.message);
  }
}

function hint(prefix, { users, more }) {
  if (!users.length) {
    return prefix ? `Nobody whose id begins with “${prefix}” is watching. Open shows a user nevertheless.`
      : "Nobody is watching.";
  }
  const which = prefix ? `Watching, and beginning with “${prefix}”` : "The busiest users";
  return more ? `${which}; there are more` : which;
}

function show({ users }, said) {
  text($("find-hint"), said);
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
