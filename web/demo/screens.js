// The list of a user's screens. Updates do not move the focus.

import { nameOf, screenText } from "./texts.js";

/** A Screens shows streams in a list element, each with the given buttons. */
export class Screens {
  #list;
  // [{label, describe, act, when}]: describe(name) is the label for screen readers, and when(stream) whether
  // the stream has the button, by default true.
  #actions;
  #options;
  #rows = new Map(); // by stream id

  /**
   * options are {note, selectable, onSelect}: note(stream) is a remark on a stream, selectable(stream) whether it
   * has a checkbox, and onSelect is called after a change of one.
   */
  constructor(list, actions, options = {}) {
    this.#list = list;
    this.#actions = actions;
    this.#options = { note: () => "", selectable: () => false, onSelect: () => {}, ...options };
  }

  /** The ids of the streams that are selected. */
  get selected() {
    return [...this.#rows].filter(([, row]) => !row.box.hidden && row.box.checked).map(([id]) => id);
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
      setText(row.note, this.#options.note(stream));
      row.note.hidden = row.note.textContent === "";
      const mayAct = Boolean(stream.id) && stream.id !== mine;
      row.box.hidden = !mayAct || !this.#options.selectable(stream);
      this.#actions.forEach(({ when }, i) => { row.buttons[i].hidden = !mayAct || Boolean(when) && !when(stream); });
    }
  }

  #add(stream) {
    const item = element("li");
    const words = element("div", "words");
    const name = element("strong");
    const what = element("span");
    const note = element("em");
    words.append(name, what, note);
    const box = element("input");
    box.type = "checkbox";
    box.setAttribute("aria-label", `Select ${nameOf(stream)}`);
    box.addEventListener("change", () => this.#options.onSelect());
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
    item.append(box, words, choices);
    this.#list.append(item);
    const row = { item, name, text: what, note, box, buttons };
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
