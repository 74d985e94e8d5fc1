// The places of a map: which one is under the pointer, and how it is called.

import { list } from "./data.js";
import { short } from "./frame.js";
import { placeUnder } from "./lines.js";

// The place under a pointer event in a large cell; null where there is none.
export function underPointer(event, cell, frame, map) {
  const kind = frame.sides[0].run.samples.kind;
  if (kind === "pictures" || kind === "series") {
    const box = event.target.closest(kind === "series" ? "canvas" : ".tile")?.getBoundingClientRect();
    if (!box) return null;
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    if (kind === "series") return placeUnder(cell, frame, map, x / box.width, y);
    return clamp((y / box.height) * map.height, map.height) * map.width + clamp((x / box.width) * map.width, map.width);
  }
  const item = event.target.closest(".word, .bar");
  return item ? [...item.parentElement.querySelectorAll(".word, .bar")].indexOf(item) : null;
}

function clamp(value, size) {
  return Math.min(size - 1, Math.max(0, Math.floor(value)));
}

// How far an arrow key moves.
export function moved(place, key, kind, map) {
  const row = kind === "pictures" ? map.width : map.shape.length > 1 && kind === "series" ? map.shape[1] : 1;
  const [along, across] = kind === "series" ? [row, 1] : [1, row];
  const by = { ArrowLeft: -along, ArrowRight: along, ArrowUp: -across, ArrowDown: across }[key];
  const next = place + by;
  return next >= 0 && next < map.codes.length ? next : place;
}

// Such as "x 12, y 40", "word 3: good" or "age = 39".
export function placeName(run, sample, map, place) {
  const { kind, words, features, values } = run.samples;
  if (kind === "pictures") return `x ${place % map.width}, y ${Math.floor(place / map.width)}`;
  if (kind === "text") return `word ${place}: ${list(words[sample])[place] ?? ""}`;
  if (kind === "table") {
    const raw = list(values[sample]).flat(Infinity)[place];
    return `${features[place] ?? `feature ${place}`} = ${typeof raw === "number" ? short(raw) : raw ?? "?"}`;
  }
  const channels = map.shape.length > 1 ? map.shape[1] : 1;
  const raw = list(values[sample]).flat(Infinity)[place];
  const channel = channels > 1 ? `${features[place % channels] ?? `channel ${place % channels}`}, ` : "";
  return `${channel}moment ${Math.floor(place / channels)}: ${short(raw)}`;
}
