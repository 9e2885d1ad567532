// Values as text, the same everywhere on the page. Times are shown in the viewer's own zone.

const clockFormat = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dayFormat = new Intl.DateTimeFormat([], { month: "short", day: "numeric" });
const numberFormat = new Intl.NumberFormat([], { maximumFractionDigits: 2 });

export const clock = (ms) => clockFormat.format(ms);
export const moment = (ms) => (Date.now() - ms > 20 * 3600e3 ? `${dayFormat.format(ms)} ${clock(ms)}` : clock(ms));
// A command states in UTC from when, and until when, it holds; the page shows times in the viewer's zone.
const INSTANT = "\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d";
const PERIOD = new RegExp(`from (${INSTANT})(?: until (${INSTANT}))? UTC`);
const here = (utc) => {
  const at = Date.parse(`${utc.replace(" ", "T")}Z`);
  return `${dayFormat.format(at)} ${clock(at)}`;
};
export const local = (text) => text.replace(PERIOD, (_, from, until) => `from ${here(from)}${until ? ` until ${here(until)}` : ""}`);
export const number = (value) => (value === null || value === undefined ? "–" : numberFormat.format(value));
export const watts = (value) => (value === null || value === undefined ? "–" : `${number(Math.round(value))} W`);
// Names in the order of people: node-2 before node-10.
export const inOrder = new Intl.Collator([], { numeric: true }).compare;
export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;

export function age(seconds) {
  const found = [[86400, "d"], [3600, "h"], [60, "min"]].find(([unit]) => seconds >= 2 * unit);
  return found ? `${Math.round(seconds / found[0])} ${found[1]}` : `${Math.max(0, Math.round(seconds))} s`;
}

// The theme's colours, read once a theme: reading a computed style makes the browser lay the page out.
let colours = null;
const NAMES = ["text", "dim", "line", "bad", "accent", "band", "s1", "s2", "s3", "s4", "s5"];
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (colours = null));
export function palette() {
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    colours = Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }
  return colours;
}

// An element with text and children. Never HTML: names come from the bus.
export function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name === "class") made.className = value;
    else if (name === "click") made.addEventListener("click", value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Replace the children only where the text differs, so that a screen reader and a selection are left alone.
export function replaceLines(list, lines, make) {
  const key = JSON.stringify(lines);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...lines.map(make));
}
