// The dialogs that change a user's limit.

import { attr, h } from "./dom.js";
import { call, find, limitPath, Problem } from "./api.js";
import { ask } from "./dialogs.js";
import { plural } from "./format.js";

const maxLimit = 60;

/** Describes an override, such as "the plan one-tv, with tv 2, until 2027-01-31 00:00:00 UTC". */
export function describe({ limit, plan, limits, until }) {
  const names = Object.keys(limits ?? {}).toSorted().map((name) => `${name} ${limits[name]}`).join(", ");
  const rule = plan ? `the plan ${plan}` : limit === undefined ? "" : `a limit of ${limit}`;
  const numbers = names && (rule ? `with ${names}` : `the limits ${names}`);
  return [rule, numbers, until && `until ${until.slice(0, 10)} ${until.slice(11, 19)} UTC`].filter(Boolean).join(", ");
}

// A condition of a limit, such as "device.type is tv, stb or missing".
function condition([attribute, values]) {
  const list = [values.not ?? values].flat();
  const words = list.map((value) => (value === "" ? "missing" : value));
  const last = words.pop();
  return `${attribute} is ${values.not ? "not " : ""}${words.length ? `${words.join(", ")} or ` : ""}${last}`;
}

/** Describes a further limit of a plan in one sentence. */
export function limitText({ name, limit, count = "streams", per, where = {}, message, observe, onLimit }) {
  const what = limit === 1 && count.endsWith("s") ? count.slice(0, -1) : count;
  const parts = [`${name}: ${limit} ${what}`, per && `for each ${per}`, ...Object.entries(where).map(condition)];
  const notes = [observe && "only observed", onLimit && onLimit !== "deny" && onLimit, message && `“${message}”`].filter(Boolean);
  return parts.filter(Boolean).join(", ") + (notes.length ? ` (${notes.join("; ")})` : "");
}

/**
 * Asks for a limit or plan and sets it as the user's override. Numbers of limits by name and the end
 * of the override stay. Returns whether it was set.
 */
export async function changeLimit(user, { own, streams }) {
  const plans = (await find("/api/v1/plans").catch(() => undefined))?.plans ?? [];
  const number = h("input", {
    type: "number", id: "limit-number", min: 0, max: maxLimit, step: 1, inputmode: "numeric", required: true,
    value: own?.limit ?? streams?.limit ?? 3,
  });
  const plan = h("select", { id: "limit-plan" }, plans.map(({ name, limit, limits }) =>
    h("option", { value: name, selected: own?.plan === name }, `${name}: ${plural(limit, "stream")}` +
      (limits?.length ? `, ${plural(limits.length, "further limit")}` : ""))));
  const further = h("ul", { class: "muted small", id: "limit-further", "aria-live": "polite" });
  const showFurther = () => further.replaceChildren(...(kind === "plan" ? plans.find(({ name }) => name === plan.value)?.limits ?? [] : [])
    .map((l) => h("li", null, limitText(l))));
  plan.addEventListener("change", () => showFurther());
  const choice = (value, label, ...fields) => h("div", { class: "choice" }, h("label", null, h("input", {
    type: "radio", name: "kind", value, checked: value === kind, disabled: value === "plan" && !plans.length,
    onchange: (e) => pick(e.target.value),
  }), label), ...fields);
  let kind = own?.plan ? "plan" : "limit";
  const pick = (value) => {
    kind = value;
    attr(number, "disabled", kind !== "limit");
    attr(plan, "disabled", kind !== "plan");
    showFurther();
  };
  const body = [
    h("fieldset", null, h("legend", { class: "hidden" }, "Limit or plan of this user"),
      choice("limit", "A limit", h("label", { class: "hidden", for: number.id }, "Limit"), number),
      choice("plan", plans.length ? "A plan" : "A plan (none exists)",
        h("label", { class: "hidden", for: plan.id }, "Plan"), plan)),
    further,
    h("p", { class: "muted small" }, "It applies to every start from now on, on every node. Running streams continue, " +
      "even above a lower limit. 0 blocks the user."),
  ];
  const { limits, until } = own ?? {};
  if (limits || until) body.push(h("p", null, `This stays: ${describe({ limits, until })}.`));
  pick(kind);
  return ask({
    title: `Limit of ${user}`, action: "Set", body,
    submit: () => set(user, { ...(kind === "plan" ? { plan: plan.value } : { limit: chosenNumber(number) }), limits, until }),
  });
}

function chosenNumber(field) {
  const n = Number(field.value);
  if (field.value.trim() === "" || !Number.isInteger(n) || n < 0 || n > maxLimit) {
    throw new Error(`A limit is 0 to ${maxLimit}.`);
  }
  return n;
}

const set = (user, rule) => explainUnknown(call("PUT", limitPath(user), rule));

/** Asks for confirmation and removes a user's override. */
export function removeLimit(user, own) {
  return ask({
    title: "Remove the override?", action: "Remove override", danger: true,
    body: [h("p", null, h("strong", null, user), ` has ${describe(own)}. Afterwards the plan of each start applies, or the default.`)],
    submit: () => explainUnknown(call("DELETE", limitPath(user)).catch((problem) => {
      if (problem.status !== 404) throw problem;
    })),
  });
}

// Explains the unknown outcome of a call without an answer.
async function explainUnknown(pending) {
  try {
    await pending;
  } catch (problem) {
    if (problem instanceof Problem && problem.status === 0) {
      throw new Error("The node did not answer, so the change may or may not have been made. Check the limit or try again.");
    }
    throw problem;
  }
}
