// What was logged: asked of the plugin's routes, or of the report that the page is part of.

import { Cache } from "./cache.js";
import { report } from "./host.js";

export const SCHEMA = 1;
const STEP_BYTES = 96 * 2 ** 20;
const MOST_SAMPLES = 1000;
const decoder = new TextDecoder();

export const source = report ?? {
  runs: () => json("runs"),
  step: async (run, step) => (await ask("step", { run, step })).arrayBuffer(),
  picture: (run, sample) => address("picture", { run, sample }),
  scalars: (run, tag) => json("scalars", { run, tag }),
  tree: (run, step) => json("tree", { run, step }),
  predictions: (run) => json("predictions", { run }),
};

function address(route, query = {}) {
  const url = new URL(`../${route}`, import.meta.url);
  url.search = new URLSearchParams(query);
  return url.href;
}

async function ask(route, query) {
  const answer = await fetch(address(route, query));
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.error ?? `Expected an answer for ${route}. Received: status ${answer.status}.`);
}

async function json(route, query) {
  return (await ask(route, query)).json();
}

// All runs by name, checked, and the problems that reading them had.
export async function readRuns() {
  const answer = await source.runs();
  if (answer?.schema !== SCHEMA) throw new Error(wrongSchema("runs", answer));
  const runs = new Map();
  const problems = list(answer.problems).map(sentence);
  for (const [name, run] of Object.entries(answer.runs ?? {})) {
    try {
      runs.set(name, checkedRun(name, run));
    } catch (error) {
      problems.push(`Run ${name || "."}: ${error.message}`);
    }
  }
  return { runs, problems };
}

function wrongSchema(what, answer) {
  return `Expected ${what} of schema ${SCHEMA}. Received: ${answer?.schema}. Use a newer keras_explain, or log again.`;
}

function sentence(problem) {
  if (typeof problem !== "object" || !problem) return String(problem);
  return [problem.run, problem.tag, problem.message].filter((part) => part != null && part !== "").join(": ");
}

function checkedRun(name, run) {
  const trees = list(run.trees).filter(Number.isFinite);
  const header = run.samples ?? (trees.length ? { schema: SCHEMA, count: 0 } : null);
  if (header?.schema !== SCHEMA) throw new Error(wrongSchema("samples", header));
  if (!Number.isInteger(header.count) || header.count < (trees.length ? 0 : 1)) throw new Error(`Expected a number of samples. Received: ${header.count}.`);
  return {
    name,
    samples: {
      id: header.id ?? null,
      kind: ["pictures", "table", "text", "series"].includes(header.kind) ? header.kind : "table",
      count: Math.min(header.count, MOST_SAMPLES),
      labels: list(header.labels),
      classNames: list(header.class_names).map(String),
      shape: list(header.shape).map(Number),
      features: list(header.feature_names).map(String),
      words: list(header.words),
      values: list(header.values),
    },
    methods: list(run.methods).map(String),
    steps: list(run.steps).filter(Number.isFinite),
    trees,
    scalars: list(run.scalars).map(String),
    predictions: run.predictions === true,
    revision: 0, // counts what was added
    generation: 0, // counts what was logged anew
  };
}

export function list(value) {
  return Array.isArray(value) ? value : [];
}

// The name of a class, or its number where it has none.
export function className(run, index) {
  if (index == null) return "?";
  return run.samples.classNames[index] ?? String(index);
}

// The maps of steps, each step asked for once while it stays in the cache.
export class Steps {
  constructor() {
    this.cache = new Cache(STEP_BYTES);
    this.asked = new Map();
  }

  // {maps: method -> sample -> record, problems, wrong, key}; rejects where there is no such step.
  get(run, step) {
    const key = keyOf(run, step);
    const known = this.cache.get(key);
    if (known) return Promise.resolve(known);
    if (!this.asked.has(key)) {
      this.asked.set(key, this.load(run.name, step, key).finally(() => this.asked.delete(key)));
    }
    return this.asked.get(key);
  }

  async load(name, step, key) {
    const bytes = new Uint8Array(await source.step(name, step));
    const parsed = { key, ...parseStep(bytes) };
    this.cache.set(key, parsed, bytes.length);
    return parsed;
  }

  // Asks ahead; what fails is said when it is needed.
  prefetch(run, steps) {
    for (const step of steps) this.get(run, step).catch(() => {});
  }

  forget(run, step) {
    this.cache.delete(keyOf(run, step));
  }
}

// A run that was logged anew is another generation.
function keyOf(run, step) {
  return `${step}\n${run.generation}\n${run.name}`;
}

// An envelope: uint32 length of the header, the header as JSON, the blobs.
export function parseStep(bytes) {
  const length = bytes.length >= 4 ? new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) : -1;
  if (length < 0 || 4 + length > bytes.length) {
    throw new Error(`Expected a header in the answer. Received: ${bytes.length} bytes. Reload the page.`);
  }
  const header = JSON.parse(decoder.decode(bytes.subarray(4, 4 + length)));
  if (header?.schema !== SCHEMA) throw new Error(wrongSchema("maps", header));
  const blobs = cut(bytes.subarray(4 + length), list(header.blobs));
  const maps = new Map();
  for (const record of list(header.maps)) {
    if (!record || typeof record !== "object") continue;
    const method = String(record.method);
    if (!maps.has(method)) maps.set(method, new Map());
    maps.get(method).set(record.sample, checkedRecord(record, blobs));
  }
  const problems = list(header.problems);
  return { maps, problems: problems.map(sentence), wrong: problems.filter((each) => each && typeof each === "object") };
}

function cut(bytes, lengths) {
  let start = 0;
  return lengths.map((length) => {
    const blob = length >= 0 && start + length <= bytes.length ? bytes.subarray(start, start + length) : null;
    start += Number(length) || 0;
    return blob;
  });
}

function checkedRecord(record, blobs) {
  const count = Math.min(Number(record.count) || 0, 4096);
  const images = Array.from({ length: count }, (_, index) => blobs[record.first + index] ?? null);
  return {
    bits: record.bits,
    shape: list(record.shape),
    classes: Array.isArray(record.classes) ? record.classes : null,
    scores: list(record.scores),
    predicted: Number.isInteger(record.predicted) ? record.predicted : null,
    probability: Number.isFinite(record.probability) ? record.probability : null,
    ranges: list(record.range),
    limit: Number.isFinite(record.limit) ? Math.abs(record.limit) : 0,
    signed: record.signed === true,
    samples: record.samples ?? null,
    reliable: list(record.reliable), // empty in logs of before
    gaps: list(record.gap),
    errors: list(record.error),
    images,
  };
}
