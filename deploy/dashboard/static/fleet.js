// The fleet as a heat map on a canvas: one field a GPU, a row of fields a node; the choice moves by pointer and keys.
import { element, inOrder, number, palette, replaceLines, watts } from "./format.js";
import { named } from "./stream.js";

const FIELDS = ["gpu", "index", "model", "cap", "maximum", "deployment", "pool", "role", "pod", "health", "covered"];
const GAP = 1, NODE_GAP = 4, SMALLEST = 4, LARGEST = 26;

export class Fleet {
  constructor(canvas, readout, legend) {
    Object.assign(this, { canvas, readout, legend, gpus: [], chosen: -1, odd: {}, draws: new Map() });
    canvas.addEventListener("pointerdown", (event) => this.choose(this.under(event.offsetX, event.offsetY)));
    canvas.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.choose(this.under(event.offsetX, event.offsetY)));
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.layout()).observe(canvas.parentElement);
    // What is not in sight is not painted.
    this.seen = false;
    new IntersectionObserver(([entry]) => ((this.seen = entry.isIntersecting), this.paint())).observe(canvas);
    for (const [role, hue] of [["prefill", 28], ["decode", 212], ["aggregated", 150], ["no worker", null]]) {
      const field = document.createElement("span");
      field.textContent = role;
      field.className = hue === null ? "c5" : { 28: "c2", 212: "c1", 150: "c3" }[hue];
      legend.append(field);
    }
  }

  // Take the newest parts. `nodes`: whether anything but draws changed.
  update(parts, nodes) {
    this.odd = parts.get("odd") || {};
    if (nodes) {
      this.gpus = [];
      for (const [node, part] of named("node").sort(([a], [b]) => inOrder(a, b))) {
        part.gpus.forEach((gpu, place) => this.gpus.push({ node, place, part: `draw/${node}`, ...Object.fromEntries(FIELDS.map((name, i) => [name, gpu[i]])) }));
      }
      this.layout();
    }
    this.draws = parts;
    this.paint();
    this.list();
  }

  // Every odd GPU in words, for those whom a frame on the canvas does not tell enough.
  list() {
    const odd = this.gpus.filter((gpu) => gpu.gpu in this.odd).map((gpu) => `${gpu.node} ${gpu.index === null ? gpu.gpu : `GPU ${gpu.index}`}: ${this.odd[gpu.gpu]}`);
    replaceLines(document.querySelector("#odd ul"), odd, (text) => element("li", { text }));
    const summary = document.querySelector("#odd summary"), text = odd.length ? `${odd.length} odd GPU${odd.length > 1 ? "s" : ""}` : "no odd GPU";
    if (summary.textContent !== text) summary.textContent = text;
  }

  draw(gpu) {
    return this.draws.get(gpu.part)?.[gpu.place + 1] ?? null;
  }

  layout() {
    const width = this.canvas.parentElement.clientWidth - 26, count = this.gpus.length;
    if (!count || width <= 0) return;
    const nodes = Map.groupBy ? Map.groupBy(this.gpus, (gpu) => gpu.node) : group(this.gpus);
    const size = Math.max(SMALLEST, Math.min(LARGEST, Math.floor(Math.sqrt((width * 320) / count)) - GAP));
    let x = 0, y = 0;
    for (const gpus of nodes.values()) {
      const wide = gpus.length * (size + GAP);
      if (x && x + wide > width) (x = 0), (y += size + NODE_GAP);
      for (const gpu of gpus) {
        if (x + size > width) (x = 0), (y += size + NODE_GAP);
        gpu.x = x;
        gpu.y = y;
        x += size + GAP;
      }
      x += NODE_GAP;
    }
    this.size = size;
    const ratio = window.devicePixelRatio || 1, height = y + size + NODE_GAP;
    this.canvas.style.height = `${height}px`;
    this.canvas.style.width = `${width}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.ratio = ratio;
    this.paint();
  }

  paint() {
    if (!this.size) return;
    this.label();
    if (!this.seen) return;
    const pen = this.canvas.getContext("2d"), { size } = this;
    const colours = palette();
    const byRole = { prefill: colours.s2, decode: colours.s1, aggregated: colours.s3 };
    pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const gpu of this.gpus) {
      const drawn = this.draw(gpu), share = drawn === null || !gpu.cap ? 0 : Math.min(1, drawn / gpu.cap);
      pen.globalAlpha = 1;
      pen.fillStyle = colours.line;
      pen.fillRect(gpu.x, gpu.y, size, size);
      pen.globalAlpha = 0.35 + 0.65 * share;
      pen.fillStyle = byRole[gpu.role] || colours.s5;
      const high = size * share;
      pen.fillRect(gpu.x, gpu.y + size - high, size, high);
      if (gpu.gpu in this.odd) {
        pen.globalAlpha = 1;
        pen.strokeStyle = colours.bad;
        pen.lineWidth = 2;
        pen.strokeRect(gpu.x + 1, gpu.y + 1, size - 2, size - 2);
      }
    }
    pen.globalAlpha = 1;
    const chosen = this.gpus[this.chosen];
    if (chosen) {
      pen.strokeStyle = colours.accent;
      pen.lineWidth = 2;
      pen.strokeRect(chosen.x - 1, chosen.y - 1, size + 2, size + 2);
      this.describe(chosen);
    }
  }

  label() {
    let total = 0, caps = 0;
    for (const gpu of this.gpus) (total += this.draw(gpu) || 0), (caps += gpu.cap || 0);
    this.canvas.setAttribute("aria-label", `${this.gpus.length} GPUs draw ${number(total)} W of caps of ${number(caps)} W; ${Object.keys(this.odd).length} odd`);
  }

  under(x, y) {
    return this.gpus.findIndex((gpu) => x >= gpu.x && x < gpu.x + this.size + GAP && y >= gpu.y && y < gpu.y + this.size + NODE_GAP);
  }

  choose(index) {
    if (index < 0 || index === this.chosen) return;
    this.chosen = index;
    this.paint();
  }

  key(event) {
    const row = this.gpus.filter((gpu) => gpu.y === this.gpus[Math.max(0, this.chosen)]?.y).length || 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || !this.gpus.length) return;
    event.preventDefault();
    this.choose(Math.min(Math.max(this.chosen + step, 0), this.gpus.length - 1));
  }

  describe(gpu) {
    const parts = [
      `${gpu.node} GPU ${gpu.index ?? gpu.gpu}`,
      `${watts(this.draw(gpu))} of ${watts(gpu.cap)}`,
      gpu.role ? `${gpu.role} (${gpu.deployment} ${gpu.pool})` : "no worker",
      gpu.pod ? `pod ${gpu.pod}` : "",
      gpu.health,
      gpu.covered ? "" : "outside the budget",
      this.odd[gpu.gpu] ? `odd: ${this.odd[gpu.gpu]}` : "",
    ];
    const text = parts.filter(Boolean).join(" · ");
    if (this.readout.textContent !== text) this.readout.textContent = text;
  }
}

function group(gpus) {
  const found = new Map();
  for (const gpu of gpus) found.set(gpu.node, [...(found.get(gpu.node) || []), gpu]);
  return found;
}
