// Dialogs. The browser's own <dialog> keeps the focus inside, closes on Escape and
// gives the focus back.

import { h, text } from "./dom.js";

let serial = 0;

/**
 * Opens a dialog with a form. submit does the deed: what it throws is shown, and
 * the dialog stays. The promise is of true once the deed is done, of false where
 * the dialog was left.
 */
export function ask({ title, body = [], action, danger = false, must = false, submit }) {
  const id = `dialog-${++serial}`;
  const error = h("p", { class: "error", role: "alert" });
  const go = h("button", { class: danger ? "danger" : "primary", type: "submit" }, action);
  const cancel = must ? null : h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const form = h("form", { autocomplete: "off" }, h("h2", { id }, title), ...body, error,
    h("div", { class: "actions" }, cancel, go));
  const dialog = h("dialog", { "aria-labelledby": id }, form);
  let done = false;
  const finished = new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(done);
    });
  });
  dialog.addEventListener("cancel", (e) => { if (must) e.preventDefault(); });
  // Escape twice would close it nevertheless.
  dialog.addEventListener("keydown", (e) => { if (must && e.key === "Escape") e.preventDefault(); });
  form.addEventListener("submit", async (e) => {
    e.preventDefault();
    text(error, "");
    go.disabled = true;
    try {
      await submit();
      done = true;
      dialog.close();
    } catch (problem) {
      text(error, problem.message);
    } finally {
      go.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  // What cannot be undone is not what Enter does first.
  if (danger) cancel.focus();
  else form.querySelector("input:not([type=radio]), select, button")?.focus();
  return finished;
}

/** Asks for an API key; a promise of it. */
export async function askKey(why) {
  const input = h("input", {
    type: "password", id: "key", name: "key", autocomplete: "off", spellcheck: "false", required: true,
  });
  await ask({
    title: "API key", action: "Use key", must: true,
    body: [
      h("p", null, why),
      h("label", { for: "key" }, "Key"), input,
      h("p", { class: "muted small" }, "Scope read is enough to look; stopping streams and changing limits needs operator. " +
        "The key stays in this tab, until it is closed or you forget the key, and is sent to this node alone."),
    ],
    submit: async () => {
      // Anything else could not be sent.
      if (!/^[\x21-\x7e]+$/.test(input.value.trim())) {
        throw new Error("Type or paste a key: it has no spaces, and letters without accents.");
      }
    },
  });
  return input.value.trim();
}
