// Requests to the server, and what it tells by itself.

const ROOT = "api/v1";

export class Refused extends Error {
  constructor(status, content) {
    super(content?.error?.message ?? `the server answered with ${status}`);
    this.status = status;
    this.code = content?.error?.code ?? "failed";
    this.job = content?.job ?? null;
  }
}

export const client = crypto.randomUUID();

async function send(method, path, body) {
  let answer;
  try {
    answer = await fetch(`${ROOT}/${path}`, {
      method,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, { error: { code: "gone", message: "The server does not answer. Was meddift ended in the terminal?" } });
  }
  const content = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, content);
  return content;
}

export const get = (path) => send("GET", path);
export const post = (path, body) => send("POST", path, body ?? undefined);
export const patch = (path, body) => send("PATCH", path, body);
export const remove = (path) => send("DELETE", path);
export const address = (path) => `${ROOT}/${path}`;

// Calls `changed` with all jobs whenever one has changed, `lost` when the server is gone and comes back.
export function listen(changed, lost) {
  const source = new EventSource(address("events"));
  source.onmessage = (event) => { lost(false); changed(JSON.parse(event.data)); };
  source.onerror = () => lost(true);
  return source;
}
