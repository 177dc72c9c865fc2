// Functions that build and change the page. Text is only set as text content, so that
// input from devices and users cannot become markup.

const svgNS = "http://www.w3.org/2000/svg";

/** Returns the element with an id. */
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

/** Creates an element with attributes, listeners ("onclick") and children; strings become text. */
export const h = (tag, attrs, ...children) => fill(document.createElement(tag), attrs, children);

/** Creates an SVG element in the same way. */
export const s = (tag, attrs, ...children) => fill(document.createElementNS(svgNS, tag), attrs, children);

/** Sets an element's text if it differs. */
export function text(el, value) {
  const next = String(value ?? "");
  if (el.textContent !== next) el.textContent = next;
  return el;
}

/** Sets or removes an attribute if it differs. */
export function attr(el, name, value) {
  if (value === undefined || value === null || value === false) el.removeAttribute(name);
  else if (el.getAttribute(name) !== String(value)) el.setAttribute(name, String(value));
}

/**
 * Makes parent have one child per item, in the order of items. A child that exists for an
 * item's key is updated and not replaced, so that focus, selection and scroll position do
 * not change.
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

/** Creates a table row with its cells in the property of, by the names of the columns. */
export function row(columns) {
  const tr = h("tr");
  tr.of = {};
  for (const { name, head, cls } of columns) {
    tr.append(tr.of[name] = h(head ? "th" : "td", { scope: head && "row", class: cls }));
  }
  return tr;
}

/** Creates a table with a caption for screen readers and a head. */
export function table(caption, columns, cls = "list") {
  const body = h("tbody");
  const el = h("table", { class: cls }, h("caption", { class: "hidden" }, caption), h("thead", null, h("tr", null,
    columns.map((c) => h("th", { scope: "col", class: c.cls }, c.title ?? h("span", { class: "hidden" }, c.hidden))))), body);
  return { el, body };
}

/** Sets a cell to two lines, the second one muted. */
export function lines(cell, first, second) {
  if (!cell.lines) cell.append(...(cell.lines = [h("span", { class: "first" }), h("span", { class: "second" })]));
  text(cell.lines[0], first);
  text(cell.lines[1], second);
}

/** Draws a horizontal bar of parts, each with a share of the whole and a class. The text beside it has the same values. */
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

/** Announces a message to screen readers without moving the focus. */
export function announce(message) {
  text($("announcement"), "");
  requestAnimationFrame(() => text($("announcement"), message));
}
