// A cell enlarged in a dialog, with the values of all methods under the cursor.

import { element, icon } from "./dom.js";
import { className } from "./data.js";
import { columnsOf, saidOf, short } from "./frame.js";
import { cellOf, paintCell, shownOf } from "./grid.js";
import { valueAt } from "./maps.js";
import { moved, placeName, underPointer } from "./places.js";

export class Zoom {
  constructor() {
    this.title = element("h2", { id: "zoom-title" });
    this.stage = element("div", {
      class: "stage",
      tabindex: "0",
      role: "application",
      "aria-label": "Enlarged map. Arrow keys move the cursor.",
      on: { pointermove: (event) => this.point(event), keydown: (event) => this.key(event) },
    });
    this.where = element("p", { class: "where", "aria-live": "polite" });
    this.table = element("table", { class: "readout" });
    this.scores = element("table", { class: "readout" });
    const close = element("button", { type: "button", class: "round", "aria-label": "Close", title: "Close (Esc)", on: { click: () => this.node.close() } }, icon("close"));
    const side = element("div", { class: "values" }, element("h3", {}, "Under the cursor"), this.where, this.table, element("h3", {}, "Explained"), this.scores);
    this.node = element("dialog", { class: "zoom", "aria-labelledby": "zoom-title" }, element("header", {}, this.title, close), element("div", { class: "both" }, this.stage, side));
    this.node.addEventListener("click", (event) => event.target === this.node && this.node.close());
  }

  async open(frame, sample, column) {
    Object.assign(this, { sample, column, place: null, structure: "" });
    this.node.showModal();
    await this.show(frame);
    this.stage.focus({ preventScroll: true });
  }

  // Follows the page while it is open.
  async show(frame) {
    if (!this.node.open) return;
    const columns = columnsOf(frame);
    const column = frame.page === "maps" && columns[this.column];
    if (!column) return this.node.close();
    const all = await Promise.all(columns.map((each) => shownOf(frame, each, this.sample)));
    this.build(frame, column);
    this.frame = frame;
    this.shown = columns.flatMap((each, index) => all[index].map((part, at) => ({ ...part, ...each.parts[at] })));
    this.map = all[this.column].find(({ map }) => map)?.map;
    const label = frame.sides[0].run.samples.labels[this.sample];
    this.title.textContent = [`Sample ${this.sample}`, label == null ? null : className(frame.sides[0].run, label), column.title, `step ${frame.step}`].filter(Boolean).join(" · ");
    paintCell(this.cell, frame, all[this.column]);
    this.readScores();
    this.read();
  }

  build(frame, column) {
    const { kind } = frame.sides[0].run.samples;
    const structure = JSON.stringify([column, frame.values.mode, this.sample]);
    if (structure === this.structure) return;
    this.structure = structure;
    this.cell = cellOf(frame, column, this.sample, true);
    this.stage.dataset.kind = kind;
    this.stage.dataset.tiles = this.cell.node.querySelectorAll(".tile").length;
    this.stage.replaceChildren(this.cell.node);
    for (const tile of this.cell.node.querySelectorAll(".tile")) tile.append(element("span", { class: "cursor", hidden: true }));
  }

  point(event) {
    if (!this.map) return;
    const place = underPointer(event, this.cell, this.frame, this.map);
    if (place == null) return;
    this.place = place;
    this.read();
  }

  key(event) {
    if (!this.map || !event.key.startsWith("Arrow")) return;
    event.preventDefault();
    event.stopPropagation(); // the slider stays where it is
    const { kind } = this.frame.sides[0].run.samples;
    const start = kind === "pictures" ? Math.floor(this.map.height / 2) * this.map.width + Math.floor(this.map.width / 2) : 0;
    this.place = this.place == null ? start : moved(this.place, event.key, kind, this.map);
    this.read();
  }

  // The values at the cursor's place of all maps that have it.
  read() {
    const { place, map, frame } = this;
    if (place == null || !map) {
      this.where.textContent = "Move the pointer over the map, or use the arrow keys.";
      return this.table.replaceChildren();
    }
    this.where.textContent = placeName(frame.sides[0].run, this.sample, map, place);
    const rows = this.shown.map((part) => {
      if (!part.map || place >= part.map.codes.length) return row(this.nameOf(part), "–");
      const value = valueAt(part.map, place);
      return row(this.nameOf(part), Number.isNaN(value) ? "not a number" : value.toPrecision(4));
    });
    this.table.replaceChildren(...rows);
    this.cursor(place);
  }

  nameOf({ side, method }) {
    return this.frame.sides.length > 1 ? `${method}, ${this.frame.sides[side].run.name || "."}` : method;
  }

  cursor(place) {
    const { width, height } = this.map;
    for (const cursor of this.stage.querySelectorAll(".cursor")) {
      cursor.hidden = false;
      cursor.style.left = `${(((place % width) + 0.5) / width) * 100}%`;
      cursor.style.top = `${((Math.floor(place / width) + 0.5) / height) * 100}%`;
    }
    const items = this.stage.querySelectorAll(".word, .bar");
    items.forEach((item, index) => item.classList.toggle("at", index === place));
  }

  // The classes that were explained, with their scores.
  readScores() {
    const rows = this.shown.flatMap((part) => {
      if (!part.record) return [row(this.nameOf(part), part.message)];
      const { classes, scores } = part.record;
      return scores.slice(0, 20).map((score, index) => {
        const name = classes ? className(part.run, classes[index]) : "score";
        const strong = index === part.index;
        const said = saidOf({ ...part, index, map: strong ? part.map : null });
        return row(`${this.nameOf(part)}: ${name}`, [short(score), said].filter(Boolean).join(" · "), strong);
      });
    });
    this.scores.replaceChildren(...rows);
  }
}

function row(name, value, strong = false) {
  return element("tr", { class: strong ? "strong" : null }, element("th", { scope: "row" }, name), element("td", {}, value));
}
