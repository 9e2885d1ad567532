// A connector in another language, from the contract alone: node orchestrator.mjs HOST PORT DEPLOYMENT
import { randomUUID } from "node:crypto";
import net from "node:net";

const [host, port, deployment] = process.argv.slice(2);
const who = deployment.replaceAll(".", "_"), inbox = `_INBOX.${randomUUID()}`;
const decisions = `wattscale.v1.decision.scaling.${who}`, acks = `wattscale.v1.ack.scaling.${who}`;
const socket = net.connect(Number(port), host);
let waiting = Buffer.alloc(0), decision = null;

const get = (stream, subject, to) => socket.write(`PUB $JS.API.DIRECT.GET.${stream}.${subject} ${inbox}.${to} 0\r\n\r\n`);
const newest = () => get("WATTSCALE_DECISIONS", decisions, "decision");

function complete(last) {
  const { decision_id, incarnation, num_prefill_workers, num_decode_workers, pools } = decision;
  if (last?.incarnation === incarnation && last.scaled_decision_id >= decision_id) return;
  const replicas = Object.fromEntries(Object.entries(pools).map(([name, pool]) => [name, pool.replicas]));
  const body = JSON.stringify({ type: "wattscale.v1.scaling_ack", time: new Date().toISOString(), deployment, decision_id,
    scaled_decision_id: decision_id, incarnation, status: "applied", num_prefill_workers, num_decode_workers, replicas,
    actuator: "javascript" });
  const head = `NATS/1.0\r\nNats-Msg-Id: ${deployment}-${incarnation}-${decision_id}-done\r\nContent-Type: application/json\r\n\r\n`;
  socket.write(`HPUB ${acks} ${inbox}.stored ${head.length} ${head.length + Buffer.byteLength(body)}\r\n${head}${body}\r\n`);
}

function receive(subject, head, text) {
  const body = text && !/^NATS\/1.0 404/.test(head) ? JSON.parse(text) : null;
  if (subject.startsWith("wattscale.stored.")) newest(); // a decision was stored: read the newest
  else if (subject.endsWith(".decision") && (decision = body)) get("WATTSCALE_ACKS", acks, "ack");
  else if (subject.endsWith(".ack")) complete(body);
}

socket.write(`CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB ${inbox}.* 1\r\nSUB wattscale.stored.${decisions.slice(10)} 2\r\n`);
newest(), setInterval(newest, 2000); // a wake-up can be lost with a connection
socket.on("data", (part) => {
  for (waiting = Buffer.concat([waiting, part]); ; ) {
    const end = waiting.indexOf("\r\n"), words = waiting.subarray(0, Math.max(end, 0)).toString().split(" ");
    const sizes = /^H?MSG$/.test(words[0]) ? [words[0] === "MSG" ? 0 : +words.at(-2), +words.at(-1)] : null, start = end + 2;
    if (end < 0 || (sizes && waiting.length < start + sizes[1] + 2)) return;
    if (words[0] === "PING") socket.write("PONG\r\n");
    if (sizes) receive(words[1], waiting.subarray(start, start + sizes[0]).toString(), waiting.subarray(start + sizes[0], start + sizes[1]).toString());
    waiting = waiting.subarray(sizes ? start + sizes[1] + 2 : start);
  }
});
