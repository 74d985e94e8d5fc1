// What is shown, as a file: a picture of it, or the raw values of its maps.

import { columnsOf } from "./frame.js";
import { shownOf } from "./grid.js";
import { values } from "./maps.js";
import { npy, npz } from "./npz.js";

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export function fileName(frame, ending) {
  const runs = frame.sides.map(({ run }) => run.name || "run").join("_vs_");
  return `explain_${runs}_step_${frame.step}.${ending}`;
}

// All maps that are shown, in the order of the table: {run, method, sample, class, score, ...}.
export async function shownMaps(frame, samples) {
  const found = [];
  for (const column of columnsOf(frame)) {
    for (const sample of samples) {
      const shown = await shownOf(frame, column, sample);
      shown.forEach((part, index) => {
        if (part.map) found.push(described(part, column.parts[index], sample));
      });
    }
  }
  return found;
}

function described({ map, record, index, run }, { method }, sample) {
  return {
    run: run.name,
    method,
    sample,
    class: record.classes?.[index] ?? null,
    score: record.scores[index] ?? null,
    reliable: record.reliable[index] ?? null,
    gap: record.gaps[index] ?? null,
    error: record.errors[index] ?? null,
    predicted: record.predicted,
    label: run.samples.labels[sample] ?? null,
    shape: map.shape,
    values: values(map),
  };
}

export function asJSON(frame, maps) {
  const plain = maps.map((map) => ({ ...map, values: nested([...map.values], map.shape) }));
  return new Blob([JSON.stringify({ step: frame.step, maps: plain })], { type: "application/json" });
}

function nested(flat, shape) {
  if (shape.length < 2) return flat;
  const size = flat.length / shape[0];
  return Array.from({ length: shape[0] }, (_, row) => nested(flat.slice(row * size, (row + 1) * size), shape.slice(1)));
}

// Arrays <method>, <method>.samples, <method>.classes, <method>.scores; <run>.<method> for several runs.
// Maps of different shapes become arrays of their own.
export function asNPZ(frame, maps) {
  const arrays = [["step", npy(Int32Array.of(frame.step), [1])]];
  for (const [name, group] of groups(frame, maps)) {
    const sizes = [group.length, ...group[0].shape];
    const all = new Float32Array(sizes.reduce((product, size) => product * size, 1));
    group.forEach((map, index) => all.set(map.values, index * map.values.length));
    arrays.push(
      [name, npy(all, sizes)],
      [`${name}.samples`, npy(Int32Array.from(group, ({ sample }) => sample), [group.length])],
      [`${name}.classes`, npy(Int32Array.from(group, (map) => map.class ?? -1), [group.length])],
      [`${name}.scores`, npy(Float32Array.from(group, ({ score }) => score ?? NaN), [group.length])],
    );
  }
  return new Blob([npz(arrays)], { type: "application/zip" });
}

function groups(frame, maps) {
  const named = new Map();
  for (const map of maps) {
    const plain = [frame.sides.length > 1 ? map.run || "run" : null, map.method].filter(Boolean).join(".").replace(/[^\w.-]+/g, "_");
    const same = (named.get(plain) ?? [map])[0].shape.join() === map.shape.join();
    const name = same ? plain : `${plain}.${map.sample}`;
    if (!named.has(name)) named.set(name, []);
    named.get(name).push(map);
  }
  return named;
}
