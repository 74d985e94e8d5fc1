// A part of the page as a picture: its boxes, pictures and words are painted where they are.

const MOST_PIXELS = 2 ** 27;

// Returns a PNG, a Blob.
export async function snapshot(node) {
  const area = node.getBoundingClientRect();
  const width = node.scrollWidth;
  const height = node.scrollHeight;
  const ratio = Math.min(2, Math.sqrt(MOST_PIXELS / (width * height)));
  const canvas = new OffscreenCanvas(Math.ceil(width * ratio), Math.ceil(height * ratio));
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.fillStyle = getComputedStyle(document.body).backgroundColor;
  context.fillRect(0, 0, width, height);
  await paint(context, node, { left: area.left, top: area.top });
  return canvas.convertToBlob({ type: "image/png" });
}

async function paint(context, node, origin) {
  const style = getComputedStyle(node);
  if (style.display === "none" || style.visibility === "hidden") return;
  const box = at(node.getBoundingClientRect(), origin);
  context.save();
  context.globalAlpha *= Number(style.opacity);
  if (style.filter !== "none") context.filter = style.filter;
  clip(context, style, box);
  if (node instanceof SVGSVGElement) await drawing(context, node, box);
  else await inside(context, node, style, box, origin);
  context.restore();
}

async function inside(context, node, style, box, origin) {
  background(context, style, box);
  context.imageSmoothingEnabled = style.imageRendering !== "pixelated";
  if (node instanceof HTMLCanvasElement && node.width) context.drawImage(node, ...box);
  if (node instanceof HTMLImageElement && node.complete && node.naturalWidth) context.drawImage(node, ...box);
  for (const child of node.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) words(context, child, style, origin);
    else if (child.nodeType === Node.ELEMENT_NODE) await paint(context, child, origin);
  }
}

function at(rectangle, origin) {
  return [rectangle.left - origin.left, rectangle.top - origin.top, rectangle.width, rectangle.height];
}

// What is cut off: by `overflow`, and the left or right of a swipe by `clip-path: inset(...)`.
function clip(context, style, [x, y, width, height]) {
  const inset = /^inset\((.*)\)$/.exec(style.clipPath);
  if (!inset && style.overflow === "visible") return;
  const sizes = (inset?.[1] ?? "0px").split(/\s+(?![^(]*\))/);
  const [top, right = top, bottom = top, left = right] = sizes;
  const pixels = (size, whole) => (size.endsWith("%") ? (parseFloat(size) / 100) * whole : parseFloat(size));
  const [l, r] = [left, right].map((size) => pixels(size, width));
  const [t, b] = [top, bottom].map((size) => pixels(size, height));
  context.beginPath();
  context.rect(x + l, y + t, width - l - r, height - t - b);
  context.clip();
}

function background(context, style, [x, y, width, height]) {
  if (/, 0\)$|^transparent$/.test(style.backgroundColor)) return;
  context.fillStyle = style.backgroundColor;
  context.beginPath();
  context.roundRect(x, y, width, height, parseFloat(style.borderTopLeftRadius) || 0);
  context.fill();
}

// Each word of a text, where the page has put it.
function words(context, text, style, origin) {
  if (!text.data.trim()) return;
  context.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  context.fillStyle = style.color;
  context.textBaseline = "middle";
  for (const [word, rectangle] of placed(text)) {
    const [x, y, width, height] = at(rectangle, origin);
    context.fillText(word, x, y + height / 2, width + 2);
  }
}

function placed(text) {
  const range = document.createRange();
  const found = [];
  for (const { index, 0: word } of text.data.matchAll(/\S+\s?/g)) {
    range.setStart(text, index);
    range.setEnd(text, index + word.length);
    const rectangle = range.getBoundingClientRect();
    if (rectangle.width) found.push([word.trimEnd(), rectangle]);
  }
  return found;
}

const COPIED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "font", "text-anchor", "opacity", "visibility", "paint-order", "stroke-linejoin"];

async function drawing(context, node, box) {
  const copy = node.cloneNode(true);
  const copies = copy.querySelectorAll("*");
  node.querySelectorAll("*").forEach((original, index) => {
    const style = getComputedStyle(original);
    for (const name of COPIED) copies[index].style.setProperty(name, style.getPropertyValue(name));
  });
  copy.setAttribute("width", box[2]);
  copy.setAttribute("height", box[3]);
  const url = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
  const image = new Image();
  image.src = url;
  await image.decode();
  context.drawImage(image, ...box);
  URL.revokeObjectURL(url);
}
