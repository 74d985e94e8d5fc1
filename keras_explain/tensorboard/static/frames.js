// Makes frames from the state: chooses runs and step, and loads what they need.

import { list, source, Steps } from "./data.js";
import { stepIn } from "./frame.js";
import { History } from "./history.js";

export class Frames {
  constructor() {
    this.steps = new Steps();
    this.history = new History();
    this.known = new Map(); // run and revision -> limits by method
    this.signs = new Map(); // run and generation -> signed methods
  }

  // The runs that the state chooses, the first one where it chooses none.
  static runs(values, runs) {
    const run = runs.get(values.run) ?? runs.values().next().value;
    const second = values.versus == null ? null : runs.get(values.versus);
    return second && second !== run ? [run, second] : [run];
  }

  // A run without maps has its trees to show.
  static page(values, chosen) {
    const trees = chosen.some((run) => run.trees.length);
    return trees && (values.page === "tree" || !hasMaps(chosen[0])) ? "tree" : "maps";
  }

  // Maps and trees need not be of the same steps.
  static steps(page, chosen) {
    if (page === "maps") return chosen[0].steps;
    return chosen.find((run) => run.trees.length).trees;
  }

  async make(values, runs) {
    const chosen = Frames.runs(values, runs);
    const page = Frames.page(values, chosen);
    const steps = Frames.steps(page, chosen);
    const step = stepIn(steps, values.step) ?? 0;
    const [sides, limits] = await Promise.all([
      Promise.all(chosen.map((run) => (page === "tree" ? { run } : this.side(run, step)))),
      Promise.all(chosen.map((run) => this.limitsOf(run))),
    ]);
    sides.forEach((side, index) => side.step && this.see(side, step, limits[index]));
    const signed = new Set(chosen.flatMap((run) => [...this.signedOf(run)]));
    return { values, page, steps, step, sides, limits: merged(limits), signed };
  }

  async side(run, step) {
    if (!run.steps.includes(step)) return { run, error: `Run ${run.name || "."} has no step ${step}.` };
    try {
      return { run, step: await this.steps.get(run, step) };
    } catch (error) {
      return { run, error: error.message };
    }
  }

  // A colour limit for all steps: the largest of the logged scales.
  limitsOf(run) {
    const key = `${run.revision}\n${run.name}`;
    if (!this.known.has(key)) this.known.set(key, this.loadLimits(run));
    return this.known.get(key);
  }

  async loadLimits(run) {
    const limits = new Map();
    await Promise.all([this.predictions(run), ...run.methods.map(async (method) => {
      const tag = `explain/${method}/scale`;
      if (!run.scalars.includes(tag)) return;
      const { values } = await source.scalars(run.name, tag);
      limits.set(method, list(values).filter(Number.isFinite).reduce((a, b) => Math.max(a, b), 0));
    }).map((reading) => reading.catch(() => {}))]); // without them the steps seen so far decide
    return limits;
  }

  predictions(run) {
    return this.history.load(run).catch(() => {}); // without them the steps seen so far are known
  }

  // A method that had negative values once keeps its colours.
  signedOf(run) {
    const key = `${run.generation}\n${run.name}`;
    if (!this.signs.has(key)) this.signs.set(key, new Set());
    return this.signs.get(key);
  }

  // What a loaded step tells about the run: predictions, signs, and larger limits.
  see({ run, step: parsed }, step, limits) {
    this.history.note(run, step, parsed);
    for (const [method, records] of parsed.maps) {
      for (const { limit, signed } of records.values()) {
        limits.set(method, Math.max(limits.get(method) ?? 0, limit));
        if (signed) this.signedOf(run).add(method);
      }
    }
  }
}

export function hasMaps(run) {
  return run.samples.count > 0 && run.steps.length > 0;
}

function merged(all) {
  const limits = new Map();
  for (const each of all) for (const [method, limit] of each) limits.set(method, Math.max(limits.get(method) ?? 0, limit));
  return limits;
}
