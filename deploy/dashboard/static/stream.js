// What is known of the bus: parts by key, the timeline, and new points, kept current by server-sent events.
// The browser resumes with Last-Event-ID; where it gives up (an answer that is not a stream) a new one begins.

export const known = { parts: new Map(), events: [], lastEvent: 0, connected: false, lostAt: null };
const MOST_EVENTS = { watts: 200, replicas: 400, command: 200 };
const AGAIN_MS = 2000;
let lastId = "";

function take(data, whole) {
  if (whole) {
    known.parts = new Map();
    known.events = [];
  }
  for (const [key, value] of Object.entries(data.parts)) value === null ? known.parts.delete(key) : known.parts.set(key, value);
  // Power decisions are many: those about replicas and commands must not be pushed out by them.
  if (data.events.length) {
    const all = [...known.events, ...data.events];
    known.events = Object.entries(MOST_EVENTS).flatMap(([kind, most]) => all.filter((event) => event.kind === kind).slice(-most));
    known.events.sort((a, b) => a.t - b.t);
  }
}

// `changed(keys, data)`: after each update; `keys` is null where everything is new. `state()`: when the connection changes.
export function connect(changed, state) {
  const source = new EventSource(`events${lastId ? `?after=${encodeURIComponent(lastId)}` : ""}`);
  const received = (whole) => (event) => {
    lastId = event.lastEventId;
    known.lastEvent = Date.now();
    const data = JSON.parse(event.data);
    take(data, whole);
    if (!known.connected) {
      known.connected = true;
      state();
    }
    changed(whole ? null : Object.keys(data.parts), data);
  };
  source.addEventListener("everything", received(true));
  source.addEventListener("changes", received(false));
  source.addEventListener("open", () => {
    known.connected = true;
    known.lostAt = null;
    state();
  });
  source.addEventListener("error", () => {
    if (known.connected || known.lostAt === null) known.lostAt = Date.now();
    known.connected = false;
    state();
    if (source.readyState === EventSource.CLOSED) setTimeout(() => connect(changed, state), AGAIN_MS);
  });
}

export const named = (kind) =>
  [...known.parts].filter(([key]) => key.startsWith(`${kind}/`)).map(([key, value]) => [key.slice(kind.length + 1), value]);
