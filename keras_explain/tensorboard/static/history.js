// Which class was predicted at which step, as far as it is known.

import { list, source } from "./data.js";
import { predictionOf } from "./frame.js";

export class History {
  constructor() {
    this.runs = new Map(); // run -> step -> predicted class per sample
  }

  // Asks for all steps at once, where the log can tell.
  async load(run) {
    if (!run.predictions || !source.predictions) return;
    const { steps, predicted } = await source.predictions(run.name);
    list(steps).forEach((step, index) => this.stepsOf(run.name).set(step, list(predicted?.[index])));
  }

  // Takes what a step that was shown says.
  note(run, step, parsed) {
    if (this.stepsOf(run.name).has(step)) return;
    const classes = Array.from({ length: run.samples.count }, (_, sample) => predictionOf(parsed, sample).predicted);
    this.stepsOf(run.name).set(step, classes);
  }

  stepsOf(name) {
    if (!this.runs.has(name)) this.runs.set(name, new Map());
    return this.runs.get(name);
  }

  // The predicted class, null where it is not known.
  at(run, step, sample) {
    return this.stepsOf(run.name).get(step)?.[sample] ?? null;
  }

  // Whether another class was predicted at the step before.
  changedAt(run, step, sample) {
    const before = run.steps[run.steps.indexOf(step) - 1];
    const [old, now] = [before, step].map((each) => this.at(run, each, sample));
    return old != null && now != null && old !== now;
  }

  // Whether more than one class was ever predicted.
  changedEver(run, sample) {
    const classes = run.steps.map((step) => this.at(run, step, sample)).filter((each) => each != null);
    return new Set(classes).size > 1;
  }
}

// The samples that the filters let through.
export function filtered(frame, history) {
  const { run } = frame.sides[0];
  const { only, outcome } = frame.values;
  const label = (sample) => run.samples.labels[sample];
  const predicted = (sample) => history.at(run, frame.step, sample);
  const passes = {
    all: () => true,
    correct: (sample) => label(sample) != null && label(sample) === predicted(sample),
    wrong: (sample) => label(sample) != null && predicted(sample) != null && label(sample) !== predicted(sample),
    changed: (sample) => history.changedAt(run, frame.step, sample),
    ever: (sample) => history.changedEver(run, sample),
  }[outcome];
  const ofClass = (sample) => only === "" || String(label(sample) ?? predicted(sample)) === only;
  return Array.from({ length: run.samples.count }, (_, sample) => sample).filter((sample) => ofClass(sample) && passes(sample));
}
