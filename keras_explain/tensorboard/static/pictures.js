// A cell for pictures: the map over the input, beside it, alone, or two maps under a swipe.

import { element } from "./dom.js";
import { source } from "./data.js";
import { lookOf } from "./frame.js";
import { paint } from "./maps.js";

const FINE = 96; // pixels; smaller maps are drawn with sharp edges

export class PictureCell {
  // column: as of `columnsOf`; sample: its number
  constructor(frame, column, sample) {
    this.column = column;
    this.mode = column.swipe ? "swipe" : frame.values.mode;
    this.tileOf = [];
    this.maps = column.parts.map(() => element("canvas", { class: "map", width: 1, height: 1 }));
    this.messages = column.parts.map((_, part) => element("span", { class: "message", "data-part": part }));
    const sides = [...new Set(column.parts.map(({ side }) => side))];
    const kind = this.mode === "side" ? "map" : this.mode;
    const input = this.mode === "side" ? [this.tile("input", frame, 0, sample, [])] : [];
    const tiles = column.swipe
      ? [this.tile("swipe", frame, column.parts[0].side, sample, [0, 1])]
      : [...input, ...sides.map((side) => this.tile(kind, frame, side, sample, [side]))];
    this.node = element("span", { class: "tiles" }, ...tiles);
  }

  tile(kind, frame, side, sample, parts) {
    const picture = kind === "map" ? null : pictureOf(frame.sides[side].run, sample);
    const divider = kind === "swipe" ? element("span", { class: "divider" }) : null;
    const layers = parts.flatMap((part) => [this.maps[part], this.messages[part]]);
    const tile = element("span", { class: `tile ${kind}`, style: { "--aspect": aspectOf(frame.sides[side].run) } }, picture, ...layers, divider);
    for (const part of parts) this.tileOf[part] = tile;
    return tile;
  }

  // shown: per part {map, record, note} or {message}; a note takes the place of the map's colours
  paint(frame, shown) {
    shown.forEach(({ map, record, message, note }, part) => {
      this.messages[part].textContent = message ?? note ?? "";
      this.messages[part].classList.toggle("note", Boolean(note));
      this.maps[part].hidden = !map || Boolean(note);
      if (this.maps[part].hidden) return;
      const over = this.mode === "overlay" || this.mode === "swipe";
      if (map.shape.length > 2) throw new Error(`Expected a map [H, W]. Received: shape ${map.shape.join(" x ")}.`);
      const look = lookOf(frame, this.column.parts[part].method, record, map, over);
      paint(this.maps[part], map, look);
      this.tileOf[part].classList.toggle("fine", map.width >= FINE);
      const heat = frame.values.sequential === "heat";
      this.tileOf[part].classList.toggle("bright", !look.signed && !heat); // its colours stand out from a dark picture
      this.tileOf[part].classList.toggle("pale", !look.signed && heat);
    });
  }
}

// Width by height of the inputs.
function aspectOf(run) {
  const [height, width] = run.samples.shape;
  return height > 0 && width > 0 ? Math.min(4, Math.max(0.25, width / height)) : 1;
}

// The input's picture, or a message in its place.
export function pictureOf(run, sample) {
  const image = element("img", { class: "input", alt: "", draggable: "false", decoding: "async", loading: "lazy" });
  image.addEventListener("error", () => {
    image.replaceWith(element("span", { class: "message" }, "The input's picture is broken or missing."));
  });
  Promise.resolve(source.picture(run.name, sample)).then(
    (url) => { image.src = url; },
    () => image.dispatchEvent(new Event("error")),
  );
  return image;
}
