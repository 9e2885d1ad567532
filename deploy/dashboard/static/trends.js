// The charts: the chosen deployment's past from the server, and every new point from the stream.
import { Chart } from "./charts.js";
import { clock, number } from "./format.js";

const MOST_POINTS = 3000;
const AHEAD_MS = 15 * 60e3;

export class Trends {
  constructor(root) {
    const figure = (name) => root.querySelector(`[data-chart="${name}"]`);
    const zoom = (period) => this.zoom(period);
    this.charts = {
      watts: new Chart(figure("watts"), "Watts of the site", "W", { zoom }),
      load: new Chart(figure("load"), "Load and forecast", "requests/s", { band: "forecast band", zoom }),
      replicas: new Chart(figure("replicas"), "Replicas", "", { whole: true, zoom }),
      ttft: new Chart(figure("ttft"), "Time to first token", "ms", { zoom }),
      itl: new Chart(figure("itl"), "Inter-token latency", "ms", { zoom }),
      energy: new Chart(figure("energy"), "Energy a token", "J/token", { zoom }),
    };
    this.period = root.getElementById("period");
    this.period.addEventListener("change", () => this.draw());
    this.forget();
  }

  // Show this period in every chart, or with null all that is known.
  zoom(period) {
    this.chosen = period;
    const option = this.period.querySelector("[value=chosen]");
    option.hidden = period === null;
    if (period) option.textContent = `${clock(period.from)} to ${clock(period.to)}`;
    this.period.value = period ? "chosen" : "";
    this.draw();
  }

  // Bring the period that stands above the charts into them: the last minutes move on with the clock.
  limit() {
    const { value } = this.period, period = value === "chosen" ? this.chosen : value ? { from: Date.now() - Number(value) * 60e3 } : null;
    for (const chart of Object.values(this.charts)) chart.period = period;
  }

  draw() {
    this.limit();
    for (const chart of Object.values(this.charts)) chart.draw();
  }

  forget() {
    Object.assign(this, { deployment: null, site: "", own: [], watts: [], asked: 0 });
  }

  // Show another deployment: its past is asked for, and new points wait until it is there.
  async choose(deployment, part) {
    this.deployment = deployment;
    this.site = part.site;
    this.own = [];
    this.watts = [];
    const asked = (this.asked += 1);
    try {
      const answer = await fetch(`series?deployment=${encodeURIComponent(deployment)}`);
      if (!answer.ok || asked !== this.asked) return;
      const past = await answer.json();
      if (asked !== this.asked) return;
      this.own = merged(past.deployment, this.own);
      this.watts = merged(past.site, this.watts);
    } catch {
      // Without an answer the charts begin with the points that still come; the header says what is not connected.
    }
  }

  add(points) {
    if (points[this.deployment]) this.own = merged(this.own, points[this.deployment]);
    if (points[`site/${this.site}`]) this.watts = merged(this.watts, points[`site/${this.site}`]);
  }

  show(part, site) {
    if (!part) return;
    this.limit();
    const { own, watts } = this, gap = longest(own);
    const line = (name, colour, points, more = {}) => ({ name, colour, points: points.filter(([, value]) => value !== undefined && value !== null), gap, ...more });
    const speed = loadSpeed(own);
    const ahead = own.filter((point) => point.ahead).map((point) => [point.t + point.ahead[0] / speed, ...point.ahead.slice(1)]);
    this.charts.load.show({
      lines: [
        line("load", 1, own.map((point) => [point.t, point.rate])),
        line("forecast", 2, ahead.map(([at, mean]) => [at, mean]), { dashed: true }),
      ],
      band: ahead.map(([at, , low, high]) => [at, low, high]),
    });
    const pools = part.pools.map((pool) => pool.name);
    this.charts.replicas.show({
      lines: pools.flatMap((pool, index) => [
        line(`${pool} running`, 1 + (index % 5), own.map((point) => [point.t, point.pools[pool]?.[2]]), { step: true }),
        line(`${pool} desired`, 1 + (index % 5), own.map((point) => [point.t, point.pools[pool]?.[0]]), { step: true, dashed: true }),
      ]),
    });
    for (const [name, key] of [["ttft", "ttft_ms"], ["itl", "itl_ms"]]) {
      const target = part.targets[key];
      this.charts[name].show({
        lines: [
          line("measured", 1, own.map((point) => [point.t, point[key]])),
          ...(target === undefined ? [] : [line("target", 2, own.map((point) => [point.t, target]), { dashed: true })]),
        ],
      });
    }
    this.charts.energy.show({
      lines: [
        line("measured", 1, own.map((point) => [point.t, point.joules_per_token])),
        line("expected", 2, own.map((point) => [point.t, point.expected_joules_per_token]), { dashed: true }),
      ],
    });
    document.getElementById("energy").textContent = energy(watts);
    const over = (key) => watts.map((point) => [point.t, point[key]]);
    this.charts.watts.show({
      lines: [
        line("drawn", 1, over("drawn")),
        line("caps in force", 3, over("caps"), { step: true }),
        line("budget", 2, over("budget"), { step: true }),
        ...(site ? [line("announced budget", 4, announced(site), { dashed: true, gap: 0, ramp: true })] : []),
      ],
    });
  }
}

// Points by time, each instant once, the newest of them.
function merged(past, news) {
  const found = new Map([...past, ...news].map((point) => [point.t, point]));
  return [...found.values()].sort((a, b) => a.t - b.t).slice(-MOST_POINTS);
}

const middle = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const steps = (points) => points.slice(1).map((point, index) => point.t - points[index].t);

// How many seconds of load pass in one second: 1, except where a recorded load is replayed faster.
function loadSpeed(points) {
  const intervals = points.map((point) => point.interval_ms).filter(Boolean);
  if (points.length < 3 || !intervals.length) return 1;
  const speed = middle(intervals) / middle(steps(points));
  return speed > 1.5 ? speed : 1;
}

// What counts as a gap: several times the usual distance of two points.
function longest(points) {
  return points.length > 1 ? 4 * middle(steps(points)) + 2000 : 0;
}

// What was drawn over the charted time, each reading until the next one; gaps are left out and stated.
function energy(points) {
  const most = longest(points);
  let joules = 0, left = 0;
  points.slice(1).forEach((point, index) => {
    const before = points[index], took = point.t - before.t;
    if (took > most || before.drawn === undefined) left += took;
    else joules += (before.drawn * took) / 1000;
  });
  if (!joules) return "";
  const without = left ? `, without gaps of ${number(left / 1000)} s` : "";
  return `${number(joules / 3.6e6)} kWh drawn from ${clock(points[0].t)} to ${clock(points.at(-1).t)}${without}`;
}

// The budget that commands will make, from now on; the end of one is the budget of now, as far as commands say.
function announced(site) {
  const now = Date.now(), line = [];
  const coming = site.commands.filter((one) => one.watts !== null && (one.from > now || one.ramp_s || one.until)).sort((a, b) => a.from - b.from);
  if (!coming.length || site.budget === null) return [];
  let budget = site.budget;
  line.push([now, budget]);
  for (const one of coming) {
    const reached = one.from + one.ramp_s * 1000;
    if (one.from > now) line.push([one.from, budget]);
    if (reached > now) line.push([reached, one.watts]);
    budget = one.watts;
    if (one.until && one.until > now) line.push([one.until, budget]);
  }
  line.push([Math.max(line.at(-1)[0], now + AHEAD_MS), line.at(-1)[1]]);
  return line;
}
