// From shares of a limit to colours. A table has 256 colours for [0, 1], or 511 for [-1, 1].

export const NO_NUMBER = 0xff808080; // grey

const SIDE = 255;
const MOST_COVER = 0.88; // of a picture below the largest values

// Both ends can be told apart with every kind of colour blindness; zero is transparent, so it takes
// the colour of what lies below: the picture, or the page in light and dark.
const DIVERGING = {
  "blue-red": [[38, 111, 222], [222, 52, 40]],
  "teal-orange": [[0, 139, 139], [230, 120, 0]],
  "violet-green": [[126, 63, 178], [27, 145, 60]],
};

const SEQUENTIAL = {
  heat: ["fff3d6", "ffd27f", "ff9f40", "f0602c", "c81d3c", "7a0b46"],
  viridis: ["440154", "443983", "31688e", "21918c", "35b779", "90d743", "fde725"],
  inferno: ["000004", "320a5e", "781c6d", "bc3754", "ed6925", "fbb61a", "fcffa4"],
  cividis: ["00224e", "2a3f6d", "575d6d", "7d7c78", "a59c74", "d2c060", "fee838"],
  grey: ["101010", "ffffff"],
};

export const DIVERGING_NAMES = [["blue-red", "blue – red"], ["teal-orange", "teal – orange"], ["violet-green", "violet – green"]];
export const SEQUENTIAL_NAMES = [["heat", "heat"], ["viridis", "viridis"], ["inferno", "inferno"], ["cividis", "cividis"], ["grey", "grey"]];

// For lines in charts: eight that differ in lightness too.
export const LINES = ["#2f7de1", "#e07b00", "#129a74", "#c2418f", "#8a63d2", "#b59100", "#4fb3d9", "#d64533"];

const tables = new Map();

// The table of a palette: 32-bit pixels as an ImageData holds them. Over a picture, small values
// of a sequential palette let it through.
export function table(name, overPicture) {
  const key = `${name}/${overPicture}`;
  if (!tables.has(key)) tables.set(key, name in DIVERGING ? diverging(name) : sequential(name, overPicture));
  return tables.get(key);
}

function diverging(name) {
  return Uint32Array.from({ length: 2 * SIDE + 1 }, (_, index) => {
    const share = (index - SIDE) / SIDE;
    return pixel(DIVERGING[name][Number(share > 0)], Math.abs(share) ** 0.7);
  });
}

function sequential(name, overPicture) {
  return Uint32Array.from({ length: SIDE + 1 }, (_, index) => {
    const share = index / SIDE;
    return pixel(between(SEQUENTIAL[name], share), overPicture ? MOST_COVER * Math.min(1, 1.1 * share ** 0.8) : 1);
  });
}

function between(anchors, share) {
  const at = share * (anchors.length - 1);
  const left = Math.min(Math.floor(at), anchors.length - 2);
  const [low, high] = [anchors[left], anchors[left + 1]].map(bytes);
  return low.map((value, channel) => value + (high[channel] - value) * (at - left));
}

function bytes(hex) {
  return [0, 2, 4].map((start) => parseInt(hex.slice(start, start + 2), 16));
}

function pixel([red, green, blue], opacity) {
  return ((Math.round(255 * opacity) << 24) | (Math.round(blue) << 16) | (Math.round(green) << 8) | Math.round(red)) >>> 0;
}

// How a map is coloured: what its values are compared with, and the table.
//   limit: the value of the strongest colour
//   signed: whether negative values have colours of their own
//   threshold: the share of the limit below which nothing is drawn
export function look({ limit, signed, threshold, diverging: two, sequential: one }, overPicture = false) {
  const colours = table(signed ? two : one, overPicture);
  const scale = limit > 0 ? SIDE / limit : 0;
  const least = threshold * SIDE;
  const indexOf = (value) => {
    const share = Math.min(SIDE, Math.abs(value) * scale);
    if (share < least) return -1;
    return signed ? SIDE + Math.round(value < 0 ? -share : share) : Math.round(share);
  };
  const colour = (value) => {
    if (Number.isNaN(value)) return NO_NUMBER;
    const index = indexOf(value);
    return index < 0 ? 0 : colours[index];
  };
  return { limit, signed, colour, colours };
}

// A pixel as CSS, its opacity times `factor`.
export function css(value, factor = 1) {
  const [red, green, blue, opacity] = [0, 8, 16, 24].map((shift) => (value >>> shift) & 255);
  return `rgba(${red}, ${green}, ${blue}, ${((opacity / 255) * factor).toFixed(3)})`;
}

// A bar of all colours, from the lowest to the highest value.
export function ramp(canvas, colours) {
  canvas.width = colours.length;
  canvas.height = 1;
  const context = canvas.getContext("2d");
  context.putImageData(new ImageData(new Uint8ClampedArray(colours.slice().buffer), colours.length, 1), 0, 0);
}
