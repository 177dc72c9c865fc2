// The list of a user's screens. Updates do not move the focus.

import { nameOf, screenText } from "./texts.js";

/** A Screens shows streams in a list element, each with the given buttons. */
export class Screens {
  #list;
  #actions; // [{label, describe, act}], where describe(name) is the label for screen readers
  #rows = new Map(); // by stream id

  constructor(list, actions) {
    this.#list = list;
    this.#actions = actions;
  }

  /**
   * Shows streams as of the service's time now. mine is the id of this screen's stream. For a caller that may
   * only read, streams have handles instead of ids and cannot be stopped.
   */
  show(streams, mine, now) {
    const ids = new Set(streams.map(key));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.item.remove();
      this.#rows.delete(id);
    }
    for (const stream of streams) {
      const row = this.#rows.get(key(stream)) ?? this.#add(stream);
      const isMine = Boolean(stream.id) && stream.id === mine;
      row.item.classList.toggle("mine", isMine);
      setText(row.name, isMine ? `${nameOf(stream)} (this screen)` : nameOf(stream));
      setText(row.text, screenText(stream, now));
      for (const button of row.buttons) button.hidden = !stream.id || stream.id === mine;
    }
  }

  #add(stream) {
    const item = element("li");
    const words = element("div", "words");
    const name = element("strong");
    const what = element("span");
    words.append(name, what);
    const choices = element("div", "choices");
    const buttons = this.#actions.map(({ label, describe, act }) => {
      const button = element("button");
      button.type = "button";
      button.textContent = label;
      button.setAttribute("aria-label", describe(nameOf(stream)));
      button.addEventListener("click", () => act(stream, button));
      return button;
    });
    choices.append(...buttons);
    item.append(words, choices);
    this.#list.append(item);
    const row = { item, name, text: what, buttons };
    this.#rows.set(key(stream), row);
    return row;
  }
}

/** Returns the identity of a stream. */
function key(stream) {
  return stream.id ?? stream.handle;
}

function element(tag, className = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  return made;
}

/** Sets a text if it differs, so that selections and screen readers are not disturbed. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
