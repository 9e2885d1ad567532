// Everything on the page that is text: answers, problems, tables, the timeline. Each is written again only if it differs.
import { age, clock, element, inOrder, local, moment, number, replaceLines, watts } from "./format.js";
import { known, named } from "./stream.js";

const MOST_ROWS = 120;
const SHOWN_EVENTS = 150;
const find = (id) => document.getElementById(id);

export function showConnection() {
  const bus = known.parts.get("overview")?.bus, line = find("connection");
  let text = "live", bad = false;
  if (!known.connected) {
    text = known.lostAt ? `no connection to the dashboard since ${clock(known.lostAt)}: what is shown is of then; trying again` : "connecting …";
    bad = Boolean(known.lostAt);
  } else if (bus && !bus.connected) {
    text = `the bus cannot be reached since ${clock(bus.since)}${bus.trouble ? ` (${bus.trouble})` : ""}: what is shown is of then`;
    bad = true;
  } else if (bus && !bus.read) {
    text = "reading the bus …";
  }
  if (line.textContent !== text) line.textContent = text;
  line.classList.toggle("bad", bad);
}

export function showOverview() {
  const overview = known.parts.get("overview");
  if (!overview?.bus.read) return; // Of what was not read yet nothing is known, and what was shown before stays.
  const wrong = [...overview.problems, ...overview.missed_targets, ...overview.hints];
  find("problems-section").hidden = wrong.length === 0;
  replaceLines(find("problems"), wrong, (text) => element("li", { text }));
  find("leader").textContent = overview.leader ? `leader: ${overview.leader}` : "no planner leads";
  const planners = [
    overview.leader ? `${overview.leader} leads; its lease lasts until ${clock(overview.lease_until)} unless renewed` : "no planner leads",
    ...overview.standby.map((one) => `${one.name} stands by`),
  ];
  replaceLines(find("planners"), planners, (text) => element("li", { text }));
}

export function showAnswers() {
  for (const [name, answer] of Object.entries(known.parts.get("answers") || {})) {
    const article = document.querySelector(`[data-answer="${name}"]`);
    article.classList.toggle("unwell", !answer.well);
    replaceLines(article, [answer.question, ...answer.lines], (text, index) => (index ? element("p", { text }) : element("h3", { text })));
  }
}

export function showSites() {
  const rows = named("site").map(([name, site]) => [name, site.line, ...site.commands.map((one) => local(`${one.text}: ${one.state}`))]);
  replaceLines(find("sites"), rows, ([name, line, ...commands]) =>
    element("div", {}, element("p", { text: `${name}: ${line}` }), element("ul", {}, ...commands.map((text) => element("li", { text })))));
}

// A body of rows for each deployment, one row a pool; only those that changed are made again. `choose(name)` shows a
// deployment's charts, `newest(name)` the explanation of its newest tick.
const bodies = new Map();

export function showDeployments(chosen, choose, newest) {
  const table = find("deployments"), found = named("deployment");
  for (const [name, part] of found) {
    const { tick, ...rest } = part, key = JSON.stringify([rest, name === chosen]), before = bodies.get(name);
    if (before?.key === key) continue;
    const body = before?.body || element("tbody");
    bodies.set(name, { key, body });
    keepingFocus(body, () => body.replaceChildren(...rows(name, part, name === chosen, choose, newest)));
  }
  if (table.tBodies.length !== found.length) {
    const names = [...bodies.keys()].sort(inOrder);
    table.append(...names.map((name) => bodies.get(name).body));
  }
}

function rows(name, part, is, choose, newest) {
  const high = part.pools.length || 1;
  const cell = (text, bad = false) => element("td", { text, class: bad ? "bad" : "", rowspan: high });
  const button = element("button", { class: "link", text: name, "aria-pressed": String(is), click: () => choose(name) });
  const first = [
    element("th", { scope: "rowgroup", rowspan: high }, button, ...(part.class ? [` (${part.class})`] : [])),
    cell(part.load), cell(part.ttft.text, part.ttft.missed), cell(part.itl.text, part.itl.missed),
  ];
  const kind = is ? "chosen" : "";
  if (!part.pools.length) return [element("tr", { class: kind }, ...first, element("td", { colspan: 8, text: part.trouble }))];
  return part.pools.map((pool, index) => {
    const why = element("button", { class: "link", text: pool.name, "aria-label": `${pool.name}: why ${name} has that many`, click: () => newest(name) });
    const waits = [...pool.waits_for_watts, index === 0 && part.trouble].filter(Boolean).join("; ") || "no";
    return element("tr", { class: kind }, ...(index === 0 ? first : []),
      element("td", {}, why, ` (${pool.role})`),
      ...[pool.desired, pool.granted, pool.ready, pool.starting, pool.draining].map((value) => element("td", { text: number(value) })),
      element("td", { text: watts(pool.cap) }),
      element("td", { class: "wide", text: waits }));
  });
}

function keepingFocus(root, replace) {
  const focused = root.contains(document.activeElement) ? document.activeElement.textContent : null;
  replace();
  if (focused) [...root.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
}

export function eventLine(event, open) {
  const text = event.id === null ? element("span", { text: local(event.text) }) : element("button", { class: "link", text: local(event.text), click: () => open(event) });
  return element("li", { class: event.well ? "" : "bad" }, element("time", { text: moment(event.t), datetime: new Date(event.t).toISOString() }), text);
}

export function showTimeline(open) {
  const kinds = new Set([...document.querySelectorAll("[name=kind]:checked")].map((box) => box.value));
  const shown = known.events.filter((event) => kinds.has(event.kind)).slice(-SHOWN_EVENTS).reverse();
  const list = find("timeline"), key = JSON.stringify(shown);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  keepingFocus(list, () => list.replaceChildren(...shown.map((event) => eventLine(event, open))));
}

// Rows are kept, and only the cells whose text differs are written: ages change every second.
const agentRows = [];

function agentRow(body, index) {
  if (!agentRows[index]) {
    const cells = [element("th", { scope: "row" }), ...Array.from({ length: 6 }, () => element("td"))];
    agentRows[index] = cells;
    body.append(element("tr", {}, ...cells));
  }
  return agentRows[index];
}

const numbered = (id) => (id < 0 ? "none" : `#${id}`);

export function showAgents() {
  const overview = known.parts.get("overview");
  if (!overview?.bus.read) return; // What is half read would be shown as nodes that never reported.
  const silent = new Set(overview.silent), now = Date.now() / 1000;
  const rows = named("node").map(([name, part]) => {
    const [seen, ...draws] = known.parts.get(`draw/${name}`) || [null], lease = known.parts.get(`lease/${name}`);
    const left = lease.renewed === null ? null : lease.renewed / 1000 + lease.lease_s - now;
    const rank = silent.has(name) ? 0 : lease.waits ? 1 : 2;
    return { name, part, lease, seen, draws, left, rank };
  });
  rows.sort((a, b) => a.rank - b.rank || inOrder(a.name, b.name));
  const sum = (values) => values.reduce((total, value) => total + (value || 0), 0);
  const cells = rows.slice(0, MOST_ROWS).map(({ name, part, lease, seen, draws, left, rank }) => [
    name,
    seen === null ? "never" : `${age(now - seen)} ago${rank === 0 ? ", silent" : ""}`,
    left === null ? "none" : !lease.lapses ? "none needed: at the fallback" : left > 0 ? `${age(lease.lease_s - left)} old, of ${number(lease.lease_s)} s` : `over for ${age(-left)}`,
    numbered(lease.decision), lease.waits ? `${numbered(lease.applied)}, waits for #${lease.decision}` : numbered(lease.applied),
    watts(sum(draws)), watts(sum(part.gpus.map((gpu) => gpu[3]))),
  ]);
  for (const cells of agentRows.splice(Math.min(rows.length, MOST_ROWS))) cells[0].parentElement.remove();
  cells.forEach((texts, index) => {
    const row = agentRow(find("agents"), index);
    texts.forEach((text, place) => {
      if (row[place].textContent === text) return;
      row[place].textContent = text;
      row[place].className = place && /silent|over for/.test(text) ? "bad" : "";
    });
  });
  find("agents-more").textContent = rows.length > MOST_ROWS ? `and ${rows.length - MOST_ROWS} more nodes that are well` : "";
}
