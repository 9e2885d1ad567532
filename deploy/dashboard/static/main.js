// The page: connects, and shows what arrives. Shows only what the server states, and decides nothing.
import { Fleet } from "./fleet.js";
import { clock, zone } from "./format.js";
import { eventLine, showAgents, showAnswers, showConnection, showDeployments, showOverview, showSites, showTimeline } from "./panels.js";
import { offer, showSteer } from "./steer.js";
import { connect, known, named } from "./stream.js";
import { Trends } from "./trends.js";

const AROUND_MS = 60e3;
const find = (id) => document.getElementById(id);
const fleet = new Fleet(find("fleet"), find("gpu"), find("legend"));
const trends = new Trends(document);
let chosen = null;

function explain(title, text) {
  find("story-title").textContent = title;
  find("story-text").textContent = text;
  const dialog = find("story");
  if (!dialog.open) dialog.showModal();
}

// The text of `wattscale explain`, in the dialog.
async function asked(title, query) {
  explain(title, "reading …");
  try {
    const answer = await fetch(`explain?${query}`);
    explain(title, await answer.text());
  } catch {
    explain(title, "the dashboard does not answer; try again when it is connected");
  }
}

function open(event) {
  const who = event.kind === "watts" ? "node" : "deployment";
  return asked(`${event.who}, decision #${event.id}`, `${who}=${encodeURIComponent(event.who)}&decision=${event.id}`);
}

const newest = (name) => asked(`${name}, newest tick`, `deployment=${encodeURIComponent(name)}`);

async function choose(name) {
  chosen = name;
  find("chosen").textContent = name;
  deployments();
  await trends.choose(name, known.parts.get(`deployment/${name}`));
  charts();
}

function deployments() {
  showDeployments(chosen, choose, newest);
}

function charts() {
  const part = known.parts.get(`deployment/${chosen}`);
  trends.show(part, part && known.parts.get(`site/${part.site}`));
}

function changed(keys, data) {
  const has = (start) => keys === null || keys.some((key) => key.startsWith(start));
  if (keys === null) trends.forget();
  trends.add(data.points);
  showOverview();
  if (has("answers")) showAnswers();
  if (has("site/")) showSites();
  if (keys === null || data.events.length) showTimeline(open);
  fleet.update(known.parts, has("node/"));
  if (has("node/") && !find("agents").rows.length) showAgents(); // The clock below keeps it current.
  if (has("deployment/") || has("site/")) showSteer(chosen);
  showConnection();
  const first = named("deployment").map(([name]) => name).sort()[0];
  // A deployment that is shown before its first record was read learns its site later.
  const moved = known.parts.has(`deployment/${chosen}`) && known.parts.get(`deployment/${chosen}`).site !== trends.site;
  if ((keys === null || chosen === null || moved) && first !== undefined) choose(known.parts.has(`deployment/${chosen}`) ? chosen : first);
  else if (has("deployment/")) deployments();
  // The charts move with their own points: with many deployments something else changes in every update.
  if (keys === null || data.points[chosen] || keys.some((key) => key === `deployment/${chosen}` || key === `site/${trends.site}`)) charts();
}

find("zone").textContent = `times in ${zone()}`;
for (const box of document.querySelectorAll("[name=kind]")) box.addEventListener("change", () => showTimeline(open));
find("when-time").value = clock(Date.now());
find("when").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [hours, minutes, seconds = 0] = find("when-time").value.split(":").map(Number), at = new Date();
  at.setHours(hours, minutes, seconds, 0);
  // A time that is still to come today was yesterday.
  if (at > Date.now()) at.setDate(at.getDate() - 1);
  const lines = find("when-lines");
  try {
    const answer = await fetch(`happened?from=${+at - AROUND_MS}&to=${+at + AROUND_MS}`);
    if (!answer.ok) throw new Error(await answer.text());
    const { events, complete } = await answer.json();
    lines.replaceChildren(...events.map((one) => eventLine(one, open)));
    if (!events.length) lines.textContent = `nothing was decided within a minute of ${clock(at)}, as far as the bus remembers`;
    if (!complete) lines.append("and more than fit here");
  } catch (error) {
    lines.textContent = error.message;
  }
});
setInterval(() => {
  showConnection();
  showAgents();
}, 1000);
offer(() => chosen);
connect(changed, showConnection);
