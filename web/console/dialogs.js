// Dialogs. The element <dialog> traps the focus, closes on Escape and restores the focus.

import { h, text } from "./dom.js";

let serial = 0;

/**
 * Opens a dialog with a form, and calls submit when the user submits it. If submit throws,
 * the dialog shows the message and stays open. The promise resolves to true after submit
 * has succeeded, and to false if the user closes the dialog.
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
  // Browsers do not fire "cancel" for a second Escape.
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
  // Enter must not trigger an action that cannot be undone.
  if (danger) cancel.focus();
  else form.querySelector("input:not([type=radio]), select, button")?.focus();
  return finished;
}

/** Asks for an API key and returns it. */
export async function askKey(why) {
  const input = h("input", {
    type: "password", id: "key", name: "key", autocomplete: "off", spellcheck: "false", required: true,
  });
  await ask({
    title: "API key", action: "Use key", must: true,
    body: [
      h("p", null, why),
      h("label", { for: "key" }, "Key"), input,
      h("p", { class: "muted small" }, "Reading requires a key with scope read; stopping streams and changing limits requires scope operator. " +
        "The key is stored in this tab until you close the tab or remove the key, and is sent to this node only."),
    ],
    submit: async () => {
      // A header can carry no other characters.
      if (!/^[\x21-\x7e]+$/.test(input.value.trim())) {
        throw new Error("Enter a key: it has no spaces and no letters with accents.");
      }
    },
  });
  return input.value.trim();
}
