// Steering, where the server carries out commands: forms, and a token that is kept in this page's memory and nowhere else.
import { clock, element, inOrder } from "./format.js";
import { known, named } from "./stream.js";

const find = (id) => document.getElementById(id);
const FOLLOWED_MS = 10 * 60e3;
let token = "";
let sent = null; // The last command: what it is about, and when it was given.

// Show the forms where the server steers; `chosen()` is the deployment that the page shows.
export async function offer(chosen) {
  try {
    const answer = await fetch("steer");
    if (!answer.ok || !(await answer.json()).steers) return;
  } catch {
    return; // Read-only, as far as this page can tell.
  }
  find("steer").hidden = false;
  find("steer-deployment").elements.deployment.addEventListener("change", () => pools(true));
  find("steer-deployment").addEventListener("submit", (event) => submitted(event, deploymentCommand));
  find("steer-budget").addEventListener("submit", (event) => submitted(event, budgetCommand));
  // Enter in a field would press the form's first button, which pins: a command is given by its own button alone.
  for (const form of document.querySelectorAll("#steer form")) form.addEventListener("keydown", (event) => event.key === "Enter" && event.target.localName !== "button" && event.preventDefault());
  find("token-forget").addEventListener("click", () => {
    keep("");
    say("the token is forgotten");
  });
  addEventListener("pagehide", () => keep(""));
  showSteer(chosen());
}

// Bring the names in the forms up to date, and what followed the last command.
export function showSteer(chosen) {
  if (find("steer").hidden) return;
  const select = find("steer-deployment").elements.deployment, empty = !select.value;
  options(select, named("deployment"));
  options(find("steer-budget").elements.site, named("site"));
  if (empty && chosen !== null) select.value = chosen;
  pools(false);
  follow();
}

function options(select, found) {
  const names = found.map(([name]) => name).sort(inOrder), key = JSON.stringify(names);
  if (select.dataset.key === key) return;
  const before = select.value;
  select.dataset.key = key;
  select.replaceChildren(...names.map((name) => element("option", { text: name, value: name })));
  if (names.includes(before)) select.value = before;
}

// One number for each pool, at first what is granted. Only another deployment, or another set of pools, replaces them.
function pools(anew) {
  const name = find("steer-deployment").elements.deployment.value, found = known.parts.get(`deployment/${name}`)?.pools || [];
  const holder = find("steer-pools"), key = JSON.stringify([name, ...found.map((pool) => pool.name)]);
  if (holder.dataset.key === key && !anew) return;
  holder.dataset.key = key;
  holder.replaceChildren(...found.map((pool) =>
    element("label", {}, `${pool.name} `, element("input", { type: "number", min: "0", step: "1", value: String(pool.granted), "data-pool": pool.name }))));
}

function deploymentCommand(action, form) {
  const command = { action, deployment: form.deployment.value, reason: form.reason.value };
  if (action === "pin") {
    const inputs = [...find("steer-pools").querySelectorAll("input")].filter((one) => one.value !== "");
    command.replicas = Object.fromEntries(inputs.map((one) => [one.dataset.pool, Number(one.value)]));
  }
  return command;
}

function budgetCommand(action, form) {
  const command = { action, site: form.site.value, reason: form.reason.value, ramp_s: Number(form.ramp_s.value) };
  if (action === "budget-set") {
    command.watts = Number(form.watts.value);
    if (form.for_s.value !== "") command.for_s = Number(form.for_s.value);
  }
  return command;
}

async function submitted(event, read) {
  event.preventDefault();
  const command = read(event.submitter.value, event.target.elements);
  if (!token && !(await asked())) return say("not sent: without a token this page is read-only");
  for (const button of document.querySelectorAll("#steer form button")) button.disabled = true;
  try {
    await send(command);
  } catch (error) {
    say(`not sent: ${error.message}`, true);
  } finally {
    for (const button of document.querySelectorAll("#steer form button")) button.disabled = false;
  }
}

async function send(command) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json", "X-Wattscale-Steer": "1" };
  const body = JSON.stringify(command);
  const answer = await fetch("steer", { method: "POST", headers, body, credentials: "omit", redirect: "error" });
  if (answer.status === 401) keep("");
  if (!answer.ok) return say(`not done: ${(await answer.text()).trim()}`, true);
  const { line, note, by, t } = await answer.json();
  say(`${clock(t)} ${line}, by ${by}${note ? `; note: ${note}` : ""}`);
  sent = { t, deployment: command.deployment, site: command.site };
  find("steer-since").textContent = "waiting for the planner's next tick …";
}

// What the newest tick after the command decided: the same reasons as in the answers above.
function follow() {
  if (sent === null || Date.now() - sent.t > FOLLOWED_MS) return;
  const parts = named("deployment").filter(([name, part]) => (sent.deployment ? name === sent.deployment : part.site === sent.site));
  const newer = parts.filter(([, part]) => part.tick > sent.t);
  if (!newer.length) return;
  const tick = Math.max(...newer.map(([, part]) => part.tick));
  const what = sent.deployment
    ? newer.flatMap(([, part]) => part.pools.map((pool) => `${pool.name} ${pool.granted}: ${pool.reason}`)).join("; ")
    : known.parts.get(`site/${sent.site}`)?.line;
  const text = `since then, by ${sent.deployment || sent.site}: ${what}`, line = find("steer-since");
  if (line.dataset.what === text) return;
  line.dataset.what = text;
  line.textContent = `tick of ${clock(tick)} ${text}`;
}

function say(text, bad = false) {
  const line = find("steer-state");
  line.textContent = text;
  line.className = bad ? "bad" : "";
}

function keep(text) {
  token = text;
  find("token-forget").disabled = !text;
}

// Ask for the token; whether there is one now. The field is emptied at once.
function asked() {
  const dialog = find("token"), text = find("token-text");
  return new Promise((done) => {
    const end = () => {
      text.value = "";
      dialog.removeEventListener("close", end);
      find("token-form").onsubmit = find("token-cancel").onclick = null;
      done(Boolean(token));
    };
    dialog.addEventListener("close", end);
    find("token-cancel").onclick = () => dialog.close();
    find("token-form").onsubmit = (event) => {
      event.preventDefault();
      keep(text.value.trim());
      dialog.close();
    };
    dialog.showModal();
  });
}
