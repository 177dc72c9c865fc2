// Line charts over time, drawn as SVG. The plot can be read with the pointer, with the
// arrow keys as a slider whose value screen readers read out, and as a table.

import { h, reconcile, s, text } from "./dom.js";
import { clock, minute } from "./format.js";

const margin = { top: 8, right: 10, bottom: 20, left: 40 };
const hour = 3_600_000;
const axis = new Intl.NumberFormat("en", { notation: "compact" });

/** Returns the ticks of an axis from 0 to at least max: three to five round steps. */
export function ticks(max) {
  const rough = Math.max(max, 1e-9) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((m) => m * power >= rough * 0.999);
  const out = [];
  for (let v = 0; out.length === 0 || out.at(-1) < max; v += step) out.push(Number(v.toPrecision(12)));
  return out;
}

/** A TimeChart shows series of samples, each with a time "at" in milliseconds. */
export class TimeChart {
  #series;
  #format;
  #samples = [];
  #chosen = -1; // index of the sample under the pointer
  #host;
  #svg;
  #plot;
  #tip;
  #legend;
  #summary;
  #rows;
  #height;
  #floor;

  /**
   * series are {key, label, cls}. The area of the first series is filled. format formats a
   * value. floor is the minimum of the upper end of the axis.
   */
  constructor(host, { title, series, format, height = 170, floor = 4 }) {
    this.#series = series;
    this.#format = format;
    this.#height = height;
    this.#floor = floor;
    this.#host = host;
    this.#svg = s("svg", { height, "aria-hidden": "true", focusable: "false" });
    this.#tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    this.#plot = h("div", {
      class: "plot", tabindex: 0, role: "slider", "aria-label": `${title}: values over time`,
      "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0, "aria-valuetext": "no values yet",
    }, this.#svg, this.#tip);
    this.#legend = h("ul", { class: "legend" });
    this.#summary = h("p", { class: "muted small" });
    this.#rows = h("tbody");
    host.append(h("figure", { class: "chart" },
      h("figcaption", null, h("h3", null, title), this.#legend), this.#plot,
      h("div", { class: "under" }, this.#summary, h("details", null, h("summary", null, "As a table"), this.#table(title)))));
    this.#listen();
    new ResizeObserver(() => this.#draw()).observe(this.#plot);
  }

  /** Shows samples, oldest first. */
  update(samples, summary) {
    const follow = this.#chosen === this.#samples.length - 1;
    this.#samples = samples;
    if (follow || this.#chosen >= samples.length) this.#chosen = samples.length - 1;
    text(this.#summary, summary);
    this.#draw();
    this.#fillTable();
  }

  #table(title) {
    return h("table", { class: "list" }, h("caption", { class: "hidden" }, `${title}, every five minutes`),
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Time"),
        this.#series.map(({ label }) => h("th", { scope: "col", class: "n" }, label)))), this.#rows);
  }

  #fillTable() {
    const every = new Map();
    for (const sample of this.#samples) every.set(Math.floor(sample.at / 300_000), sample);
    const latest = [...every.values()].reverse();
    reconcile(this.#rows, latest, {
      key: (v) => minute(v.at),
      create: () => h("tr", null, h("th", { scope: "row" }), this.#series.map(() => h("td", { class: "n" }))),
      update: (tr, v) => {
        text(tr.cells[0], minute(v.at));
        this.#series.forEach(({ key }, i) => text(tr.cells[i + 1], this.#format(v[key])));
      },
    });
  }

  #listen() {
    this.#plot.addEventListener("pointermove", (e) => {
      const { x } = this.#scales();
      const at = e.clientX - this.#plot.getBoundingClientRect().left;
      let best = -1;
      this.#samples.forEach((v, i) => {
        if (best < 0 || Math.abs(x(v.at) - at) < Math.abs(x(this.#samples[best].at) - at)) best = i;
      });
      this.#choose(best);
    });
    this.#plot.addEventListener("pointerleave", () => this.#hide());
    this.#plot.addEventListener("blur", () => this.#hide());
    this.#plot.addEventListener("focus", () => {
      if (!this.#plot.matches(":focus-visible")) return;
      this.#choose(this.#chosen < 0 ? this.#samples.length - 1 : this.#chosen);
    });
    this.#plot.addEventListener("keydown", (e) => {
      const last = this.#samples.length - 1;
      const at = this.#chosen < 0 ? last : this.#chosen;
      const to = {
        ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
        PageDown: at - 30, PageUp: at + 30, Home: 0, End: last,
      }[e.key];
      if (to === undefined || last < 0) return;
      e.preventDefault();
      this.#choose(Math.min(last, Math.max(0, to)));
    });
  }

  #choose(i) {
    if (!this.#samples[i]) return;
    this.#chosen = i;
    this.#tip.hidden = false;
    this.#draw();
  }

  #hide() {
    this.#tip.hidden = true;
    this.#draw();
  }

  #scales() {
    const width = this.#plot.clientWidth;
    const to = this.#samples.at(-1)?.at ?? Date.now();
    // The axis spans at least five minutes, also if the node has just started.
    const from = Math.min(to - 300_000, Math.max(to - hour, this.#samples[0]?.at ?? to));
    const most = this.#samples.reduce((m, v) =>
      Math.max(m, ...this.#series.map(({ key }) => v[key] ?? 0)), this.#floor);
    const steps = ticks(most);
    const bottom = this.#height - margin.bottom;
    return {
      width, from, to, steps, bottom,
      x: (at) => margin.left + (at - from) / (to - from) * (width - margin.left - margin.right),
      y: (v) => bottom - v / steps.at(-1) * (bottom - margin.top),
    };
  }

  #draw() {
    const scale = this.#scales();
    if (!scale.width) return;
    this.#svg.setAttribute("width", scale.width);
    this.#svg.replaceChildren(...this.#axes(scale), ...this.#lines(scale), ...this.#cursor(scale));
    this.#drawLegend();
  }

  #axes({ x, y, width, from, to, steps, bottom }) {
    const out = [];
    for (const v of steps) {
      const at = { y1: y(v), y2: y(v), x1: margin.left, x2: width - margin.right };
      out.push(s("line", { class: v === 0 ? "axis" : "grid", ...at }));
      out.push(s("text", { class: "label", x: margin.left - 6, y: y(v) + 4, "text-anchor": "end" }, axis.format(v)));
    }
    const every = [1, 2, 5, 10, 15].map((m) => m * 60_000)
      .find((m) => (to - from) / m * 56 < width - margin.left) ?? 1_800_000;
    for (let at = Math.ceil(from / every) * every; at <= to; at += every) {
      if (x(at) > width - margin.right - 14) break;
      out.push(s("text", { class: "label", x: x(at), y: bottom + 15, "text-anchor": "middle" }, minute(at)));
    }
    return out;
  }

  #lines({ x, y, bottom }) {
    const out = [];
    for (const { key, cls } of this.#series.toReversed()) {
      let path = "";
      for (const piece of pieces(this.#samples)) {
        const points = piece.map((v) => `${x(v.at).toFixed(1)},${y(v[key] ?? 0).toFixed(1)}`);
        path += `M${points.join("L")}`;
        if (piece.length === 1) path += "h0.1";
        if (key === this.#series[0].key) {
          out.unshift(s("path", { class: `area ${cls}`,
            d: `M${x(piece[0].at).toFixed(1)},${bottom}L${points.join("L")}L${x(piece.at(-1).at).toFixed(1)},${bottom}Z` }));
        }
      }
      if (path) out.push(s("path", { class: `line ${cls}`, d: path }));
    }
    return out;
  }

  #cursor({ x, y, bottom, width }) {
    const v = this.#samples[this.#chosen] ?? this.#samples.at(-1);
    this.#speak(v);
    if (!v || this.#tip.hidden) return [];
    const items = this.#series.map(({ key, label, cls }) =>
      h("li", null, h("i", { class: `swatch ${cls}` }), h("span", null, label), h("b", null, this.#format(v[key]))));
    this.#tip.replaceChildren(h("strong", null, clock(v.at)), h("ul", null, items));
    const left = x(v.at) > width / 2;
    this.#tip.style.left = left ? "" : `${x(v.at) + 12}px`;
    this.#tip.style.right = left ? `${width - x(v.at) + 12}px` : "";
    return [
      s("line", { class: "cursor", x1: x(v.at), x2: x(v.at), y1: margin.top, y2: bottom }),
      ...this.#series.map(({ key, cls }) =>
        s("circle", { class: `dot ${cls}`, cx: x(v.at), cy: y(v[key] ?? 0), r: 3.5 })),
    ];
  }

  #speak(v) {
    const at = v ? this.#samples.indexOf(v) : 0;
    this.#plot.setAttribute("aria-valuemax", Math.max(0, this.#samples.length - 1));
    this.#plot.setAttribute("aria-valuenow", at);
    const words = v && this.#series.map(({ key, label }) => `${this.#format(v[key])} ${label}`).join(", ");
    this.#plot.setAttribute("aria-valuetext", v ? `${clock(v.at)}: ${words}` : "no values yet");
  }

  #drawLegend() {
    const last = this.#samples.at(-1);
    reconcile(this.#legend, this.#series, {
      key: ({ key }) => key,
      create: ({ label, cls }) => h("li", null, h("i", { class: `swatch ${cls}` }), label, h("b")),
      update: (li, { key }) => text(li.lastChild, last ? this.#format(last[key]) : ""),
    });
  }
}

/** Splits samples where some are missing, so that no line is drawn across a gap. */
function pieces(samples) {
  const out = [];
  samples.forEach((v, i) => {
    if (i === 0 || v.at - samples[i - 1].at > 35_000) out.push([]);
    out.at(-1).push(v);
  });
  return out;
}

/** Draws a small line without axes, for the recent history of a value. */
export function sparkline(svg, values, cls) {
  const width = 100;
  const height = 24;
  const most = Math.max(1e-9, ...values);
  const points = values.map((v, i) =>
    `${(i / Math.max(1, values.length - 1) * width).toFixed(1)},${(height - 1.5 - v / most * (height - 3)).toFixed(1)}`);
  svg.replaceChildren(s("path", { class: `line ${cls}`, d: points.length > 1 ? `M${points.join("L")}` : "" }));
}
