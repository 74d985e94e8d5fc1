// A frame: all that is needed to draw one step. It has
//   values: the state's values          page: "maps" or "tree"
//   steps: those that the page has      step: the one that is shown
//   sides: [{run, step, error}], the run and, where runs are compared, the second one
//   limits: method -> the limit of all steps
//   signed: the methods that had negative values at any step seen so far

import { names } from "./state.js";
import { className } from "./data.js";
import { look } from "./colours.js";
import { limitOf } from "./maps.js";

// The step of a page that a state means: the newest up to the wanted one.
export function stepIn(steps, wanted) {
  return (wanted == null ? steps.at(-1) : steps.findLast((step) => step <= wanted)) ?? steps[0];
}

// The methods that are shown, in the order they were logged.
export function methodsOf(frame) {
  const all = new Set(frame.sides.flatMap(({ run }) => run.methods));
  const hidden = new Set(names(frame.values.hidden));
  return [...all].filter((method) => !hidden.has(method));
}

// The columns: each with a title, and the maps that it shows beside or over each other.
export function columnsOf(frame) {
  const methods = methodsOf(frame);
  const sides = frame.sides.map((_, side) => side);
  const swipe = frame.values.mode === "swipe" && frame.sides[0].run.samples.kind === "pictures";
  if (!swipe || sides.length > 1) {
    return methods.map((method) => ({ title: method, swipe, parts: sides.map((side) => ({ side, method })) }));
  }
  const { left, right } = swipedMethods(frame);
  if (!left) return [];
  return [{ title: `${left} | ${right}`, swipe, parts: [left, right].map((method) => ({ side: 0, method })) }];
}

export function swipedMethods(frame) {
  const methods = frame.sides[0].run.methods;
  const { left, right } = frame.values;
  return {
    left: methods.includes(left) ? left : methods[0],
    right: methods.includes(right) ? right : methods[1] ?? methods[0],
  };
}

// What is known of a part for a sample: {key, record, index, run}, or {message} where it can't be shown.
export function resolve(frame, part, sample) {
  const { run, step, error } = frame.sides[part.side];
  if (error) return { message: error };
  const record = step.maps.get(part.method)?.get(sample);
  if (!record) return { message: problemWith(step, run, part.method, sample) ?? `Nothing was logged at step ${frame.step}.` };
  if (record.samples !== null && run.samples.id !== null && record.samples !== run.samples.id) {
    return { message: "This map is of other samples than those shown. Log into a new directory." };
  }
  const { index, wanted } = classIndex(frame.values.explained, record, run.samples.labels[sample]);
  if (index < 0) return { message: `${wanted == null ? "That class" : className(run, wanted)} was not explained here.` };
  return { key: `${step.key}\n${part.method}\n${sample}`, record, index, run };
}

// Why a map that was logged is not there.
function problemWith(step, run, method, sample) {
  const tag = `keras_explain/maps/${method}/${sample}`;
  return step.wrong.find((problem) => problem.tag === tag && (problem.run ?? run.name) === run.name)?.message;
}

function classIndex(explained, record, label) {
  if (explained === "logged" || !record.classes) return { index: 0 };
  const wanted = { true: label, predicted: record.predicted }[explained] ?? Number(explained);
  return { index: record.classes.indexOf(wanted), wanted };
}

// How a map is coloured: the limit is the same for all runs that are compared.
export function lookOf(frame, method, record, map, overPicture) {
  const { scale, sign, threshold, diverging, sequential } = frame.values;
  const limits = { map: () => limitOf(map), step: () => stepLimit(frame, method), steps: () => frame.limits.get(method) };
  return look({
    limit: limits[scale]() || record.limit || limitOf(map),
    signed: sign === "signed" && isSigned(frame, method),
    threshold: threshold / 100,
    diverging,
    sequential,
  }, overPicture);
}

// The scale of a method's column: {limit, signed, look}; the limit is null where each map has its own.
export function scaleOf(frame, method) {
  const own = frame.values.scale === "map";
  const found = lookOf(frame, method, { limit: 0 }, { low: own ? 1 : 0, high: 0 }, false);
  return { limit: own ? null : found.limit, signed: found.signed, colours: found.colours };
}

export function recordsOf(frame, method) {
  return frame.sides.flatMap(({ step }) => [...(step?.maps.get(method)?.values() ?? [])]);
}

function stepLimit(frame, method) {
  return recordsOf(frame, method).reduce((most, record) => Math.max(most, record.limit), 0);
}

export function isSigned(frame, method) {
  return frame.signed.has(method);
}

// Such as "cat 4.21": what is explained and its score, and what is to be said of the map.
export function caption(part) {
  const { record, index, run } = part;
  const score = record.scores[index];
  const number = Number.isFinite(score) ? short(score) : "";
  const named = record.classes ? `${className(run, record.classes[index])} ${number}`.trim() : number && `score ${number}`;
  return [named, saidOf(part)].filter(Boolean).join(" · ");
}

// What is to be said of a map, or null.
export function saidOf(part) {
  const { record, index } = part;
  const shares = [shareOf("gap", record.gaps[index]), shareOf("error", record.errors[index])];
  return noteOf(part) ?? (shares.filter(Boolean).join(" · ") || null);
}

// What is said in place of a map that can't be told from zero; null of all others.
export function noteOf({ record, index, map }) {
  if (record?.reliable[index] !== false) return null;
  return map && map.low === 0 && map.high === 0 ? "zero everywhere" : "below float precision";
}

const LEAST = 0.1;

// How much of the score a map leaves unexplained, or by which share it is off, where that is much.
function shareOf(name, share) {
  if (name === "error" && share === null) return "error unknown";
  if (!Number.isFinite(share) || share <= LEAST) return null;
  return share < 10 ? `${name} ${Math.round(100 * share)} %` : `${name} > 999 %`;
}

// A number in few characters.
export function short(value) {
  if (value == null || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
  return String(Number(value.toPrecision(3)));
}

// {predicted, probability} of a sample at a step, whichever method logged it.
export function predictionOf(step, sample) {
  for (const records of step?.maps.values() ?? []) {
    const record = records.get(sample);
    if (record?.predicted != null) return record;
  }
  return { predicted: null, probability: null };
}
