// Charts of the logged scalars, one per name with a line per method, and the step marked in each.

import { breakable, element, svg } from "./dom.js";
import { LINES } from "./colours.js";
import { list, source } from "./data.js";
import { short } from "./frame.js";
import { hasMaps } from "./frames.js";

const WIDTH = 320;
const HEIGHT = 96;
const EDGE = { left: 4, right: 4, top: 6, bottom: 6 };
const MOST_POINTS = 600;
const MOST_LINES = 16;
const FAR = 2; // a chart that goes so many times as far as the steps counts in something else
const AGAIN = /(^|\/)epoch_explain\//; // Keras's callback writes the explainers' scalars once more

export class Charts {
  // go(step): what a click on a chart does
  constructor(go) {
    this.go = go;
    this.charts = [];
    this.ends = [];
    this.structure = "";
    this.place = element("div", { class: "charts" });
    this.node = element("aside", { class: "panel", "aria-label": "Logged scalars" }, this.place);
    this.near = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) if (isIntersecting) this.load(this.charts.find(({ node }) => node === target));
    }, { rootMargin: "200px" });
  }

  show(frame) {
    const runs = frame.sides.map(({ run }) => run);
    const structure = JSON.stringify(runs.map(({ name, scalars, revision }) => [name, scalars, revision]));
    if (structure !== this.structure) this.build(runs, structure);
    for (const chart of this.charts) chart.mark(frame.step);
  }

  build(runs, structure) {
    this.structure = structure;
    this.near.disconnect();
    this.charts = grouped(runs).map(([title, lines]) => new Chart(title, lines, this.go));
    this.ends = extent(runs.flatMap(({ steps, trees }) => [...steps, ...trees]));
    this.place.replaceChildren(...(this.charts.length ? this.charts.map(({ node }) => node) : [nothing(runs)]));
    for (const { node } of this.charts) this.near.observe(node);
  }

  // All charts have one axis, so that a step is at the same place in each.
  async load(chart) {
    if (!chart || !(await chart.load())) return;
    const { ends: [first, last], charts } = this;
    const [left, right] = chart.ends;
    const other = right - left > FAR * Math.max(1, last - first);
    if (!other && left <= right) this.ends = [Math.min(first, left), Math.max(last, right)];
    const same = String(this.ends) === String([first, last]);
    chart.own = other;
    for (const each of same ? [chart] : charts) each.draw(this.ends);
  }
}

function nothing(runs) {
  const trees = runs.every((run) => !hasMaps(run));
  return element("p", { class: "hint" }, trees
    ? "No scalars in this run. keras.callbacks.TensorBoard with the same log_dir writes the loss, and the trees' tree/apl, tree/leaves and tree/fidelity."
    : "No scalars in this run. ExplanationLogger writes drift, concentration and score; keras.callbacks.TensorBoard writes the loss.");
}

// Scalars of one name make a chart: explain/<method>/<name>, or <run>/<name>.
function grouped(runs) {
  const groups = new Map();
  runs.forEach((run, side) => {
    for (const tag of run.scalars) {
      if (AGAIN.test(tag)) continue;
      const [, method, rest] = /^explain\/([^/]+)\/(.+)$/.exec(tag) ?? [];
      const [, place, name] = /^(?:(.*)\/)?([^/]+)$/.exec(tag) ?? [null, "", tag];
      const title = method ? rest : name;
      const label = method ?? place ?? "";
      if (!groups.has(title)) groups.set(title, []);
      groups.get(title).push({ run, side, tag, label: [label, runs.length > 1 ? run.name || "." : ""].filter(Boolean).join(", ") });
    }
  });
  return [...groups];
}

class Chart {
  constructor(title, lines, go) {
    this.lines = lines.slice(0, MOST_LINES);
    const labels = [...new Set(this.lines.map(({ run, label }) => label.replace(`, ${run.name || "."}`, "")))];
    this.lines.forEach((line) => {
      line.colour = LINES[labels.indexOf(line.label.replace(`, ${line.run.name || "."}`, "")) % LINES.length];
      line.value = element("span", { class: "value" });
    });
    this.marker = svg("line", { class: "marker", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "plot", role: "img", "aria-label": `Chart of ${title} over the steps` });
    this.plot.addEventListener("click", (event) => this.range && go(this.stepAt(event)));
    this.limits = element("span", { class: "limits" });
    const rows = this.lines.map(({ label, colour, side, value }) => element(
      "span",
      { class: "line" },
      element("span", { class: side ? "key second" : "key", style: { "--colour": colour } }),
      element("span", { class: "label" }, label),
      value,
    ));
    this.node = element("section", { class: "chart" }, element("h3", {}, element("span", {}, ...breakable(title)), this.limits), this.plot, element("div", { class: "lines" }, ...rows));
    this.started = false;
  }

  // Whether there is something new to draw.
  async load() {
    if (this.started) return false;
    this.started = true;
    await Promise.all(this.lines.map(async (line) => {
      try {
        const { steps, values } = await source.scalars(line.run.name, line.tag);
        line.points = list(steps).map((step, index) => [Number(step), values[index]]).filter(([step]) => Number.isFinite(step));
      } catch (error) {
        line.points = [];
        line.problem = error.message;
      }
    }));
    this.all = this.lines.flatMap(({ points }) => points.filter(([, value]) => Number.isFinite(value)));
    this.ends = extent(this.all.map(([step]) => step));
    return true;
  }

  // ends: the first and the last step of the axis
  draw(ends) {
    const { all } = this;
    if (!all) return;
    const [left, right] = this.own ? this.ends : ends;
    const [low, high] = extent(all.map(([, value]) => value));
    this.range = all.length ? [left, right] : null;
    const x = (step) => EDGE.left + ((step - left) / (right - left || 1)) * (WIDTH - EDGE.left - EDGE.right);
    const y = (value) => HEIGHT - EDGE.bottom - (high > low ? (value - low) / (high - low) : 0.5) * (HEIGHT - EDGE.top - EDGE.bottom);
    this.x = x;
    const grid = [0.25, 0.5, 0.75].map((share) => svg("line", { class: "rule", x1: 0, x2: WIDTH, y1: share * HEIGHT, y2: share * HEIGHT }));
    const paths = this.lines.flatMap(({ points, colour, side }) => [
      svg("path", { class: side ? "curve second" : "curve", stroke: colour, d: path(points, x, y) }),
      svg("path", { class: "dot", stroke: colour, d: dots(points, x, y) }),
    ]);
    this.plot.replaceChildren(...grid, this.marker, ...paths);
    this.limits.textContent = all.length ? `${short(low)} … ${short(high)}` : "no values";
    this.mark(this.step);
  }

  mark(step) {
    this.step = step;
    if (!this.range) return;
    const inside = step >= this.range[0] && step <= this.range[1];
    this.marker.setAttribute("visibility", inside ? "visible" : "hidden");
    if (inside) for (const end of ["x1", "x2"]) this.marker.setAttribute(end, this.x(step));
    for (const { points, value, problem } of this.lines) {
      const at = points.findLast(([each]) => each <= step);
      value.textContent = problem ?? (at ? short(at[1]) : "–");
    }
  }

  stepAt(event) {
    const box = this.plot.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * WIDTH - EDGE.left) / (WIDTH - EDGE.left - EDGE.right);
    return this.range[0] + Math.min(1, Math.max(0, share)) * (this.range[1] - this.range[0]);
  }
}

function extent(numbers) {
  return [numbers.reduce((a, b) => Math.min(a, b), Infinity), numbers.reduce((a, b) => Math.max(a, b), -Infinity)];
}

// Points without a neighbour to draw a line to.
function dots(points, x, y) {
  const known = (at) => Number.isFinite(points[at]?.[1]);
  const alone = points.filter((_, at) => known(at) && !known(at - 1) && !known(at + 1));
  return alone.map(([step, value]) => `M${x(step).toFixed(1)} ${y(value).toFixed(1)}h0`).join("");
}

function path(points, x, y) {
  const every = Math.ceil(points.length / MOST_POINTS);
  let drawing = false;
  return points.filter((_, index) => index % every === 0 || index === points.length - 1).map(([step, value]) => {
    const move = Number.isFinite(value) ? `${drawing ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}` : "";
    drawing = Number.isFinite(value);
    return move;
  }).join("");
}
