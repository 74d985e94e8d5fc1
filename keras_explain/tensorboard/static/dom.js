// Elements, made without ever parsing data as HTML: all text goes in as text nodes.

const SVG = "http://www.w3.org/2000/svg";

// element("button", {class: "quiet", on: {click: go}}, "Go") -> <button class="quiet">Go</button>
export function element(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(node, { on = {}, style = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, String(value));
  }
  for (const [name, value] of Object.entries(style)) node.style.setProperty(name, value);
  for (const [name, listener] of Object.entries(on)) node.addEventListener(name, listener);
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

// A drop-down list. `options` are [value, text] pairs.
export function select(label, options, value, change) {
  const node = element("select", { "aria-label": label, on: { change: () => change(node.value) } });
  offer(node, options, value);
  return node;
}

// Replaces the options of a list, unless they are the same already.
export function offer(node, options, value) {
  const wanted = JSON.stringify(options);
  if (node.dataset.options !== wanted) {
    node.replaceChildren(...options.map(([key, text]) => element("option", { value: key }, text)));
    node.dataset.options = wanted;
  }
  node.value = value;
}

// A label and the control that it names, above each other.
export function field(label, control, extra = null) {
  return element("label", { class: "field" }, element("span", { class: "name" }, label, extra), control);
}

// A name that may go on in the next line after each part of it.
export function breakable(name) {
  return name.split(/(?<=[_/.])/).flatMap((part) => [part, element("wbr")]);
}

const ICONS = {
  play: "M4 2.5v11l9.5-5.5z",
  pause: "M3.5 2.5h3.2v11H3.5zM9.3 2.5h3.2v11H9.3z",
  back: "M10.8 2.5v11L4 8z",
  forward: "M5.2 2.5v11L12 8z",
  close: "M4.1 3 8 6.9 11.9 3 13 4.1 9.1 8l3.9 3.9-1.1 1.1L8 9.1 4.1 13 3 11.9 6.9 8 3 4.1z",
};

export function icon(name) {
  return svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}
