// Makes frames from the state: chooses runs and step, and loads what they need.

import { list, source, Steps } from "./data.js";
import { History } from "./history.js";

export class Frames {
  constructor() {
    this.steps = new Steps();
    this.history = new History();
    this.known = new Map(); // run and generation -> limits by method
  }

  // The runs that the state chooses, the first one where it chooses none.
  static runs(values, runs) {
    const run = runs.get(values.run) ?? runs.values().next().value;
    const second = values.versus == null ? null : runs.get(values.versus);
    return second && second !== run ? [run, second] : [run];
  }

  // The step that the state chooses, else the newest.
  static step(values, run) {
    return run.steps.includes(values.step) ? values.step : run.steps.at(-1) ?? 0;
  }

  async make(values, runs) {
    const chosen = Frames.runs(values, runs);
    const step = Frames.step(values, chosen[0]);
    const [sides, limits] = await Promise.all([
      Promise.all(chosen.map((run) => this.side(run, step))),
      Promise.all(chosen.map((run) => this.limitsOf(run))),
    ]);
    sides.forEach((side, index) => side.step && this.see(side, step, limits[index]));
    return { values, step, sides, limits: merged(limits) };
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

  // What a loaded step tells about the run: predictions, and larger limits.
  see({ run, step: parsed }, step, limits) {
    this.history.note(run, step, parsed);
    for (const [method, records] of parsed.maps) {
      for (const { limit } of records.values()) limits.set(method, Math.max(limits.get(method) ?? 0, limit));
    }
  }
}

function merged(all) {
  const limits = new Map();
  for (const each of all) for (const [method, limit] of each) limits.set(method, Math.max(limits.get(method) ?? 0, limit));
  return limits;
}
