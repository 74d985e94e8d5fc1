// The page of decision trees: those of the shown step, or of the newest step before it.

import { element, select } from "./dom.js";
import { list, source, className } from "./data.js";
import { treeSection } from "./tree.js";

export class TreePage {
  // choose(sample): makes a sample the chosen one
  constructor(choose) {
    this.choose = choose;
    this.node = element("div", { class: "trees" });
    this.known = new Map();
  }

  async show(frame) {
    this.frame = frame;
    const parts = await Promise.all(frame.sides.map(({ run }) => this.sections(frame, run)));
    if (frame === this.frame) this.node.replaceChildren(this.chooser(frame), ...parts.flat());
  }

  chooser(frame) {
    const { run } = frame.sides[0];
    if (!run.samples.values.length) return element("p", { class: "hint" }, "Raw values of the samples were not logged, so no path can be shown.");
    const options = Array.from({ length: run.samples.count }, (_, sample) => {
      const label = run.samples.labels[sample];
      return [String(sample), label == null ? `#${sample}` : `#${sample} (${className(run, label)})`];
    });
    const list_ = select("Sample whose path is shown", options, String(frame.values.sample), (value) => this.choose(Number(value)));
    return element("label", { class: "inline" }, "Path of sample ", list_);
  }

  async sections(frame, run) {
    const step = run.trees.findLast((each) => each <= frame.step);
    const name = frame.sides.length > 1 ? `${run.name || "."}: ` : "";
    if (step == null) return [element("p", { class: "hint" }, `${name}no decision tree was logged up to step ${frame.step}. Train with tree regularization to log them.`)];
    try {
      const { trees } = await this.load(run, step);
      const row = list(run.samples.values[frame.values.sample]).flat(Infinity);
      return list(trees).map((tree) => treeSection(tree, row.length ? row : null, `${name}decision tree of step ${step}`));
    } catch (error) {
      return [element("p", { class: "problem", role: "alert" }, `${name}${error.message}`)];
    }
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
