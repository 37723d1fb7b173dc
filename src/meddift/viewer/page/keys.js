// The keyboard: everything that the mouse can do, and a table of it.

import { make } from "./answer.js";
import { badge } from "./marks.js";

const TABLE = [
  ["Arrow keys", "move the crosshair in the plane last used"], ["Page up, Page down (or , .)", "the next slice, and back"], ["Tab", "from one scan to the other"],
  ["Enter", "ask for the place at the crosshair"], ["A", "accept"], ["C", "the counterpart is at the other scan's crosshair"], ["N", "no counterpart (follow-up: reject the link)"], ["Esc", "drop the question"],
  ["J, K", "next point or lesion, and back"], ["Del", "delete the point"], ["U", "undo"], ["S", "save"], ["R", "register the scans"], ["F", "follow the crosshair"], ["M", "similarity map"],
  ["1 to 5", "windows"], ["W", "dragging changes the window, and back"], ["+, −", "zoom"], ["P", "the next plane, or all three"], ["?", "this table"],
];
const MOUSE = [["Click", "ask for the place in the other scan"], ["Drag", "move the crosshair"], ["Drag a mark", "correct it"], ["Right button, drag", "window: across its width, up and down its level"], ["Wheel", "slices; with Ctrl zoom"]];
const MARKS = [["asked", "where was asked"], ["ok", "found"], ["uncertain", "uncertain: the card says why"], ["outside", "no answer: it lies outside the scan or the patient"], ["rival", "runner-up places, the second, third, … most similar"]];

export function helpDialog() {
  const dialog = document.querySelector("#keys");
  const table = (title, rows, first) => make("div", {}, make("h2", { textContent: title }), make("table", {}, make("tbody", {}, ...rows.map(([a, b]) => make("tr", {}, make("td", {}, ...first(a)), make("td", { textContent: b }))))));
  const close = make("button", { textContent: "Close" });
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(make("h2", { id: "keys-title", textContent: "Help" }), table("Mouse and touch", MOUSE, (a) => [a]), table("Keyboard", TABLE, (a) => [make("b", { textContent: a })]),
    table("Marks", MARKS, (a) => [badge(a), a === "asked" ? "question" : a === "rival" ? "runner-up" : a]), make("p", { className: "faint", textContent: "A dot in a mark: accepted. A filled square: corrected. A bar through it: no counterpart." }), close);
  document.querySelector("#help").addEventListener("click", () => dialog.showModal());
  return dialog;
}

// actions: {panel(), ask, accept, reject, correct, drop, next(step), remove, undo, save, register, follow, map, planes}
export function listenToKeys(actions) {
  const dialog = helpDialog();
  addEventListener("keydown", (event) => {
    const target = event.target;
    const typing = target.matches?.("input:not([type=checkbox]), select, textarea");
    if (dialog.open || typing || event.altKey) return;
    if ((event.ctrlKey || event.metaKey) && !["z", "s"].includes(event.key.toLowerCase())) return;
    const pressed = target.matches?.("button, a, input") && ["Enter", " "].includes(event.key);
    if (pressed) return;
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act(actions, event, dialog);
  });
}

function step(panel, right, up) {
  if (!panel?.ready) return;
  const tile = panel.view.tiles().find((t) => t.plane === panel.plane) ?? panel.view.tiles()[0];
  if (!tile) return;
  // What is right and up on the screen, in the world.
  const here = tile.toScreen(panel.position);
  const axis = right ? tile.across : tile.up;
  const beyond = [...panel.position];
  beyond[axis] += 1;
  const there = tile.toScreen(beyond);
  const sign = right ? Math.sign(there.x - here.x) * right : Math.sign(here.y - there.y) * up;
  panel.step(axis, sign);
}

function slice(panel, count) {
  const tile = panel?.ready && (panel.view.tiles().find((t) => t.plane === panel.plane) ?? panel.view.tiles()[0]);
  if (tile) panel.step(tile.through, count);
}

const KEYS = {
  ArrowLeft: (a) => step(a.panel(), -1, 0), ArrowRight: (a) => step(a.panel(), 1, 0), ArrowUp: (a) => step(a.panel(), 0, 1), ArrowDown: (a) => step(a.panel(), 0, -1),
  PageUp: (a) => slice(a.panel(), 1), PageDown: (a) => slice(a.panel(), -1), ".": (a) => slice(a.panel(), 1), ",": (a) => slice(a.panel(), -1),
  Enter: (a) => a.ask(), " ": (a) => a.ask(), a: (a) => a.accept(), c: (a) => a.correct(), n: (a) => a.reject(), Escape: (a) => a.drop(),
  j: (a) => a.next(1), k: (a) => a.next(-1), Delete: (a) => a.remove(), Backspace: (a) => a.remove(), u: (a) => a.undo(), z: (a, event) => (event.ctrlKey || event.metaKey) && a.undo(),
  s: (a) => a.save(), r: (a) => a.register(), f: (a) => a.follow(), m: (a) => a.map(), w: () => document.body.classList.toggle("levelling"), p: (a) => a.planes(),
  "+": (a) => a.panel()?.zoom(1.25), "=": (a) => a.panel()?.zoom(1.25), "-": (a) => a.panel()?.zoom(0.8),
  "?": (a, event, dialog) => dialog.showModal(),
  ...Object.fromEntries([1, 2, 3, 4, 5].map((n) => [String(n), (a) => a.panel()?.window(n - 1)])),
};
