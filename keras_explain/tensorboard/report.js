// Gives the page what the report has of a log, in place of TensorBoard's routes.
(() => {
  const text = (id) => {
    const found = document.getElementById(`keras-explain-${id}`);
    if (!found) throw new Error("Expected a step, sample or run that the report has. Received: another one. Write the report again.");
    return JSON.parse(found.textContent);
  };
  const numbers = new Map(text("numbers"));
  const of = (run, what) => text(`${numbers.get(run)}-${what}`);
  const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer;
  const scalar = (run, tag) => {
    const series = new Map(of(run, "scalars")).get(tag);
    if (!series) throw new Error(`Expected a scalar of the run. Received: ${tag}.`);
    return series;
  };
  globalThis.keras_explain_report = {
    runs: async () => text("runs"),
    step: async (run, step) => bytes(of(run, `step-${step}`)),
    picture: (run, sample) => `data:image/png;base64,${of(run, `picture-${sample}`)}`,
    scalars: async (run, tag) => scalar(run, tag),
    tree: async (run, step) => of(run, `tree-${step}`),
    predictions: async (run) => of(run, "predictions"),
  };
})();
