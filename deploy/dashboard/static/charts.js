// One chart of lines, steps and a band over time, on a canvas. A gap in the data is a gap in the line, and has no value.
import { clock, element, number, palette, replaceLines } from "./format.js";

const PAD = { left: 54, right: 18, top: 8, bottom: 20 };
// Between two marks of the time axis, in ms.
const MARKS = [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200].map((seconds) => seconds * 1e3);
const colour = (name) => palette()[name];
const LEAST_MS = 5e3; // No period that is shown is shorter.
const DRAGGED = 8; // Pixels from which a press that moves chooses a period.

export class Chart {
  // `band`: its name. `zoom(period)`: called with the period that was chosen on this chart, null for all that is known.
  // `whole`: its values are counts.
  constructor(figure, title, unit, { band = null, whole = false, zoom = () => {} } = {}) {
    Object.assign(this, { figure, title, unit, band, whole, zoom, period: null, pressed: null });
    this.canvas = element("canvas", { role: "img", tabindex: "0", "aria-label": `${title}: nothing yet` });
    this.legend = element("p", { class: "legend" });
    this.readout = element("p", { class: "legend", "aria-live": "polite" });
    this.body = element("tbody");
    this.head = element("tr");
    const table = element("table", {}, element("thead", {}, this.head), this.body);
    const scroll = element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": `${title} as a table` }, table);
    this.details = element("details", {}, element("summary", { text: "as a table" }), scroll);
    figure.replaceChildren(element("figcaption", { text: unit ? `${title} (${unit})` : title }), this.canvas, this.legend, this.readout, this.details);
    this.data = { lines: [], band: [], marks: [] };
    this.at = null;
    this.canvas.addEventListener("pointermove", (event) => this.choose(this.time(event.offsetX)));
    this.canvas.addEventListener("pointerleave", () => this.pressed === null && this.choose(null));
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointerup", (event) => this.release(event.offsetX));
    this.canvas.addEventListener("pointercancel", () => (this.pressed = null));
    this.canvas.addEventListener("dblclick", () => this.zoom(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.details.addEventListener("toggle", () => this.table());
    // Sizes are taken from observers, and what is not in sight is not drawn: both would lay the page out in every update.
    this.width = this.height = 0;
    this.seen = false;
    new ResizeObserver(([entry]) => {
      ({ width: this.width, height: this.height } = entry.contentRect);
      this.draw();
    }).observe(this.canvas);
    new IntersectionObserver(([entry]) => ((this.seen = entry.isIntersecting), this.draw())).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  // `lines`: [{name, colour: 1..5, step, dashed, ramp, gap, points: [[ms, value], ...]}], where `ramp` is a value that moves
  // evenly from point to point, and `gap` after how many ms a point says nothing any more; `band`: [[ms, low, high], ...].
  show(data) {
    this.data = { band: [], ...data, lines: data.lines.filter((line) => line.points.length) };
    const names = [...this.data.lines.map((line) => [line.colour, line.name, line.dashed]), ...(this.data.band.length ? [[0, this.band]] : [])];
    replaceLines(this.legend, names, ([colour, text, dashed]) => element("span", { class: `c${colour}${dashed ? " dashed" : ""}`, text }));
    this.canvas.setAttribute("aria-label", `${this.title}: ${this.summary()}`);
    this.draw();
    this.table();
  }

  summary() {
    const parts = this.data.lines.map((line) => {
      const [at, value] = line.points.at(-1);
      return `${line.name} ${number(value)}${this.unit && ` ${this.unit}`} at ${clock(at)}`;
    });
    return parts.join("; ") || "nothing yet";
  }

  // What is drawn: all that is known, or the chosen period's part of it, as high as its values are.
  range() {
    const times = [...this.data.lines.flatMap((line) => line.points), ...this.data.band].map(([at]) => at);
    if (!times.length) return null;
    const all = { first: times.reduce((a, b) => Math.min(a, b)), last: times.reduce((a, b) => Math.max(a, b)) };
    all.last = Math.max(all.last, all.first + 60e3);
    const { from = all.first, to = all.last } = this.period || {};
    const first = Math.min(Math.max(from, all.first), all.last - LEAST_MS), last = Math.max(Math.min(to, all.last), first + LEAST_MS);
    // A point counts until the next one, so that a line that enters from the left has its height too.
    const within = (points) => points.filter(([at], index) => at <= last && (points[index + 1]?.[0] ?? at) >= first);
    const values = [...this.data.lines.flatMap((line) => within(line.points).map(([, value]) => value)), ...within(this.data.band).map(([, , high]) => high)];
    return { first, last, top: values.reduce((a, b) => Math.max(a, b), 0) * 1.08 || 1, all };
  }

  draw() {
    const { canvas, width, height } = this, ratio = window.devicePixelRatio || 1;
    if (!width || !this.seen) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const range = this.range();
    if (!range) return;
    const x = (at) => PAD.left + ((at - range.first) / (range.last - range.first)) * (width - PAD.left - PAD.right);
    const y = (value) => height - PAD.bottom - (value / range.top) * (height - PAD.top - PAD.bottom);
    this.scale = { range, width };
    this.axes(pen, x, y, range, width, height);
    pen.save();
    pen.beginPath();
    pen.rect(PAD.left, 0, width - PAD.left - PAD.right, height);
    pen.clip();
    this.drawBand(pen, x, y);
    for (const line of this.data.lines) this.line(pen, line, x, y);
    if (this.pressed !== null && this.at !== null) {
      pen.fillStyle = colour("band");
      pen.fillRect(x(this.pressed), PAD.top, x(this.at) - x(this.pressed), height - PAD.top - PAD.bottom);
    }
    pen.restore();
    const now = Date.now();
    for (const at of [now, this.at]) {
      if (at === null || at < range.first || at > range.last) continue;
      pen.strokeStyle = colour(at === now ? "line" : "accent");
      pen.setLineDash(at === now ? [2, 3] : []);
      pen.beginPath();
      pen.moveTo(x(at), PAD.top);
      pen.lineTo(x(at), height - PAD.bottom);
      pen.stroke();
      pen.setLineDash([]);
    }
  }

  axes(pen, x, y, range, width, height) {
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = colour("dim");
    pen.strokeStyle = colour("line");
    pen.lineWidth = 1;
    const raw = range.top / 4, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= raw && (!this.whole || Number.isInteger(size))) || 1;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (let value = 0; value <= range.top; value += step) {
      pen.beginPath();
      pen.moveTo(PAD.left, y(value));
      pen.lineTo(width - PAD.right, y(value));
      pen.stroke();
      pen.fillText(number(value), PAD.left - 6, y(value));
    }
    pen.textAlign = "center";
    pen.textBaseline = "top";
    const apart = MARKS.find((size) => (range.last - range.first) / size <= 6) || 86400e3;
    for (let at = Math.ceil(range.first / apart) * apart; at <= range.last; at += apart) {
      pen.fillText(apart < 60e3 ? clock(at) : clock(at).slice(0, 5), x(at), height - PAD.bottom + 5);
    }
  }

  drawBand(pen, x, y) {
    const gap = this.gap(), pieces = [];
    this.data.band.forEach((point, index, band) => {
      if (!index || point[0] - band[index - 1][0] > gap) pieces.push([]);
      pieces.at(-1).push(point);
    });
    pen.fillStyle = colour("band");
    for (const piece of pieces) {
      pen.beginPath();
      piece.forEach(([at, , high], index) => (index ? pen.lineTo(x(at), y(high)) : pen.moveTo(x(at), y(high))));
      [...piece].reverse().forEach(([at, low]) => pen.lineTo(x(at), y(low)));
      pen.fill();
    }
  }

  line(pen, line, x, y) {
    pen.strokeStyle = colour(`s${line.colour}`);
    pen.lineWidth = 1.8;
    pen.setLineDash(line.dashed ? [5, 4] : []);
    pen.beginPath();
    let before = null;
    for (const [at, value] of line.points) {
      const gap = before === null || (line.gap && at - before[0] > line.gap);
      if (gap) pen.moveTo(x(at), y(value));
      else {
        if (line.step) pen.lineTo(x(at), y(before[1]));
        pen.lineTo(x(at), y(value));
      }
      before = [at, value];
    }
    pen.stroke();
    pen.setLineDash([]);
  }

  // The instant below a place on the canvas.
  time(offset) {
    if (!this.scale) return null;
    const { range, width } = this.scale, share = (offset - PAD.left) / (width - PAD.left - PAD.right);
    return range.first + Math.min(Math.max(share, 0), 1) * (range.last - range.first);
  }

  // A finger scrolls the page: a period is chosen by a mouse or a pen, by keys, or above the charts.
  press(event) {
    if (event.pointerType === "touch" || event.button !== 0) return;
    this.pressed = this.time(event.offsetX);
    this.pressedAt = event.offsetX;
    this.canvas.setPointerCapture(event.pointerId);
  }

  release(offset) {
    const from = this.pressed, to = this.time(offset);
    this.pressed = null;
    if (from === null || to === null) return;
    if (Math.abs(offset - this.pressedAt) < DRAGGED) return this.draw();
    this.zoom({ from: Math.min(from, to), to: Math.max(from, to) });
  }

  key(event) {
    const range = this.scale?.range, { first, last } = range || {};
    if (range && ["+", "-", "0"].includes(event.key)) {
      event.preventDefault();
      if (event.key === "0") return this.zoom(null);
      const middle = this.at ?? (first + last) / 2, half = ((last - first) / 2) * (event.key === "+" ? 0.5 : 2);
      const from = middle - half, to = middle + half;
      return this.zoom(from <= range.all.first && to >= range.all.last ? null : { from, to });
    }
    const known = this.data.lines.flatMap((line) => line.points.map(([at]) => at));
    const times = [...new Set(known)].filter((at) => !range || (at >= first && at <= last)).sort((a, b) => a - b);
    const index = this.at === null ? times.length - 1 : times.findLastIndex((at) => at <= this.at);
    const next = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: times.length - 1 }[event.key];
    if (next === undefined || !times.length) return;
    event.preventDefault();
    this.choose(times[Math.min(Math.max(next, 0), times.length - 1)]);
  }

  choose(at) {
    this.at = at;
    const unit = this.unit && ` ${this.unit}`, found = at === null ? [] : this.data.lines.map((line) => [line.name, valueAt(line, at)]);
    const texts = found.filter(([, value]) => value !== undefined).map(([name, value]) => `${name} ${number(value)}${unit}`);
    const [, low, high] = (at !== null && this.data.band.findLast(([time]) => time <= at && at - time <= this.gap())) || [];
    if (low !== undefined) texts.push(`${this.band} ${number(low)} to ${number(high)}${unit}`);
    this.readout.textContent = texts.length ? `${clock(at)}: ${texts.join(", ")}` : "";
    this.draw();
  }

  gap() {
    return this.data.lines.find((line) => line.gap)?.gap || Infinity;
  }

  table() {
    if (!this.details.open) return;
    const { lines } = this.data, rows = new Map();
    lines.forEach((line, column) => line.points.slice(-30).forEach(([at, value]) => {
      if (!rows.has(at)) rows.set(at, Array(lines.length).fill(null));
      rows.get(at)[column] = value;
    }));
    this.head.replaceChildren(...["time", ...lines.map((line) => line.name)].map((text) => element("th", { scope: "col", text })));
    const sorted = [...rows].sort(([a], [b]) => b - a).slice(0, 30);
    this.body.replaceChildren(...sorted.map(([at, values]) =>
      element("tr", {}, element("th", { scope: "row", text: clock(at) }), ...values.map((value) => element("td", { text: number(value) })))));
  }
}

// A line's value at an instant: its reading until the next one, and none before the first, in a gap, or past the last.
function valueAt({ points, gap, ramp }, at) {
  const index = points.findLastIndex(([time]) => time <= at);
  if (index < 0) return undefined;
  const [time, value] = points[index], next = points[index + 1];
  if (gap ? at - time > gap : !next && at > time) return undefined;
  return ramp && next ? value + ((next[1] - value) * (at - time)) / (next[0] - time || 1) : value;
}
