// The "Explain" page of TensorBoard and of reports. TensorBoard imports this and calls `render`.

import { App } from "./app.js";
import { element } from "./dom.js";
import { followTheme, report } from "./host.js";

export async function render() {
  followTheme();
  if (!report) await styles();
  document.documentElement.lang = "en";
  document.title = "Explanations";
  const root = element("div", { class: "explain" });
  document.body.append(root);
  await new App(root).start();
}

// A report has them in its own head.
function styles() {
  return new Promise((resolve) => {
    const link = element("link", { rel: "stylesheet", href: new URL("./style.css", import.meta.url).href, on: { load: resolve, error: resolve } });
    document.head.append(link);
  });
}
