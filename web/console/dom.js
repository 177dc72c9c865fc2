// Building and changing the page. Text is only ever set as text, so that what
// comes from devices and users cannot become markup.

const svgNS = "http://www.w3.org/2000/svg";

/** Finds an element by its id. */
export const $ = (id) => document.getElementById(id);

function fill(el, attrs, children) {
  for (const [name, value] of Object.entries(attrs ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) el.addEventListener(name.slice(2), value);
    else el.setAttribute(name, value === true ? "" : String(value));
  }
  el.append(...children.flat().filter((c) => c !== undefined && c !== null && c !== false));
  return el;
}

/** Makes an element with attributes, listeners ("onclick") and children; strings become text. */
export const h = (tag, attrs, ...children) => fill(document.createElement(tag), attrs, children);

/** Makes an SVG element likewise. */
export const s = (tag, attrs, ...children) => fill(document.createElementNS(svgNS, tag), attrs, children);

/** Sets an element's text, touching the page only where it differs. */
export function text(el, value) {
  const next = String(value ?? "");
  if (el.textContent !== next) el.textContent = next;
  return el;
}

/** Sets or removes an attribute, touching the page only where it differs. */
export function attr(el, name, value) {
  if (value === undefined || value === null || value === false) el.removeAttribute(name);
  else if (el.getAttribute(name) !== String(value)) el.setAttribute(name, String(value));
}

/**
 * Makes the children of parent those of items, in their order. What is there for
 * an item's key already is kept and changed, so that focus, selection and scroll
 * position survive.
 */
export function reconcile(parent, items, { key, create, update }) {
  const known = parent.known ??= new Map();
  const seen = new Set();
  let at = parent.firstChild;
  for (const item of items) {
    const k = key(item);
    if (seen.has(k)) continue;
    seen.add(k);
    let el = known.get(k);
    if (!el) known.set(k, el = create(item));
    update?.(el, item);
    if (el === at) at = at.nextSibling;
    else parent.insertBefore(el, at);
  }
  for (const [k, el] of known) {
    if (!seen.has(k)) {
      el.remove();
      known.delete(k);
    }
  }
}

/** A table row whose cells are found again by the names of the columns. */
export function row(columns) {
  const tr = h("tr");
  tr.of = {};
  for (const { name, head, cls } of columns) {
    tr.append(tr.of[name] = h(head ? "th" : "td", { scope: head && "row", class: cls }));
  }
  return tr;
}

/** A table with a caption for screen readers and a head. */
export function table(caption, columns, cls = "list") {
  const body = h("tbody");
  const el = h("table", { class: cls }, h("caption", { class: "hidden" }, caption), h("thead", null, h("tr", null,
    columns.map((c) => h("th", { scope: "col", class: c.cls }, c.title ?? h("span", { class: "hidden" }, c.hidden))))), body);
  return { el, body };
}

/** Two lines in one cell, the second quieter. */
export function lines(cell, first, second) {
  if (!cell.lines) cell.append(...(cell.lines = [h("span", { class: "first" }), h("span", { class: "second" })]));
  text(cell.lines[0], first);
  text(cell.lines[1], second);
}

/** A horizontal bar: parts are shares of the whole, each with a class. It says nothing that the text beside it does not. */
export function bar(cell, parts) {
  const svg = cell.bar ??= cell.appendChild(s("svg", {
    class: "hbar", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true",
  }, s("rect", { class: "track", width: 100, height: 8 })));
  while (svg.childNodes.length < parts.length + 1) svg.append(s("rect", { height: 8 }));
  let x = 0;
  parts.forEach(({ share, cls }, i) => {
    const width = Math.min(100 - x, Math.max(0, share * 100));
    const rect = svg.childNodes[i + 1];
    attr(rect, "x", x.toFixed(2));
    attr(rect, "width", width.toFixed(2));
    attr(rect, "class", cls);
    x += width;
  });
}

/** Says something to screen readers, without taking the focus. */
export function say(what) {
  text($("said"), "");
  requestAnimationFrame(() => text($("said"), what));
}
