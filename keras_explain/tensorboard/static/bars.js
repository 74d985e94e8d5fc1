// A cell for a row of a table: a bar per feature, from zero to the left or to the right.

import { element } from "./dom.js";
import { css } from "./colours.js";
import { list } from "./data.js";
import { isSigned, lookOf, short } from "./frame.js";
import { valueAt } from "./maps.js";

const MOST_FEATURES = 200;

export class BarsCell {
  constructor(frame, column, sample) {
    this.column = column;
    this.parts = column.parts.map(({ side }) => barsOf(frame.sides[side].run, sample));
    this.node = element("span", { class: "stack" }, ...this.parts.map(({ node }) => node));
  }

  paint(frame, shown) {
    shown.forEach(({ map, record, message, note: said }, part) => {
      const { bars, note, rest } = this.parts[part];
      const method = this.column.parts[part].method;
      note.textContent = message ?? said ?? rest;
      const look = map && lookOf(frame, method, record, map, false);
      const middle = isSigned(frame, method) && frame.values.sign === "signed";
      const found = bars.map((_, place) => (map ? valueAt(map, place) : NaN));
      bars.forEach((bar, place) => bar.show(found[place], look, middle, frame.values.sign, Boolean(said)));
      arrange(bars, found, frame.values.order);
    });
  }
}

function barsOf(run, sample) {
  const { features, values } = run.samples;
  const raw = list(values[sample]).flat(Infinity);
  const count = Math.max(features.length, raw.length);
  const bars = Array.from({ length: Math.min(count, MOST_FEATURES) }, (_, place) => new Bar(features[place] ?? `feature ${place}`, raw[place]));
  const note = element("span", { class: "message" });
  const rest = count > MOST_FEATURES ? `${count - MOST_FEATURES} more features are not shown.` : "";
  return { bars, note, rest, node: element("span", { class: "bars" }, ...bars.map(({ node }) => node), note) };
}

class Bar {
  constructor(name, raw) {
    const value = raw == null ? "" : typeof raw === "number" ? short(raw) : String(raw);
    this.bar = element("span", { class: "fill" });
    this.number = element("span", { class: "number" });
    this.track = element("span", { class: "track" }, this.bar);
    const title = `${name} = ${value}`;
    this.node = element("span", { class: "bar", title }, element("span", { class: "feature" }, name), element("span", { class: "raw" }, value), this.track, this.number);
  }

  show(value, look, middle, sign, muted) {
    const shown = sign === "absolute" ? Math.abs(value) : value;
    const colour = look ? look.colour(value) : 0;
    const share = colour && look.limit ? Math.min(1, Math.abs(value) / look.limit) || 0 : 0;
    const width = 100 * share * (middle ? 0.5 : 1);
    this.track.classList.toggle("middle", middle);
    this.bar.style.width = `${width}%`;
    this.bar.style.left = middle ? `${value < 0 ? 50 - width : 50}%` : "0";
    this.bar.style.backgroundColor = look && !muted ? css(colour | 0xc0000000) : "";
    this.number.textContent = Number.isNaN(value) ? "" : short(shown);
  }
}

function arrange(bars, values, order) {
  const places = bars.map((_, place) => place);
  if (order === "size") places.sort((a, b) => (Math.abs(values[b]) || 0) - (Math.abs(values[a]) || 0));
  places.forEach((place, rank) => { bars[place].node.style.order = rank; });
}
