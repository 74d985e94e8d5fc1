// A surrogate decision tree, drawn from its root at the left to its leaves at the right.

import { element, svg } from "./dom.js";
import { LINES } from "./colours.js";
import { list } from "./data.js";
import { short } from "./frame.js";

const BOX = { width: 210, height: 42, pad: 10 };
const STEP = { x: 246, y: 52 };
const THICKEST = 10;
const FONT = "12px system-ui, sans-serif";
const EDGE = 12;
const MOST_NODES = 1023;
const MOST_DEPTH = 100;

// One tree with its facts. The place that it scrolls in stays when another tree is shown.
export class TreeSection {
  constructor() {
    this.heading = element("h2", {});
    this.legend = element("div", { class: "legend" });
    this.scroll = element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Decision tree; scroll to see all of it" });
    this.note = element("p", { class: "hint" });
    this.node = element("section", { class: "treesection" }, this.heading, this.legend, this.note, this.scroll);
  }

  // row: the raw values of the chosen sample, whose path is marked; null where there is none
  // note: why there is none
  show({ region, tree }, row, note, title) {
    const picture = drawn(tree, row);
    const heading = [title, region == null ? null : `region ${region}`].filter(Boolean).join(", ");
    this.heading.replaceChildren(heading, facts(tree));
    this.legend.replaceChildren(...classNames(tree));
    this.note.textContent = note ?? "";
    this.note.hidden = !note;
    this.scroll.replaceChildren(picture);
  }
}

function drawn(tree, row) {
  const { root, leaves, depth } = laidOut(tree, row);
  const width = depth * STEP.x + BOX.width + 2 * EDGE;
  const height = Math.max(1, leaves) * STEP.y + 2 * EDGE;
  const parts = { edges: [], nodes: [] };
  draw(root, tree, parts);
  return svg(
    "svg",
    { class: "tree", width, height, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "xMinYMin", role: "img", "aria-label": described(tree, root) },
    ...parts.edges,
    ...parts.nodes,
  );
}

function facts(tree) {
  const known = [
    ["leaves", tree.leaves], ["depth", tree.depth], ["rows", tree.rows],
    ["average path length", tree.average_path_length], ["fidelity", tree.fidelity],
  ].filter(([, value]) => Number.isFinite(value));
  return element("span", { class: "facts" }, ...known.map(([name, value]) => element("span", {}, `${name} `, element("b", {}, short(value)))));
}

function classNames(tree) {
  const classes = list(tree.classes).slice(0, 24);
  return classes.map((name, index) => element("span", { class: "line" }, element("span", { class: "key", style: { "--colour": colour(index) } }), String(name)));
}

function colour(index) {
  return LINES[index % LINES.length];
}

// Places for all nodes: a row per leaf, a column per level. `row` marks the path it takes.
function laidOut(tree, row) {
  let leaves = 0;
  let count = 0;
  let deepest = 0;
  const place = (node, level, onPath) => {
    if (!node || typeof node !== "object" || ++count > MOST_NODES || level > MOST_DEPTH) {
      throw new Error(`Expected a tree of at most ${MOST_NODES} nodes and ${MOST_DEPTH} levels. Log a smaller one.`);
    }
    deepest = Math.max(deepest, level);
    const inner = node.left != null && node.right != null;
    const goesLeft = inner && row != null && row[node.feature] <= node.threshold;
    const children = inner
      ? [place(node.left, level + 1, onPath && goesLeft), place(node.right, level + 1, onPath && !goesLeft)]
      : [];
    const y = inner ? (children[0].y + children[1].y) / 2 : EDGE + STEP.y * leaves++ + STEP.y / 2;
    return { node, children, onPath, x: EDGE + level * STEP.x, y };
  };
  return { root: place(tree.root, 0, row != null), leaves, depth: deepest };
}

function draw(at, tree, parts) {
  at.children.forEach((child, index) => {
    const [x, end] = [at.x + BOX.width, child.x];
    const middle = (x + end) / 2;
    const share = Math.max(0.02, (Number(child.node.rows) || 0) / (Number(tree.rows) || 1));
    const thick = 1 + (THICKEST - 1) * Math.min(1, share);
    parts.edges.push(svg("path", {
      class: child.onPath ? "edge path" : "edge",
      "stroke-width": thick,
      d: `M${x} ${at.y}C${middle} ${at.y} ${middle} ${child.y} ${end} ${child.y}`,
    }));
    parts.nodes.push(svg("text", { class: "branch", x: end - 4, y: child.y - 4 - thick / 2, "text-anchor": "end" }, index ? ">" : "≤"));
    draw(child, tree, parts);
  });
  parts.nodes.push(box(at, tree));
}

function box({ node, children, onPath, x, y }, tree) {
  const inner = children.length > 0;
  const name = String(list(tree.classes)[node.class] ?? node.class);
  const feature = String(list(tree.features)[node.feature] ?? `feature ${node.feature}`);
  const question = ` ≤ ${short(node.threshold)}`;
  const text = inner ? clipped(feature, question) : clipped(name, "", "600 ");
  const detail = inner ? `${feature} ≤ ${node.threshold}` : name;
  return svg(
    "g",
    { class: `node ${inner ? "inner" : "leaf"}${onPath ? " path" : ""}`, transform: `translate(${x} ${y - BOX.height / 2})` },
    svg("title", {}, `${detail}; ${node.rows} rows; most are ${name}`),
    svg("rect", { class: "box", width: BOX.width, height: BOX.height, rx: 6 }),
    svg("text", { class: "question", x: BOX.pad, y: 17 }, text),
    svg("text", { class: "rows", x: BOX.width - BOX.pad, y: 34, "text-anchor": "end" }, String(node.rows ?? "")),
    ...shares(node),
  );
}

// A bar of the classes that the node's rows are of.
function shares(node) {
  const counts = list(node.counts).map((count) => Math.max(0, Number(count) || 0));
  const total = counts.reduce((sum, count) => sum + count, 0) || 1;
  let x = BOX.pad;
  return counts.flatMap((count, index) => {
    const width = (count / total) * (BOX.width - 56);
    const bar = count ? [svg("rect", { x, y: 26, width, height: 6, fill: colour(index) })] : [];
    x += width;
    return bar;
  });
}

let measure = null;

// A text and its end, the text cut where both do not fit a box.
function clipped(text, end, weight = "") {
  measure ??= new OffscreenCanvas(1, 1).getContext("2d");
  measure.font = weight + FONT;
  const fits = (some) => measure.measureText(some + end).width <= BOX.width - 2 * BOX.pad;
  if (fits(text)) return text + end;
  let most = Math.min(text.length, 100);
  while (most > 1 && !fits(`${text.slice(0, most)}…`)) most--;
  return `${text.slice(0, most).trimEnd()}…${end}`;
}

function described(tree, root) {
  const steps = [];
  for (let at = root; at && root.onPath; at = at.children.find((child) => child.onPath)) {
    const feature = list(tree.features)[at.node.feature] ?? at.node.feature;
    const next = at.children.findIndex((child) => child.onPath);
    steps.push(next < 0 ? `class ${list(tree.classes)[at.node.class] ?? at.node.class}` : `${feature} ${next ? ">" : "≤"} ${short(at.node.threshold)}`);
  }
  const path = steps.length ? ` The chosen sample's path: ${steps.join(", then ")}.` : "";
  return `A decision tree of ${tree.leaves} leaves and depth ${tree.depth}.${path}`;
}
