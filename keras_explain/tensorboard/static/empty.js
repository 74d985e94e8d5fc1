// What the page says where there is nothing to show.

import { element } from "./dom.js";

const CODE = `import keras_explain as kx

logger = kx.callbacks.ExplanationLogger(
    ["grad_cam", "integrated_gradients"], x_val[:8], y_val[:8], log_dir="logs",
)
model.fit(x, y, epochs=10, callbacks=[logger])`;

export function nothingLogged() {
  return element(
    "section",
    { class: "empty" },
    element("h1", {}, "No explanations yet"),
    element("p", {}, "This page shows why a model decides as it does, and how that changes while it trains. Add the callback to your training, and maps appear after the first epoch:"),
    element("pre", {}, element("code", {}, CODE)),
    element("p", {}, "Then start TensorBoard on the same directory: ", element("code", {}, "tensorboard --logdir logs"), "."),
  );
}

// A sentence in place of the maps, and a button that helps.
export class Notice {
  constructor() {
    this.text = element("p", {});
    this.button = element("button", { type: "button", class: "quiet", on: { click: () => this.help() } });
    this.node = element("section", { class: "empty small" }, this.text, this.button);
  }

  show({ text, label, help }) {
    this.help = help;
    this.text.textContent = text;
    this.button.textContent = label ?? "";
    this.button.hidden = !label;
  }
}

export function failed(error, again) {
  return element(
    "section",
    { class: "empty", role: "alert" },
    element("h1", {}, "The log could not be read"),
    element("p", {}, error.message),
    element("button", { type: "button", class: "quiet", on: { click: again } }, "Try again"),
  );
}

export function problemList(problems) {
  const items = problems.slice(0, 50).map((problem) => element("li", {}, problem));
  const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
  return element("details", { class: "problems" }, element("summary", {}, `${count} with this log`), element("ul", {}, ...items));
}
