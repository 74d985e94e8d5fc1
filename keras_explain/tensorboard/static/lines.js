// A cell for a series: its values as lines, on stripes of the map's colours.

import { element } from "./dom.js";
import { css } from "./colours.js";
import { list } from "./data.js";
import { lookOf } from "./frame.js";
import { valueAt } from "./maps.js";

const MOST_CHANNELS = 12;
const HEIGHT = 44; // of a channel, in CSS pixels
const GAP = 4;
const PALE = 0.75;

export class LinesCell {
  constructor(frame, column, sample, large = false) {
    this.column = column;
    this.height = large ? 2 * HEIGHT : HEIGHT;
    this.sample = sample;
    this.canvases = column.parts.map(() => element("canvas", { class: "series" }));
    this.messages = column.parts.map(() => element("span", { class: "message" }));
    this.node = element("span", { class: "stack" }, ...this.canvases.flatMap((canvas, part) => [canvas, this.messages[part]]));
  }

  paint(frame, shown) {
    shown.forEach(({ map: found, record, message, note }, part) => {
      const map = note ? null : found;
      const { side, method } = this.column.parts[part];
      const series = seriesOf(frame.sides[side].run, this.sample);
      const rest = series.length > MOST_CHANNELS ? `${series.length - MOST_CHANNELS} more channels are not shown.` : "";
      this.messages[part].textContent = message ?? note ?? rest;
      const look = map && lookOf(frame, method, record, map, true);
      this.draw(this.canvases[part], series.slice(0, MOST_CHANNELS), map, look);
    });
  }

  draw(canvas, series, map, look) {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.parentElement?.clientWidth || 320;
    const height = series.length * (this.height + GAP);
    canvas.style.height = `${height}px`;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const ink = getComputedStyle(canvas).color;
    series.forEach((channel, index) => {
      const top = index * (this.height + GAP);
      if (map) stripes(context, map, look, index, channel.values.length, { top, width, height: this.height });
      line(context, channel.values, ink, { top, width, height: this.height });
      name(context, channel.name, ink, top);
    });
  }
}

// The channels of a series [T] or [T, F]: {name, values}.
function seriesOf(run, sample) {
  const rows = list(run.samples.values[sample]);
  const count = Array.isArray(rows[0]) ? rows[0].length : 1;
  return Array.from({ length: count }, (_, index) => ({
    name: count > 1 || run.samples.features.length ? run.samples.features[index] ?? `channel ${index}` : "",
    values: rows.map((row) => Number(Array.isArray(row) ? row[index] : row)),
  }));
}

// The place in a map [T] or [T, F] of a channel's moment.
function place(map, channel, moment) {
  const channels = map.shape.length > 1 ? map.shape[1] : 1;
  return moment * channels + (channels > 1 ? channel : 0);
}

function stripes(context, map, look, channel, moments, { top, width, height }) {
  const wide = width / moments;
  for (let moment = 0; moment < moments; moment++) {
    const at = place(map, channel, moment);
    if (at >= map.codes.length) break;
    context.fillStyle = css(look.colour(valueAt(map, at)), PALE);
    context.fillRect(moment * wide, top, wide + 0.3, height);
  }
}

function line(context, values, ink, { top, width, height }) {
  const known = values.filter(Number.isFinite);
  const low = known.reduce((least, value) => Math.min(least, value), Infinity);
  const high = known.reduce((most, value) => Math.max(most, value), -Infinity);
  const wide = width / values.length;
  context.beginPath();
  let drawing = false;
  values.forEach((value, moment) => {
    const y = top + height - 4 - ((value - low) / (high - low || 1)) * (height - 8);
    if (!Number.isFinite(value)) drawing = false;
    else if (drawing) context.lineTo((moment + 0.5) * wide, y);
    else context.moveTo((moment + 0.5) * wide, y);
    drawing = Number.isFinite(value);
  });
  context.strokeStyle = ink;
  context.lineWidth = 1.4;
  context.lineJoin = "round";
  context.stroke();
}

function name(context, text, ink, top) {
  context.font = "10px system-ui, sans-serif";
  context.globalAlpha = 0.75;
  context.fillStyle = ink;
  context.fillText(text, 4, top + 11);
  context.globalAlpha = 1;
}

// The place in the map under a point of the cell: `share` of its width, `y` pixels from its top.
export function placeUnder(cell, frame, map, share, y) {
  const series = seriesOf(frame.sides[cell.column.parts[0].side].run, cell.sample);
  const channel = Math.min(series.length - 1, Math.max(0, Math.floor(y / (cell.height + GAP))));
  const moments = series[channel]?.values.length ?? 0;
  return place(map, channel, Math.min(moments - 1, Math.max(0, Math.floor(share * moments))));
}
