// The page of decision trees: those of the shown step, or of the newest step before it.

import { choices } from "./controls.js";
import { element, offer, select } from "./dom.js";
import { list, source, className } from "./data.js";
import { stepIn } from "./frame.js";
import { TreeSection } from "./tree.js";

const NO_SAMPLES = "Log samples with ExplanationLogger into the same log_dir to see their paths.";

export class TreePage {
  // actions: {choose(sample), size("whole" or "full")}
  constructor({ choose, size }) {
    this.known = new Map();
    this.sections = [];
    this.sample = select("Sample whose path is shown", [], "", (value) => choose(Number(value)));
    this.chooser = element("label", { class: "inline" }, "Path of sample ", this.sample);
    this.hint = element("span", { class: "hint" }, NO_SAMPLES);
    this.size = choices("Size of the trees", [["whole", "Whole tree"], ["full", "Full size"]], size);
    this.place = element("div", { class: "trees" });
    const bar = element("div", { class: "treebar" }, this.chooser, this.hint, element("span", { class: "spacer" }), this.size.node);
    this.node = element("div", { class: "treepage" }, bar, this.place);
  }

  async show(frame) {
    this.frame = frame;
    const found = (await Promise.all(frame.sides.map(({ run }) => this.found(frame, run)))).flat();
    if (frame !== this.frame) return;
    this.showChoices(frame);
    this.place.dataset.fit = frame.values.fit;
    const nodes = found.map((each, index) => (each.message ? message(each) : this.section(index, each)));
    if (nodes.some((node, index) => this.place.children[index] !== node) || this.place.children.length > nodes.length) this.place.replaceChildren(...nodes);
  }

  showChoices({ sides: [{ run }], values }) {
    const { count, labels } = run.samples;
    offer(this.sample, Array.from({ length: count }, (_, sample) => {
      const label = labels[sample];
      return [String(sample), label == null ? `#${sample}` : `#${sample} (${className(run, label)})`];
    }), String(sampleOf(run, values)));
    this.chooser.hidden = !run.samples.values.length || run.samples.kind !== "table";
    this.hint.hidden = count > 0;
    this.size.show(values.fit);
  }

  // The trees of a run: {described, row, note, title}, or {message}.
  async found(frame, run) {
    const step = run.trees.length && run.trees[0] <= frame.step ? stepIn(run.trees, frame.step) : null;
    const name = frame.sides.length > 1 ? `${run.name || "."}: ` : "";
    if (step == null) return [{ message: `${name}no decision tree was logged up to step ${frame.step}. Train with tree regularization to log them.`, role: null }];
    try {
      const { trees, rows } = await this.load(run, step);
      return list(trees).map((described) => ({ described, ...pathOf(run, frame.values, described.tree, rows), title: `${name}Decision tree of step ${step}` }));
    } catch (error) {
      return [{ message: `${name}${error.message}`, role: "alert" }];
    }
  }

  section(index, { described, row, note, title }) {
    this.sections[index] ??= new TreeSection();
    try {
      this.sections[index].show(described, row, note, title);
    } catch (error) {
      return message({ message: error.message, role: "alert" });
    }
    return this.sections[index].node;
  }

  load(run, step) {
    const key = `${step}\n${run.revision}\n${run.name}`;
    if (!this.known.has(key)) {
      if (this.known.size > 50) this.known.clear();
      this.known.set(key, Promise.resolve(source.tree(run.name, step)));
    }
    return this.known.get(key);
  }
}

function message({ message: text, role }) {
  return element("p", { class: role ? "problem" : "hint", role }, text);
}

function sampleOf(run, values) {
  return Math.max(0, Math.min(values.sample, run.samples.count - 1));
}

// The chosen sample's raw values, or a note why its path can't be told.
//   rows: what the tree asks about, as it was logged
function pathOf(run, values, tree, rows) {
  const { count, kind } = run.samples;
  const no = (note) => ({ row: null, note: `${note}: no path is marked.` });
  if (!count) return { row: null, note: null };
  if (typeof rows !== "string") return no("The log does not say what this tree asks about");
  if (rows !== "inputs") return no(`This tree asks about ${rows}, not about the columns of the samples`);
  if (kind !== "table") return no("The samples are no rows of a table, which this tree asks about");
  const row = list(run.samples.values[sampleOf(run, values)]).flat(Infinity);
  const columns = list(tree?.features).length;
  if (row.length !== columns) return no(`This tree asks about ${columns} columns, and the samples have ${row.length}`);
  if (!row.every(Number.isFinite)) return no("Not all values of this sample are numbers");
  return { row, note: null };
}
