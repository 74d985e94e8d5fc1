// The page: keeps what is on it as the state says.

import { Charts } from "./charts.js";
import { TopBar, ViewBar } from "./controls.js";
import { readRuns } from "./data.js";
import { element } from "./dom.js";
import { asJSON, asNPZ, fileName, save, shownMaps } from "./download.js";
import { failed, nothingLogged, Notice, problemList } from "./empty.js";
import { columnsOf } from "./frame.js";
import { Frames } from "./frames.js";
import { Grid } from "./grid.js";
import { filtered } from "./history.js";
import { onLink, readLink, report, writeLink } from "./host.js";
import { snapshot } from "./snapshot.js";
import { restored, State } from "./state.js";
import { followDrags } from "./swipe.js";
import { Transport } from "./transport.js";
import { TreePage } from "./treepage.js";
import { Zoom } from "./zoom.js";

const LOOK_AGAIN = 30000; // ms between looks for new steps
const AHEAD = 3; // steps that are loaded before they are asked for
const LINK_PAUSE = 300; // browsers allow few changes of the address

export class App {
  constructor(root) {
    this.root = root;
    this.state = new State(readLink());
    this.frames = new Frames();
    this.runs = new Map();
    this.direction = 1;
    this.idle = Promise.resolve();
    this.make();
    this.state.onChange((values, changed) => this.changed(values, changed));
    onLink((link) => this.state.set(restored(link)));
    if (!report) setInterval(() => document.visibilityState === "visible" && this.look(), LOOK_AGAIN);
  }

  make() {
    const { state } = this;
    const go = (step) => this.transport.goTo(step);
    const choose = (sample) => state.set({ sample });
    this.top = new TopBar(state, { png: () => this.png(), npz: () => this.values(asNPZ, "npz"), json: () => this.values(asJSON, "json"), copy: () => this.copy() });
    this.view = new ViewBar(state);
    this.transport = new Transport(state, () => this.idle);
    this.charts = new Charts(go);
    this.grid = new Grid(this.frames.history, { zoom: (sample, column) => this.zoom.open(this.frame, sample, column), choose, go });
    this.trees = new TreePage({ choose, size: (fit) => state.set({ fit }) });
    this.notice = new Notice();
    this.zoom = new Zoom();
    this.problems = element("div", { class: "notes" });
    this.body = element("div", { class: "content" });
    this.main = element("main", {}, this.body, this.charts.node);
    this.bars = element("header", { class: "toolbars" }, this.top.node, this.view.node, this.transport.node);
    new ResizeObserver(() => this.root.style.setProperty("--bars", `${this.bars.offsetHeight}px`)).observe(this.bars);
    followDrags(this.root, (swipe) => state.set({ swipe }));
  }

  async start() {
    try {
      await this.read();
      this.root.replaceChildren(...(this.runs.size ? [this.bars, this.problems, this.main, this.zoom.node] : [this.problems, nothingLogged()]));
      if (this.runs.size) await this.refresh();
    } catch (error) {
      this.root.replaceChildren(failed(error, () => this.start()));
    }
    this.root.dataset.ready = "";
  }

  async read() {
    const { runs, problems } = await readRuns();
    for (const [name, run] of runs) this.takeOver(this.runs.get(name), run);
    this.runs = runs;
    this.logProblems = problems;
    this.showProblems([]);
  }

  // A run that has only grown keeps what was loaded of it, but for its newest step.
  takeOver(old, run) {
    if (!old) return;
    const same = JSON.stringify({ ...old, revision: 0, generation: 0 }) === JSON.stringify(run);
    const grown = old.steps.every((step, index) => step === run.steps[index]);
    run.revision = old.revision + Number(!same);
    run.generation = old.generation + Number(!grown);
    if (!same) this.frames.steps.forget(old, old.steps.at(-1));
  }

  // Looks whether the log has grown.
  async look() {
    const had = this.runs.size;
    try {
      await this.read();
    } catch (error) {
      return this.showProblems([error.message]);
    }
    if (!had || !this.runs.size) return this.start();
    return this.refresh();
  }

  changed(values, changed) {
    this.styles(values);
    clearTimeout(this.linking);
    this.linking = setTimeout(() => writeLink(this.state.link()), LINK_PAUSE);
    if (changed.has("step") && this.frame) this.direction = values.step < this.frame.step ? -1 : 1;
    if (changed.size === 1 && (changed.has("opacity") || changed.has("swipe"))) return this.view.show({ ...this.frame, values }, this.classes);
    this.refresh();
  }

  styles({ opacity, swipe }) {
    this.root.style.setProperty("--opacity", opacity / 100);
    this.root.style.setProperty("--swipe", `${swipe}%`);
  }

  // Brings the page to the state; while it is busy, only the newest state counts.
  refresh() {
    this.stale = true;
    if (!this.working) {
      this.working = this.work().catch((error) => this.showProblems([error.message])).finally(() => { this.working = null; });
      this.working.then(() => this.ahead());
    }
    this.idle = this.working;
    return this.working;
  }

  async work() {
    while (this.stale) {
      this.stale = false;
      this.root.setAttribute("aria-busy", "true");
      const frame = await this.frames.make(this.state.values, this.runs);
      await this.show(frame);
      this.root.setAttribute("aria-busy", "false");
    }
  }

  async show(frame) {
    this.frame = frame;
    const samples = filtered(frame, this.frames.history);
    this.samples = samples;
    this.styles(frame.values);
    this.transport.show(frame.steps, frame.step, frame.values.speed);
    this.top.show(frame, this.runs);
    this.view.show(frame, this.seenClasses(frame));
    this.view.node.hidden = frame.page === "tree";
    this.charts.node.hidden = frame.values.charts === "hidden";
    if (!this.charts.node.hidden) this.charts.show(frame);
    this.showProblems(frame.sides.flatMap(({ step, error }) => step?.problems ?? (error ? [error] : [])));
    await this.showPage(frame, samples);
    await this.zoom.show(frame);
    this.root.dataset.step = frame.step;
  }

  async showPage(frame, samples) {
    const nothing = frame.page === "tree" ? null : this.nothingOf(frame, samples);
    const page = nothing ? this.notice : frame.page === "tree" ? this.trees : this.grid;
    if (this.body.firstChild !== page.node) this.body.replaceChildren(page.node);
    await (nothing ? this.notice.show(nothing) : page.show(frame, samples));
  }

  // Why there are no maps to see, and what helps.
  nothingOf(frame, samples) {
    const { state } = this;
    if (!samples.length) return { text: "No sample passes the filters at this step.", label: "Show all samples", help: () => state.set({ only: "", outcome: "all" }) };
    if (columnsOf(frame).length) return null;
    if (!frame.values.hidden) return { text: "No maps have been logged in this run." };
    return { text: "All methods are hidden.", label: "Show all methods", help: () => state.set({ hidden: "" }) };
  }

  // All classes that were explained in steps seen so far.
  seenClasses(frame) {
    this.classes = this.classesOf === frame.sides[0].run.name ? this.classes : new Set();
    this.classesOf = frame.sides[0].run.name;
    const found = frame.sides.flatMap(({ step }) => [...(step?.maps.values() ?? [])]).flatMap((records) => [...records.values()]);
    for (const { classes } of found) for (const index of (classes ?? []).slice(0, 1000)) this.classes.add(index);
    this.classes = new Set([...this.classes].sort((a, b) => a - b));
    return this.classes;
  }

  showProblems(problems) {
    const all = [...(this.logProblems ?? []), ...problems];
    const text = JSON.stringify(all);
    if (text === this.problems.dataset.shown) return;
    this.problems.dataset.shown = text;
    this.problems.replaceChildren(...(all.length ? [problemList(all)] : []));
  }

  // Loads and unpacks the steps that come next.
  async ahead() {
    const { frame } = this;
    if (!frame) return;
    const place = frame.steps.indexOf(frame.step);
    const wanted = [...Array(AHEAD).keys()].map((by) => place + this.direction * (by + 1)).concat(place - this.direction);
    for (const step of wanted.map((at) => frame.steps[at]).filter((each) => each != null)) {
      if (this.frame !== frame || this.working) return;
      const next = await this.frames.make({ ...frame.values, step }, this.runs);
      if (frame.page === "maps") await this.grid.warm(next);
    }
  }

  async png() {
    if (this.body.firstChild === this.grid.node) await this.grid.paintAll();
    save(await snapshot(this.body.firstChild), fileName(this.frame, "png"));
    return "Picture saved.";
  }

  async values(format, ending) {
    const maps = await shownMaps(this.frame, this.samples);
    save(format(this.frame, maps), fileName(this.frame, ending));
    return `${maps.length} maps saved.`;
  }

  async copy() {
    const url = writeLink(this.state.link());
    try {
      await navigator.clipboard.writeText(url);
      return "Link copied.";
    } catch {
      return "The link is in the address bar."; // the browser lets pages copy only on secure hosts
    }
  }
}
