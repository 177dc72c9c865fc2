// The dialogs that change what a user may have.

import { attr, h } from "./dom.js";
import { call, find, limitPath, Problem } from "./api.js";
import { ask } from "./dialogs.js";
import { plural } from "./format.js";

const mostStreams = 60;

/** Asks for a user's own limit or plan, and sets it. The promise is of whether it was. */
export async function changeLimit(user, { own, streams }) {
  const plans = (await find("/api/v1/plans").catch(() => undefined))?.plans ?? [];
  const number = h("input", {
    type: "number", id: "limit-number", min: 0, max: mostStreams, step: 1, inputmode: "numeric", required: true,
    value: own?.limit ?? streams?.limit ?? 3,
  });
  const plan = h("select", { id: "limit-plan" }, plans.map(({ name, limit }) =>
    h("option", { value: name, selected: own?.plan === name }, `${name}: ${plural(limit, "stream")}`)));
  const choice = (value, label, ...fields) => h("div", { class: "choice" }, h("label", null, h("input", {
    type: "radio", name: "kind", value, checked: value === kind, disabled: value === "plan" && !plans.length,
    onchange: (e) => pick(e.target.value),
  }), label), ...fields);
  let kind = own?.plan ? "plan" : "limit";
  const pick = (value) => {
    kind = value;
    attr(number, "disabled", kind !== "limit");
    attr(plan, "disabled", kind !== "plan");
  };
  const body = [
    h("fieldset", null, h("legend", { class: "hidden" }, "What holds for this user"),
      choice("limit", "A limit of its own", h("label", { class: "hidden", for: number.id }, "Limit"), number),
      choice("plan", plans.length ? "A plan" : "A plan (none exists)",
        h("label", { class: "hidden", for: plan.id }, "Plan"), plan)),
    h("p", { class: "muted small" }, "It holds for every start from now on, on every node. Streams that run go on, " +
      "also above a lower limit; 0 blocks."),
  ];
  pick(kind);
  return ask({
    title: `Limit of ${user}`, action: "Set", body,
    submit: () => set(user, kind === "plan" ? { plan: plan.value } : { limit: chosenNumber(number) }),
  });
}

function chosenNumber(field) {
  const n = Number(field.value);
  if (field.value.trim() === "" || !Number.isInteger(n) || n < 0 || n > mostStreams) {
    throw new Error(`A limit is 0 to ${mostStreams}.`);
  }
  return n;
}

const set = (user, rule) => sure(call("PUT", limitPath(user), rule));

/** Asks whether what a user has of its own is to go, and removes it. */
export function removeLimit(user, own) {
  return ask({
    title: "Remove the override?", action: "Remove override", danger: true,
    body: [h("p", null, own?.plan ? `The plan ${own.plan}` : `The limit of ${own?.limit}`, " of ", h("strong", null, user),
      ": from then on the start's plan holds, or the default.")],
    submit: () => sure(call("DELETE", limitPath(user)).catch((problem) => {
      if (problem.status !== 404) throw problem;
    })),
  });
}

async function sure(doing) {
  try {
    await doing;
  } catch (problem) {
    if (problem instanceof Problem && problem.status === 0) {
      throw new Error("The node did not answer: it may be set, or not. Look again, or try again.");
    }
    throw problem;
  }
}
