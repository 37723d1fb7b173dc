// A click becomes a question; late answers are dropped, and questions wait while the scans are made ready.

import { Refused, client, post } from "./api.js";

export class Questions {
  constructor() {
    this.number = 0;
    this.waiting = null;
  }

  // Calls `answered(match)`, or `waits(job)` while it cannot be answered, or `failed(error)`; none of them if a later
  // question has been asked meanwhile.
  async ask(question, { answered, waits, failed }) {
    const number = ++this.number;
    this.waiting = null;
    try {
      const { fixed, moving, position } = question;
      const answer = await post("match", { fixed, moving, points: [position], number, client });
      if (answer.number !== this.number) return;
      answered(answer.matches[0]);
    } catch (error) {
      if (number !== this.number || error.code === "superseded") return;
      if (error instanceof Refused && error.code === "preparing") {
        this.waiting = { about: error.job.about, again: () => this.ask(question, { answered, waits, failed }) };
        waits(error.job);
      } else failed(error);
    }
  }

  // The one that waits is asked again as soon as its work is done.
  jobs(all) {
    if (!this.waiting) return;
    const latest = all.filter((job) => job.kind === "prepare" && job.about === this.waiting.about).at(-1);
    if (latest?.state === "done" || latest?.state === "failed") this.waiting.again();
  }

  forget() { this.number++; this.waiting = null; }

  get current() { return this.number; }
}

// Calls a function at most once at a time, and once more with the latest argument if there was another meanwhile.
export function oneAtATime(work) {
  let busy = false, next = null;
  return async function call(...given) {
    if (busy) { next = given; return; }
    busy = true;
    try { await work(...given); } finally {
      busy = false;
      if (next) { const later = next; next = null; call(...later); }
    }
  };
}
