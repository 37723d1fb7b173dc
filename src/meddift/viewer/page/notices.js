// Sentences above the scans: work in the background with an end to it, and what went wrong.

import { post } from "./api.js";

const place = document.querySelector("#notices");
const shown = new Map();

export function notice(key, text, { problem = false, progress = null, busy = false, actions = [] } = {}) {
  let row = shown.get(key);
  if (!row) {
    row = document.createElement("div");
    shown.set(key, row);
    place.append(row);
  }
  row.className = `notice${problem ? " problem" : ""}`;
  const parts = [];
  if (busy) parts.push(Object.assign(document.createElement("span"), { className: "spinner" }));
  parts.push(Object.assign(document.createElement("span"), { textContent: text }));
  if (progress !== null) {
    const bar = Object.assign(document.createElement("progress"), { max: 1, value: progress });
    bar.setAttribute("aria-label", "how much is done");
    parts.push(bar, Object.assign(document.createElement("span"), { className: "faint", textContent: `${Math.round(100 * progress)} %` }));
  }
  for (const [label, act] of actions) {
    const button = Object.assign(document.createElement("button"), { textContent: label });
    button.addEventListener("click", act);
    parts.push(button);
  }
  row.replaceChildren(...parts);
}

export function clear(key) {
  shown.get(key)?.remove();
  shown.delete(key);
}

export function complain(error) {
  const text = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  notice("problem", text, { problem: true, actions: [["Close", () => clear("problem")]] });
}

const KINDS = { prepare: "Making the scans ready", register: "Registering" };

// Jobs as the server tells them; `again(job)` begins one anew.
export function showJobs(jobs, names, again) {
  const latest = new Map();
  for (const job of jobs) latest.set(`${job.kind} ${job.about}`, job);
  for (const [key, job] of latest) {
    const which = names(job.about);
    const what = `${KINDS[job.kind] ?? job.kind}${which}`;
    if (job.state === "running") {
      notice(key, `${what}: ${job.stage || "beginning"}`, { busy: true, progress: job.fraction, actions: [["Cancel", () => post(`jobs/${job.id}/cancel`).catch(complain)]] });
    } else if (job.state === "failed") notice(key, `${what} has failed: ${job.message}`, { problem: true, actions: [["Try again", () => again(job)], ["Close", () => clear(key)]] });
    else if (job.state === "cancelled") notice(key, `${what} was cancelled.`, { actions: [["Start again", () => again(job)]] });
    else clear(key);
  }
}
