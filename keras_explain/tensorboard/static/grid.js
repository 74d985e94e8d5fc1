// The table of maps: a row per sample, a column per method. Only rows near the window are drawn.

import { BarsCell } from "./bars.js";
import { breakable, element } from "./dom.js";
import { className } from "./data.js";
import { ramp } from "./colours.js";
import { caption, columnsOf, noteOf, predictionOf, resolve, scaleOf, short } from "./frame.js";
import { LinesCell } from "./lines.js";
import { cached, decode, hasNumbers } from "./maps.js";
import { PictureCell, pictureOf } from "./pictures.js";
import { TextCell } from "./text.js";

const CELLS = { pictures: PictureCell, table: BarsCell, text: TextCell, series: LinesCell };
const MARGIN = "300px 0px";

export function cellOf(frame, column, sample, large) {
  return new CELLS[frame.sides[0].run.samples.kind](frame, column, sample, large);
}

// What a cell paints, per part: {map, record, ...} or {message}. Decodes what is not in the cache.
export async function shownOf(frame, column, sample) {
  return Promise.all(column.parts.map(async (part) => {
    const found = resolve(frame, part, sample);
    if (found.message) return found;
    try {
      const map = cached(found.key, found.index) ?? (await decode(found.key, found.record, found.index));
      return { ...found, map };
    } catch (error) {
      return { message: error.message };
    }
  }));
}

// Paints, and puts a message where that can't be done.
export function paintCell(cell, frame, shown) {
  try {
    cell.paint(frame, shown.map((part) => (isEmpty(part) ? { message: "No value of this map is a number." } : { ...part, note: noteOf(part) })));
  } catch (error) {
    cell.paint(frame, shown.map(() => ({ message: error.message })));
  }
}

function isEmpty({ map }) {
  return map != null && !hasNumbers(map);
}

export class Grid {
  // actions: {zoom(sample, column number), choose(sample), go(step)}
  constructor(history, actions) {
    this.history = history;
    this.actions = actions;
    this.rows = new Map();
    this.scales = [];
    this.structure = "";
    this.head = element("thead");
    this.body = element("tbody");
    this.table = element("table", { class: "grid", "aria-label": "Maps: a row per sample, a column per method" }, this.head, this.body);
    this.node = element("div", { class: "gridbox" }, this.table);
    this.near = new IntersectionObserver((entries) => this.seen(entries), { rootMargin: MARGIN });
  }

  // Draws a frame; resolves when the rows near the window are painted.
  async show(frame, samples) {
    this.frame = frame;
    this.build(frame, samples);
    for (const scale of this.scales) scale.show(frame);
    const wanted = [...this.rows.values()].filter((row) => row.near);
    await this.paint(frame, wanted);
  }

  // Unpacks what another frame will show of these rows, in idle time.
  async warm(frame) {
    for (const row of [...this.rows.values()].filter(({ near }) => near)) {
      await new Promise((resolve) => requestIdleCallback(resolve, { timeout: 500 }));
      if (!this.rows.has(row.sample)) return;
      await row.prepare(frame);
    }
  }

  // Paints the rows that are out of sight too, with their pictures.
  async paintAll() {
    const pictures = [...this.body.querySelectorAll("img")];
    for (const picture of pictures) picture.loading = "eager";
    await Promise.allSettled(pictures.map((picture) => picture.decode()));
    await this.paint(this.frame, [...this.rows.values()]);
  }

  // All pictures of a step are unpacked first, so that they change in one go.
  async paint(frame, rows) {
    const shown = await Promise.all(rows.map((row) => row.prepare(frame)));
    if (frame !== this.frame) return;
    const style = getComputedStyle(this.table); // read before anything changes, and once
    const inks = Object.fromEntries(["right", "wrong", "ink"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
    rows.forEach((row, index) => row.paint(frame, shown[index], inks));
  }

  seen(entries) {
    const rows = [];
    for (const { target, isIntersecting } of entries) {
      const row = this.rows.get(Number(target.dataset.sample));
      if (row?.node !== target) continue;
      row.near = isIntersecting;
      if (isIntersecting && row.painted !== this.frame) rows.push(row);
    }
    this.paint(this.frame, rows);
  }

  // Makes the rows anew where something other than the step or the colours has changed.
  build(frame, samples) {
    const columns = columnsOf(frame);
    const { mode, size } = frame.values;
    const structure = JSON.stringify([columns, mode, size, samples, frame.sides.map(({ run }) => [run.name, run.revision])]);
    if (structure === this.structure) return;
    this.structure = structure;
    this.near.disconnect();
    Object.assign(this.table.dataset, { kind: frame.sides[0].run.samples.kind, size, mode });
    const tiles = Math.max(1, ...columns.map(({ parts, swipe }) => (swipe ? 1 : parts.length + Number(mode === "side"))));
    this.node.style.setProperty("--columns", Math.max(1, columns.length));
    this.node.style.setProperty("--tiles", this.table.dataset.kind === "pictures" ? tiles : 1);
    this.head.replaceChildren(this.heading(frame, columns));
    this.rows = new Map(samples.map((sample, place) => [sample, new Row(this, frame, columns, sample, place)]));
    this.body.replaceChildren(...[...this.rows.values()].map(({ node }) => node));
    for (const { node } of this.rows.values()) this.near.observe(node);
  }

  heading(frame, columns) {
    const scales = columns.map(({ parts }) => [...new Set(parts.map(({ method }) => method))].map((method) => new Scale(method)));
    this.scales = scales.flat();
    const runs = frame.sides.map(({ run }) => run.name || ".").join(" | ");
    return element(
      "tr",
      {},
      element("th", { scope: "col", class: "corner" }, "sample"),
      ...columns.map(({ title, parts }, column) => element(
        "th",
        { scope: "col" },
        element("span", { class: "title" }, ...breakable(title)),
        parts.length > 1 && parts[0].side !== parts[1].side ? element("span", { class: "runs" }, runs) : null,
        element("span", { class: "scales" }, ...scales[column].map(({ node }) => node)),
      )),
    );
  }
}

// The colour bar of a method, with the values at its ends.
class Scale {
  constructor(method) {
    this.method = method;
    this.bar = element("canvas", { class: "ramp", "aria-hidden": "true" });
    this.low = element("span", {});
    this.high = element("span", {});
    this.node = element("span", { class: "scale" }, this.low, this.bar, this.high);
  }

  show(frame) {
    const { limit, signed, colours } = scaleOf(frame, this.method);
    if (this.colours !== colours) ramp(this.bar, (this.colours = colours));
    this.low.textContent = limit == null ? (signed ? "−max" : "0") : signed ? short(-limit) : "0";
    this.high.textContent = limit == null ? "max" : short(limit);
  }
}

class Row {
  constructor(grid, frame, columns, sample, place) {
    Object.assign(this, { grid, columns, sample, near: place < 4, painted: null });
    this.header = new SampleHeader(grid, frame, sample);
    this.cells = columns.map((column) => cellOf(frame, column, sample));
    this.captions = columns.map(() => element("span", { class: "caption" }));
    this.buttons = this.cells.map((cell, index) => element(
      "button",
      { type: "button", class: "cell", on: { click: () => grid.actions.zoom(sample, index) } },
      cell.node,
      this.captions[index],
    ));
    this.node = element("tr", { "data-sample": sample }, this.header.node, ...this.buttons.map((button) => element("td", {}, button)));
  }

  prepare(frame) {
    return Promise.all(this.columns.map((column) => shownOf(frame, column, this.sample)));
  }

  paint(frame, shown, inks) {
    this.painted = frame;
    this.header.show(frame, inks);
    this.cells.forEach((cell, index) => {
      paintCell(cell, frame, shown[index]);
      const words = shown[index].map((part) => part.message ?? `${caption(part)}${isEmpty(part) ? ", no number" : ""}`);
      const text = [...new Set(words)].join(" | ");
      this.captions[index].textContent = shown[index].every((part) => part.message) ? "" : text;
      this.buttons[index].setAttribute("aria-label", `Sample ${this.sample}, ${this.columns[index].title}, step ${frame.step}: ${text}. Enlarge`);
    });
  }
}

// The left of a row: the input, its class, what is predicted, and how that has changed.
class SampleHeader {
  constructor(grid, frame, sample) {
    const { run } = frame.sides[0];
    const label = run.samples.labels[sample];
    Object.assign(this, { grid, sample });
    this.predicted = element("span", { class: "predicted" });
    this.mind = element("canvas", { class: "mind", width: 1, height: 1, role: "img", on: { click: (event) => this.go(event) } });
    const name = element("button", { type: "button", class: "choose", "aria-label": `Choose sample ${sample}`, on: { click: () => grid.actions.choose(sample) } }, `#${sample}`);
    this.choose = name;
    const picture = run.samples.kind === "pictures" ? pictureOf(run, sample) : null;
    const truth = label == null ? null : element("span", { class: "truth", title: `true class: ${className(run, label)}` }, className(run, label));
    this.node = element("th", { scope: "row", class: "sample" }, element("span", { class: "about" }, name, picture, truth, this.predicted, this.mind));
  }

  show(frame, inks) {
    const chosen = frame.values.sample === this.sample;
    this.choose.setAttribute("aria-pressed", chosen);
    this.node.parentElement?.classList.toggle("chosen", chosen);
    const several = frame.sides.length > 1;
    this.predicted.replaceChildren(...frame.sides.map(({ run, step }) => this.verdict(frame, run, step, several)));
    this.drawMind(frame, inks);
  }

  verdict(frame, run, step, several) {
    const { predicted, probability } = predictionOf(step, this.sample);
    if (predicted == null) return element("span", {});
    const label = run.samples.labels[this.sample];
    const kind = label == null ? "unknown" : label === predicted ? "correct" : "wrong";
    const sign = { unknown: "→", correct: "✓", wrong: "✗" }[kind];
    const sure = probability == null ? "" : ` ${Math.round(100 * probability)}%`;
    const name = className(run, predicted);
    const place = several ? element("span", { class: "runs" }, run.name || ".") : null;
    const changed = this.grid.history.changedAt(run, frame.step, this.sample);
    const title = `predicted: ${name}${sure}${kind === "unknown" ? "" : `, ${kind}`}${changed ? ", another class than a step before" : ""}`;
    return element("span", { class: `verdict ${kind}`, title, "aria-label": title }, place, `${sign} `, element("span", { class: "what" }, name), sure, changed ? element("b", { class: "changed" }, "changed") : null);
  }

  // A strip over all steps: right or wrong by colour and height, with the step marked.
  drawMind(frame, inks) {
    const { run } = frame.sides[0];
    const label = run.samples.labels[this.sample];
    const classes = run.steps.map((step) => this.grid.history.at(run, step, this.sample));
    const known = classes.filter((each) => each != null).length;
    this.mind.hidden = known < 2;
    if (known < 2) return;
    const { width, height } = Object.assign(this.mind, { width: 240, height: 20 });
    const context = this.mind.getContext("2d");
    const wide = width / classes.length;
    classes.forEach((each, index) => {
      if (each == null) return;
      const right = label == null ? each === classes[0] : each === label;
      context.fillStyle = right ? inks.right : inks.wrong;
      const high = right ? 12 : 6;
      context.fillRect(index * wide, height - 4 - high, Math.max(1, wide - (wide > 6 ? 1 : 0)), high);
    });
    context.fillStyle = inks.ink;
    context.fillRect(run.steps.indexOf(frame.step) * wide + wide / 2 - 1.5, 0, 3, height);
    this.mind.setAttribute("aria-label", mindOf(run, classes));
    this.mind.title = mindOf(run, classes);
  }

  go(event) {
    const { run } = this.grid.frame.sides[0];
    const share = event.offsetX / this.mind.clientWidth;
    this.grid.actions.go(run.steps[Math.min(run.steps.length - 1, Math.floor(share * run.steps.length))]);
  }
}

// Such as "predicted: cat from step 0, dog from step 7".
function mindOf(run, classes) {
  const turns = [];
  classes.forEach((each, index) => {
    if (each != null && each !== turns.at(-1)?.each) turns.push({ each, step: run.steps[index] });
  });
  const words = turns.slice(0, 20).map(({ each, step }) => `${className(run, each)} from step ${step}`);
  return `predicted: ${words.join(", ")}${turns.length > 20 ? ", ..." : ""}`;
}
