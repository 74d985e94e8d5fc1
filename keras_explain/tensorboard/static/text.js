// A cell for text: its words on colours, pale enough to be read.

import { element } from "./dom.js";
import { css } from "./colours.js";
import { list } from "./data.js";
import { lookOf, short } from "./frame.js";
import { valueAt } from "./maps.js";

const MOST_WORDS = 2000;
const PALE = 0.6;

export class TextCell {
  constructor(frame, column, sample) {
    this.column = column;
    this.parts = column.parts.map(({ side }) => textOf(frame.sides[side].run, sample));
    this.node = element("span", { class: "stack" }, ...this.parts.map(({ node }) => node));
  }

  paint(frame, shown) {
    shown.forEach(({ map, record, message, note: said }, part) => {
      const { words, note } = this.parts[part];
      note.textContent = message ?? said ?? this.parts[part].rest;
      const look = map && !said && lookOf(frame, this.column.parts[part].method, record, map, true);
      words.forEach((word, place) => {
        const value = map ? valueAt(map, place) : NaN;
        word.style.backgroundColor = look ? css(look.colour(value), PALE) : "";
        word.title = map ? short(value) : "";
      });
    });
  }
}

function textOf(run, sample) {
  const all = list(run.samples.words[sample]);
  const words = all.slice(0, MOST_WORDS).map((word) => element("span", { class: "word" }, visible(String(word))));
  const note = element("span", { class: "message" });
  const rest = all.length > MOST_WORDS ? `${all.length - MOST_WORDS} more words are not shown.` : all.length ? "" : "No words were logged.";
  return { words, note, rest, node: element("span", { class: "words" }, ...words, note) };
}

function visible(word) {
  return word.trim() === "" ? "␣" : word;
}
