// Where the page lives: in TensorBoard's iframe, in a report, or alone in a window.

export const report = globalThis.keras_explain_report ?? null;

const PLUGIN = "keras_explain";
const host = hostWindow();
const framed = host !== window;
const PREFIX = framed ? `p.${PLUGIN}.` : "";

function hostWindow() {
  if (report || window.parent === window) return window;
  try {
    return window.parent.document.body ? window.parent : window;
  } catch {
    return window; // a frame of another origin may not be touched
  }
}

// Keeps <html data-theme> as the host is: TensorBoard's dark mode, or the system's preference.
export function followTheme() {
  const apply = (dark) => { document.documentElement.dataset.theme = dark ? "dark" : "light"; };
  if (framed) {
    const body = host.document.body;
    const look = () => apply(body.classList.contains("dark-mode"));
    new MutationObserver(look).observe(body, { attributeFilter: ["class"] });
    return look();
  }
  const preference = matchMedia("(prefers-color-scheme: dark)");
  preference.addEventListener("change", () => apply(preference.matches));
  apply(preference.matches);
}

// The state that the link holds, as an object of strings.
export function readLink() {
  const found = {};
  for (const part of parts()) {
    const [name, ...value] = part.split("=");
    if (!value.length || !name.startsWith(PREFIX)) continue;
    try {
      found[name.slice(PREFIX.length)] = decodeURIComponent(value.join("="));
    } catch {
      // not a link of ours: a broken escape is no state
    }
  }
  return found;
}

// Puts the state into the address, without an entry in the history. Returns the address.
export function writeLink(values) {
  const own = Object.entries(values).map(([name, value]) => `${PREFIX}${name}=${encodeURIComponent(value)}`);
  if (framed && ![PLUGIN, ""].includes(parts()[0] ?? "")) return null; // another tab is in front
  const foreign = framed ? parts().slice(1).filter((part) => !part.startsWith(PREFIX)) : [];
  const hash = [...(framed ? [PLUGIN] : []), ...foreign, ...own].join("&");
  const url = `${host.location.href.split("#")[0]}#${hash}`;
  host.history.replaceState(host.history.state, "", url);
  return url;
}

export function onLink(listener) {
  host.addEventListener("hashchange", () => {
    const found = readLink();
    if (Object.keys(found).length) listener(found);
  });
}

function parts() {
  return host.location.hash.slice(1).split("&");
}
