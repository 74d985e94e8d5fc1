// The two bars of controls: what is shown, and how it is drawn.

import { element, field, offer, select } from "./dom.js";
import { DIVERGING_NAMES, SEQUENTIAL_NAMES } from "./colours.js";
import { className } from "./data.js";
import { isSigned, methodsOf, swipedMethods } from "./frame.js";
import { hasMaps } from "./frames.js";
import { names } from "./state.js";

const MOST_CLASSES = 1000;
const NONE = "\u0000none"; // no run has this name

// A row of choices of which one is on.
export function choices(label, options, change) {
  const group = `choice-${label}`;
  const inputs = options.map(([value]) => element("input", { type: "radio", name: group, value, on: { change: () => change(value) } }));
  const labels = options.map(([, text], index) => element("label", {}, inputs[index], element("span", {}, text)));
  const node = element("span", { class: "choices", role: "radiogroup", "aria-label": label }, ...labels);
  return { node, show: (value) => inputs.forEach((input) => { input.checked = input.value === value; }) };
}

function range(label, change) {
  const input = element("input", { type: "range", min: 0, max: 100, "aria-label": label, on: { input: () => change(Number(input.value)) } });
  const number = element("span", { class: "percent" });
  const show = (value) => {
    input.value = value;
    input.style.setProperty("--share", value / 100);
    number.textContent = ` ${Math.round(value)}%`;
  };
  return { node: input, number, show };
}

function menu(label, ...children) {
  const node = element("details", { class: "menu" }, element("summary", {}, label), element("div", { class: "sheet" }, ...children));
  const close = (event) => !node.contains(event.target) && (node.open = false);
  const escape = (event) => {
    if (event.key !== "Escape") return;
    node.open = false;
    node.querySelector("summary").focus();
  };
  node.addEventListener("toggle", () => {
    const change = node.open ? "addEventListener" : "removeEventListener";
    document[change]("click", close);
    document[change]("keydown", escape);
  });
  return node;
}

const KEYS = [
  ["← →", "step back and forth"], ["space", "play, pause"], ["Home, End", "first and last step"],
  ["Enter", "enlarge the map in focus"], ["arrows", "in an enlarged map: move the cursor"], [", .", "step, in an enlarged map too"],
];

// What is shown: runs, filters, methods, files.
export class TopBar {
  // actions: {png(), npz(), json(), copy()}
  constructor(state, actions) {
    const set = (name) => (value) => state.set({ [name]: value });
    this.state = state;
    this.run = select("Run", [], "", set("run"));
    this.versus = select("Compare with run", [], "", (value) => state.set({ versus: value === NONE ? null : value }));
    this.page = choices("Page", [["maps", "Maps"], ["tree", "Decision tree"]], set("page"));
    this.only = select("Class of the samples", [], "", set("only"));
    this.outcome = select("Samples by prediction", [
      ["all", "all"], ["correct", "correct"], ["wrong", "wrong"], ["changed", "changed its mind at this step"], ["ever", "changed its mind at any step"],
    ], "all", set("outcome"));
    this.methods = element("div", { class: "methods" });
    this.charts = element("button", { type: "button", class: "quiet", on: { click: () => state.set({ charts: state.values.charts === "shown" ? "hidden" : "shown" }) } }, "Scalars");
    this.status = element("span", { class: "status", role: "status" });
    const item = (label, action) => element("button", { type: "button", on: { click: () => this.run_(action) } }, label);
    const raw = [item("Raw values (.npz)", actions.npz), item("Raw values (JSON)", actions.json)];
    this.files = menu("Download", item("Picture of the page (PNG)", actions.png), ...raw);
    const methods = menu("Methods", this.methods);
    const keys = element("dl", { class: "keys" }, ...KEYS.flatMap(([key, does]) => [element("dt", {}, key), element("dd", {}, does)]));
    this.versusField = field("Compare with", this.versus);
    this.filters = [field("Class", this.only), field("Samples", this.outcome)];
    this.ofMaps = [...this.filters, methods, ...raw];
    this.node = element(
      "div",
      { class: "toolbar top", role: "group", "aria-label": "What is shown" },
      field("Run", this.run), this.versusField, ...this.filters,
      this.page.node, element("span", { class: "spacer" }), this.status,
      methods, this.charts, this.files,
      element("button", { type: "button", class: "quiet", title: "Copy a link to this view", on: { click: () => this.run_(actions.copy) } }, "Link"),
      menu("Keys", keys),
    );
  }

  // Does something that takes a while, and says how it went.
  async run_(action) {
    this.files.open = false;
    this.status.textContent = "…";
    try {
      this.status.textContent = (await action()) ?? "";
    } catch (error) {
      this.status.textContent = error.message;
    }
    setTimeout(() => { this.status.textContent = ""; }, 6000);
  }

  show(frame, runs) {
    const { values } = frame;
    const [{ run }, second] = frame.sides;
    const named = [...runs.keys()].map((name) => [name, name || "."]);
    offer(this.run, named, run.name);
    offer(this.versus, [[NONE, "none"], ...named.filter(([name]) => name !== run.name)], second?.run.name ?? NONE);
    this.versusField.hidden = named.length < 2;
    offer(this.only, [["", "all"], ...classesOf(run).map((index) => [String(index), className(run, index)])], values.only);
    this.outcome.value = values.outcome;
    this.page.show(frame.page);
    this.page.node.hidden = !hasMaps(run) || !frame.sides.some(({ run: each }) => each.trees.length);
    for (const node of this.ofMaps) node.hidden = frame.page === "tree";
    this.charts.setAttribute("aria-pressed", values.charts === "shown");
    this.showMethods(frame);
  }

  showMethods(frame) {
    const all = [...new Set(frame.sides.flatMap(({ run }) => run.methods))];
    const shown = methodsOf(frame);
    if (JSON.stringify(all) !== this.methods.dataset.all) this.offerMethods(all);
    for (const [method, box] of this.boxes) box.checked = shown.includes(method);
  }

  offerMethods(all) {
    this.methods.dataset.all = JSON.stringify(all);
    this.boxes = new Map(all.map((method) => [method, element("input", { type: "checkbox", on: { change: (event) => this.hide(method, !event.target.checked) } })]));
    this.methods.replaceChildren(...all.map((method) => element("label", {}, this.boxes.get(method), method)));
  }

  hide(method, hidden) {
    const others = names(this.state.values.hidden).filter((each) => each !== method);
    const all = hidden ? [...others, method] : others;
    this.state.set({ hidden: all.length ? JSON.stringify(all) : "" });
  }
}

// The true classes of the samples.
function classesOf(run) {
  const known = new Set(run.samples.labels.filter((label) => label != null));
  return [...known].sort((a, b) => a - b).slice(0, MOST_CLASSES);
}

// How it is drawn.
export class ViewBar {
  constructor(state) {
    const set = (name) => (value) => state.set({ [name]: value });
    this.explained = select("Explained class", [], "logged", set("explained"));
    this.mode = choices("View", [["overlay", "Overlay"], ["side", "Side by side"], ["map", "Map"], ["swipe", "Swipe"]], set("mode"));
    this.left = select("Left method", [], "", set("left"));
    this.right = select("Right method", [], "", set("right"));
    this.swipe = range("Swipe", set("swipe"));
    this.opacity = range("Opacity", set("opacity"));
    this.threshold = range("Threshold", set("threshold"));
    this.sign = choices("Values", [["signed", "Signed"], ["absolute", "Absolute"]], set("sign"));
    this.scale = choices("Scale", [["steps", "All steps"], ["step", "Per step"], ["map", "Per map"]], set("scale"));
    this.diverging = select("Signed colours", DIVERGING_NAMES, "", set("diverging"));
    this.sequential = select("Absolute colours", SEQUENTIAL_NAMES, "", set("sequential"));
    this.size = choices("Size", [["small", "S"], ["medium", "M"], ["large", "L"]], set("size"));
    this.order = choices("Order", [["feature", "As logged"], ["size", "By size"]], set("order"));
    const slider = (label, control) => field(label, control.node, control.number);
    this.leftField = field("Left", this.left);
    this.rightField = field("Right", this.right);
    this.swipeField = slider("Swipe", this.swipe);
    this.colours = [field("Signed colours", this.diverging), field("Absolute colours", this.sequential)];
    this.only = {
      pictures: [group("View", this.mode), slider("Opacity", this.opacity), group("Size", this.size)],
      table: [group("Order", this.order)],
    };
    this.node = element(
      "div",
      { class: "toolbar view", role: "group", "aria-label": "How it is drawn" },
      field("Explained", this.explained), this.only.pictures[0], this.leftField, this.rightField, this.swipeField,
      this.only.pictures[1], slider("Threshold", this.threshold), group("Values", this.sign), group("Scale", this.scale),
      ...this.colours, this.only.pictures[2], ...this.only.table,
    );
  }

  show(frame, classes) {
    const { values } = frame;
    const { run } = frame.sides[0];
    const known = [...classes].slice(0, MOST_CLASSES).map((index) => [String(index), className(run, index)]);
    const general = [["logged", "as logged"], ...(run.samples.labels.length ? [["true", "true class"]] : []), ["predicted", "predicted class"]];
    offer(this.explained, [...general, ...known], values.explained);
    for (const name of ["mode", "swipe", "opacity", "threshold", "sign", "scale", "size", "order"]) this[name].show(values[name]);
    this.diverging.value = values.diverging;
    this.sequential.value = values.sequential;
    this.showKind(frame, run);
  }

  showKind(frame, run) {
    const { values } = frame;
    const pictures = run.samples.kind === "pictures";
    for (const node of this.only.pictures) node.hidden = !pictures;
    for (const node of this.only.table) node.hidden = run.samples.kind !== "table";
    const signs = new Set(methodsOf(frame).map((method) => values.sign === "signed" && isSigned(frame, method)));
    this.colours[0].hidden = !signs.has(true);
    this.colours[1].hidden = !signs.has(false);
    const swipe = pictures && values.mode === "swipe";
    const { left, right } = swipedMethods(frame);
    const methods = run.methods.map((method) => [method, method]);
    offer(this.left, methods, left);
    offer(this.right, methods, right);
    this.leftField.hidden = this.rightField.hidden = !swipe || frame.sides.length > 1;
    this.swipeField.hidden = !swipe;
  }
}

function group(label, control) {
  return element("span", { class: "field" }, element("span", { class: "name", "aria-hidden": "true" }, label), control.node);
}
