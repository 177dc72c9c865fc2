// The list of a user's screens, kept up to date without moving what has the focus.

import { doing, nameOf } from "./words.js";

/** A Screens shows streams in a list element, with the buttons that offer says each should have. */
export class Screens {
  #list;
  #offer; // [{label, about, act}], where about(name) is said to screen readers
  #rows = new Map(); // by stream id

  constructor(list, offer) {
    this.#list = list;
    this.#offer = offer;
  }

  /** Shows streams as they are at the service's time now; mine is the id of this screen's. */
  show(streams, mine, now) {
    const ids = new Set(streams.map((s) => s.id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.item.remove();
      this.#rows.delete(id);
    }
    for (const stream of streams) {
      const row = this.#rows.get(stream.id) ?? this.#add(stream);
      row.item.classList.toggle("mine", stream.id === mine);
      setText(row.name, stream.id === mine ? `${nameOf(stream)} (this screen)` : nameOf(stream));
      setText(row.doing, doing(stream, now));
      for (const button of row.buttons) button.hidden = stream.id === mine;
    }
  }

  #add(stream) {
    const item = element("li");
    const words = element("div", "words");
    const name = element("strong");
    const what = element("span");
    words.append(name, what);
    const choices = element("div", "choices");
    const buttons = this.#offer.map(({ label, about, act }) => {
      const button = element("button");
      button.type = "button";
      button.textContent = label;
      button.setAttribute("aria-label", about(nameOf(stream)));
      button.addEventListener("click", () => act(stream, button));
      return button;
    });
    choices.append(...buttons);
    item.append(words, choices);
    this.#list.append(item);
    const row = { item, name, doing: what, buttons };
    this.#rows.set(stream.id, row);
    return row;
  }
}

function element(tag, className = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  return made;
}

/** Leaves the page alone where nothing changed, for the sake of selections and screen readers. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
