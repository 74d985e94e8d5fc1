// The step slider with play, pause, single steps, an exact step, and the keys for them.

import { element, icon, select } from "./dom.js";
import { stepIn } from "./frame.js";

const SPEEDS = [["1", "1 / s"], ["2", "2 / s"], ["4", "4 / s"], ["8", "8 / s"], ["16", "16 / s"]];

export class Transport {
  // state: what to change; ready(): resolves when the newest step is on the page
  constructor(state, ready) {
    this.state = state;
    this.ready = ready;
    this.steps = [];
    this.playing = false;
    this.slider = element("input", { type: "range", class: "steps", min: 0, max: 0, step: 1, "aria-label": "Step", on: { input: () => this.go(Number(this.slider.value)) } });
    this.exact = element("input", { type: "number", class: "exact", "aria-label": "Exact step", on: { change: () => this.goTo(Number(this.exact.value)) } });
    this.total = element("span", { class: "total" });
    this.button = element("button", { type: "button", class: "round play", on: { click: () => this.toggle() } });
    this.speed = select("Steps a second", SPEEDS, "4", (value) => state.set({ speed: Number(value) }));
    this.node = element(
      "div",
      { class: "transport", role: "group", "aria-label": "Steps" },
      this.single("back", "Previous step", -1),
      this.button,
      this.single("forward", "Next step", 1),
      this.slider,
      element("span", { class: "where" }, "step ", this.exact, this.total),
      this.speed,
    );
    this.showPlaying();
    document.addEventListener("keydown", (event) => this.key(event));
  }

  single(name, label, by) {
    return element("button", { type: "button", class: "round", "aria-label": label, title: label, on: { click: () => this.by(by) } }, icon(name));
  }

  show(steps, step, speed) {
    this.steps = steps;
    this.slider.max = Math.max(0, steps.length - 1);
    this.slider.value = steps.indexOf(step);
    this.slider.setAttribute("aria-valuetext", `step ${step}`);
    this.slider.style.setProperty("--share", steps.length > 1 ? steps.indexOf(step) / (steps.length - 1) : 0);
    if (document.activeElement !== this.exact) this.exact.value = step;
    this.total.textContent = steps.length ? ` of ${steps[0]} – ${steps.at(-1)}` : "";
    this.speed.value = String(speed);
  }

  get place() {
    return this.steps.indexOf(stepIn(this.steps, this.state.values.step));
  }

  go(place) {
    const step = this.steps[Math.min(this.steps.length - 1, Math.max(0, place))];
    if (step != null) this.state.set({ step });
  }

  by(count) {
    this.pause();
    this.go(this.place + count);
  }

  // The nearest step that there is.
  goTo(wanted) {
    if (!Number.isFinite(wanted) || !this.steps.length) return;
    const step = this.steps.reduce((best, each) => (Math.abs(each - wanted) < Math.abs(best - wanted) ? each : best));
    this.state.set({ step });
    this.exact.value = step;
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  pause() {
    this.playing = false;
    this.showPlaying();
  }

  // Each step waits for the one before to be on the page.
  async play() {
    if (this.place === this.steps.length - 1) this.go(0);
    this.playing = true;
    this.showPlaying();
    const turn = (this.turn = {});
    while (this.playing && this.turn === turn) {
      const pause = new Promise((resolve) => setTimeout(resolve, 1000 / this.state.values.speed));
      await Promise.all([pause, this.ready()]);
      if (!this.playing || this.turn !== turn) return;
      if (this.place >= this.steps.length - 1) this.pause();
      else this.go(this.place + 1);
    }
  }

  showPlaying() {
    const label = this.playing ? "Pause" : "Play";
    this.button.replaceChildren(icon(this.playing ? "pause" : "play"));
    this.button.setAttribute("aria-label", label);
    this.button.title = `${label} (space)`;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const { target } = event;
    const typing = target.closest?.("input, select, textarea, [contenteditable]");
    const action = {
      ArrowLeft: () => this.by(-1), ArrowRight: () => this.by(1), ",": () => this.by(-1), ".": () => this.by(1),
      PageUp: null, PageDown: null,
      Home: () => this.go(0), End: () => this.go(this.steps.length - 1),
      " ": target.closest?.("button, summary, a") ? null : () => this.toggle(),
    }[event.key];
    if (!action || typing) return;
    event.preventDefault();
    action();
  }
}
