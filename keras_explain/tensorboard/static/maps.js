// A logged map: from its picture of codes to values, and from values to coloured pixels.

import { Cache } from "./cache.js";
import { NO_NUMBER } from "./colours.js";

const DECODED_BYTES = 128 * 2 ** 20;
const MOST_PIXELS = 2 ** 24;
const PLAIN = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

const decoded = new Cache(DECODED_BYTES);
let scratch = null;

// The map of a record's class number `index`, decoded once while it stays in the cache.
//   key: what names the map among all
// Returns {width, height, shape, codes, missing, low, high, most}; rejects with what is wrong with it.
export async function decode(key, record, index) {
  const full = `${index}\n${key}`;
  const known = decoded.get(full);
  if (known) return known;
  const map = await read(record, index);
  decoded.set(full, map, map.codes.byteLength);
  return map;
}

// The map if it is decoded already.
export function cached(key, index) {
  return decoded.get(`${index}\n${key}`);
}

async function read(record, index) {
  const [low, high] = record.ranges[index] ?? [];
  if (!Number.isFinite(low) || !Number.isFinite(high)) throw new Error("The map has no range of values. Log it again.");
  if (!record.images[index]) throw new Error("The map's picture is missing in the log.");
  if (![8, 16].includes(record.bits)) throw new Error(`Expected 8 or 16 bits. Received: ${record.bits}.`);
  const { width, height, codes, missing } = await unpack(record.images[index], record.bits);
  const expected = record.shape.reduce((product, size) => product * size, 1);
  if (width * height !== expected) {
    throw new Error(`Expected a map of shape ${record.shape.join(" x ")}. Received: ${height} x ${width}.`);
  }
  return { width, height, shape: record.shape, codes, missing, low, high, most: 2 ** record.bits - 1 };
}

async function unpack(png, bits) {
  const size = sizeOf(png);
  if (!size || size.width * size.height > MOST_PIXELS) throw new Error("The map's picture is no PNG of a usual size.");
  const bitmap = await createImageBitmap(new Blob([png], { type: "image/png" }), PLAIN).catch(() => {
    throw new Error("The map's picture is broken.");
  });
  const pixels = pixelsOf(bitmap);
  const codes = bits === 8 ? new Uint8Array(pixels.length / 4) : new Uint16Array(pixels.length / 4);
  if (bits === 8) for (let i = 0; i < codes.length; i++) codes[i] = pixels[4 * i];
  else for (let i = 0; i < codes.length; i++) codes[i] = pixels[4 * i] * 256 + pixels[4 * i + 1];
  return { ...size, codes, missing: bits === 16 ? missingOf(pixels) : null };
}

// The places of values that are no numbers: full blue says so.
function missingOf(pixels) {
  const missing = new Set();
  for (let i = 2; i < pixels.length; i += 4) if (pixels[i] === 255) missing.add((i - 2) / 4);
  return missing.size ? missing : null;
}

// Width and height from a PNG's head, before anything of it is unpacked.
function sizeOf(png) {
  if (png.length < 24 || png[0] !== 0x89 || png[1] !== 0x50) return null;
  const view = new DataView(png.buffer, png.byteOffset);
  return { width: view.getUint32(16), height: view.getUint32(20) };
}

function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  scratch ??= new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  if (scratch.canvas.width < width) scratch.canvas.width = width;
  if (scratch.canvas.height < height) scratch.canvas.height = height;
  scratch.clearRect(0, 0, width, height);
  scratch.drawImage(bitmap, 0, 0);
  bitmap.close();
  return scratch.getImageData(0, 0, width, height).data;
}

// NaN where the value is no number, or lies outside of the map.
export function valueAt(map, index) {
  if (index >= map.codes.length || map.missing?.has(index)) return NaN;
  return map.low + ((map.high - map.low) * map.codes[index]) / map.most;
}

export function hasNumbers(map) {
  return !map.codes.length || map.missing?.size !== map.codes.length;
}

export function values(map) {
  return Float32Array.from(map.codes, (_, index) => valueAt(map, index));
}

// The largest absolute value.
export function limitOf(map) {
  return Math.max(Math.abs(map.low), Math.abs(map.high));
}

// Draws the map on a canvas of its own size.
export function paint(canvas, map, look) {
  if (canvas.width !== map.width || canvas.height !== map.height) {
    canvas.width = map.width;
    canvas.height = map.height;
  }
  const image = new ImageData(map.width, map.height);
  colour(new Uint32Array(image.data.buffer), map, look);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// Values that are no numbers are grey. A table of all codes costs less than a look at each pixel, as long as there are more pixels.
function colour(pixels, map, look) {
  const { codes, most } = map;
  const ofCode = (code) => look.colour(map.low + ((map.high - map.low) * code) / most);
  if (codes.length < most) {
    for (let i = 0; i < codes.length; i++) pixels[i] = ofCode(codes[i]);
  } else {
    const table = Uint32Array.from({ length: most + 1 }, (_, code) => ofCode(code));
    for (let i = 0; i < codes.length; i++) pixels[i] = table[codes[i]];
  }
  for (const place of map.missing ?? []) pixels[place] = NO_NUMBER;
}
