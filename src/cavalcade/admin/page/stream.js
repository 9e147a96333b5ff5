// Server-sent events over fetch: an EventSource cannot send the token, and a token has no business in a URL.

const SILENT_MS = 10000; // the status comes every second; without it the connection is dead, whatever TCP says
const FIRST_WAIT_MS = 1000, LONGEST_WAIT_MS = 10000;

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

// Follows `url` for ever, over reconnects. `on.event(name, data)`, `on.live()`, `on.lost(text)`; `on.token(wrong)` gives the token, or what it
// will be when somebody has typed it in.
export async function follow(url, on) {
  let token = "";
  let last = "";
  let wait = FIRST_WAIT_MS;
  for (;;) {
    try {
      await read(url, token, last, {
        live() {
          wait = FIRST_WAIT_MS;
          on.live();
        },
        event(name, data, id) {
          if (id) last = id;
          on.event(name, data);
        },
      });
      on.lost("The server has closed the connection.");
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        token = await on.token(token !== "");
        continue;
      }
      on.lost(error instanceof Refused ? error.message : "The server cannot be reached.");
    }
    await new Promise((done) => setTimeout(done, wait));
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

async function read(url, token, last, on) {
  const stop = new AbortController();
  let timer = 0;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stop.abort(), SILENT_MS);
  };
  heard();
  try {
    const headers = {};
    if (token) headers.Authorization = `Bearer ${token}`;
    if (last) headers["Last-Event-ID"] = last;
    const response = await fetch(url, { headers, cache: "no-store", credentials: "omit", signal: stop.signal });
    if (!response.ok) throw new Refused(response.status, await why(response));
    on.live();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) tell(block, on);
    }
  } finally {
    clearTimeout(timer);
  }
}

function tell(block, on) {
  const fields = {};
  for (const line of block.split("\n")) {
    const [, name, value] = /^([^:]*): ?(.*)$/.exec(line) ?? [];
    if (name) fields[name] = value;
  }
  if (fields.data) on.event(fields.event, JSON.parse(fields.data), fields.id);
}

async function why(response) {
  try {
    const { text, fix } = await response.json();
    return fix ? `${text} ${fix}.` : text;
  } catch {
    return `The server answers ${response.status}.`;
  }
}
