// A surrogate decision tree, drawn from its root at the left to its leaves at the right.

import { element, svg } from "./dom.js";
import { LINES } from "./colours.js";
import { list } from "./data.js";
import { short } from "./frame.js";

const BOX = { width: 190, height: 42 };
const STEP = { x: 220, y: 52 };
const LETTERS = 26; // that fit a box
const EDGE = 12;
const MOST_NODES = 1023;
const MOST_DEPTH = 100;

// The section of one tree.
//   row: the raw values of the chosen sample, whose path is marked; null where there are none
export function treeSection({ region, tree }, row, title) {
  const { root, leaves, depth } = laidOut(tree, row);
  const width = depth * STEP.x + BOX.width + 2 * EDGE;
  const height = Math.max(1, leaves) * STEP.y + 2 * EDGE;
  const parts = { edges: [], nodes: [] };
  draw(root, tree, parts);
  const picture = svg(
    "svg",
    { class: "tree", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": described(tree, root) },
    ...parts.edges,
    ...parts.nodes,
  );
  const heading = [title, region == null ? null : `region ${region}`].filter(Boolean).join(", ");
  return element("section", { class: "treesection" }, element("h2", {}, heading, facts(tree)), legend(tree), element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Decision tree; scroll to see all of it" }, picture));
}

function facts(tree) {
  const known = [
    ["leaves", tree.leaves], ["depth", tree.depth], ["rows", tree.rows],
    ["average path length", tree.average_path_length], ["fidelity", tree.fidelity],
  ].filter(([, value]) => Number.isFinite(value));
  return element("span", { class: "facts" }, ...known.map(([name, value]) => element("span", {}, `${name} `, element("b", {}, short(value)))));
}

function legend(tree) {
  const classes = list(tree.classes).slice(0, 24);
  return element("div", { class: "legend" }, ...classes.map((name, index) => element("span", { class: "line" }, element("span", { class: "key", style: { "--colour": colour(index) } }), String(name))));
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
    const goesLeft = inner && row != null && Number(row[node.feature]) <= node.threshold;
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
    parts.edges.push(svg("path", {
      class: child.onPath ? "edge path" : "edge",
      "stroke-width": 1 + 9 * Math.min(1, share),
      d: `M${x} ${at.y}C${middle} ${at.y} ${middle} ${child.y} ${end} ${child.y}`,
    }));
    parts.nodes.push(svg("text", { class: "branch", x: end - 6, y: child.y - 7, "text-anchor": "end" }, index ? ">" : "≤"));
    draw(child, tree, parts);
  });
  parts.nodes.push(box(at, tree));
}

function box({ node, children, onPath, x, y }, tree) {
  const inner = children.length > 0;
  const name = String(list(tree.classes)[node.class] ?? node.class);
  const feature = String(list(tree.features)[node.feature] ?? `feature ${node.feature}`);
  const question = ` ≤ ${short(node.threshold)}`;
  const text = inner ? clipped(feature, LETTERS - question.length) + question : clipped(name, LETTERS);
  const detail = inner ? `${feature} ≤ ${node.threshold}` : name;
  return svg(
    "g",
    { class: `node ${inner ? "inner" : "leaf"}${onPath ? " path" : ""}`, transform: `translate(${x} ${y - BOX.height / 2})` },
    svg("title", {}, `${detail}; ${node.rows} rows; most are ${name}`),
    svg("rect", { class: "box", width: BOX.width, height: BOX.height, rx: 6 }),
    svg("text", { class: "question", x: 10, y: 17 }, text),
    svg("text", { class: "rows", x: BOX.width - 10, y: 34, "text-anchor": "end" }, String(node.rows ?? "")),
    ...shares(node),
  );
}

// A bar of the classes that the node's rows are of.
function shares(node) {
  const counts = list(node.counts).map((count) => Math.max(0, Number(count) || 0));
  const total = counts.reduce((sum, count) => sum + count, 0) || 1;
  let x = 10;
  return counts.flatMap((count, index) => {
    const width = (count / total) * (BOX.width - 56);
    const bar = count ? [svg("rect", { x, y: 26, width, height: 6, fill: colour(index) })] : [];
    x += width;
    return bar;
  });
}

function clipped(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
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
