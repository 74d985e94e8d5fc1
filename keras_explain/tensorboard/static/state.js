// Everything that can be chosen on the page, in one object that the link can hold.

const text = (initial) => ({ initial, read: (value) => value });
const choice = (initial, ...others) => ({
  initial,
  read: (value) => ([initial, ...others].includes(value) ? value : initial),
});
const number = (initial, low, high) => ({
  initial,
  read: (value) => (Number.isFinite(Number(value)) ? Math.min(high, Math.max(low, Number(value))) : initial),
});
const integer = (initial) => ({
  initial,
  read: (value) => (/^-?\d{1,15}$/.test(value) ? Number(value) : initial),
});

export const FIELDS = {
  run: text(null), // null: the first one
  versus: text(null), // a second run; null: none
  step: integer(null), // null: the newest
  page: choice("maps", "tree"),
  explained: text("logged"), // "logged", "true", "predicted" or a class's number
  mode: choice("overlay", "side", "map", "swipe"),
  left: text(null), // the two methods of a swipe; null: the first two
  right: text(null),
  swipe: number(50, 0, 100), // per cent
  opacity: number(85, 0, 100),
  threshold: number(0, 0, 100), // per cent of the limit
  sign: choice("signed", "absolute"),
  scale: choice("steps", "step", "map"),
  diverging: choice("blue-red", "teal-orange", "violet-green"),
  sequential: choice("heat", "viridis", "inferno", "cividis", "grey"),
  size: choice("medium", "small", "large"),
  order: choice("feature", "size"),
  fit: choice("whole", "full"), // the size of trees
  hidden: text(""), // methods that are not shown, as a JSON list
  only: text(""), // a class's number: samples of this class alone
  outcome: choice("all", "correct", "wrong", "changed", "ever"),
  sample: integer(0), // the chosen sample
  charts: choice("shown", "hidden"),
  speed: number(4, 0.5, 30), // steps a second
};

export class State {
  // values: strings as in a link
  constructor(values = {}) {
    this.listeners = [];
    this.values = restored(values);
  }

  // Changes some values, and tells the listeners which of them are new.
  set(changes) {
    const changed = Object.keys(changes).filter((name) => !Object.is(this.values[name], changes[name]));
    if (!changed.length) return;
    this.values = { ...this.values, ...changes };
    for (const listener of this.listeners) listener(this.values, new Set(changed));
  }

  onChange(listener) {
    this.listeners.push(listener);
  }

  // What differs from the initial values, as strings for a link.
  link() {
    const entries = Object.entries(this.values).filter(([name, value]) => value !== FIELDS[name].initial);
    return Object.fromEntries(entries.map(([name, value]) => [name, String(value)]));
  }
}

function parse(values) {
  const known = Object.entries(values).filter(([name]) => Object.hasOwn(FIELDS, name));
  return Object.fromEntries(known.map(([name, value]) => [name, FIELDS[name].read(value)]));
}

// All values of a link: what it does not have is as it was at first.
export function restored(link) {
  const initial = Object.fromEntries(Object.entries(FIELDS).map(([name, field]) => [name, field.initial]));
  return { ...initial, ...parse(link) };
}

// The names of a JSON list, such as the hidden methods; nothing where it is no list.
export function names(json) {
  try {
    const found = JSON.parse(json || "[]");
    return Array.isArray(found) ? found.map(String) : [];
  } catch {
    return [];
  }
}
