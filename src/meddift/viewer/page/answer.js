// The card that says what was found for a point, how sure that is, and what can be said about it.

import { REVIEWS, WORDS, badge } from "./marks.js";

const fixedDigits = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const placed = (mm) => (mm ? mm.map((v) => v.toFixed(1)).join(", ") : "–");

export function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function button(text, key, act, { first = false, disabled = false } = {}) {
  const made = make("button", { className: first ? "first" : "", disabled }, text, key ? make("kbd", { textContent: key }) : null);
  made.addEventListener("click", act);
  return made;
}

export function answerCard(desk) {
  const row = desk.list?.chosen, { card, current } = desk;
  card.dataset.state = row ? "row" : current?.state ?? "none";
  if (!row && !current) {
    card.replaceChildren(make("h2", { textContent: "Point" }), make("p", { className: "faint", textContent: "Click a place in one scan to find it in the other. Drag moves the crosshair, the right button the window." }));
    return;
  }
  if (!row && current.state !== "answered") {
    const texts = { asking: "Looking for it …", waiting: "Waiting until the scans are ready …", failed: current.problem };
    const spin = current.state === "failed" ? null : make("span", { className: "spinner" });
    card.replaceChildren(make("h2", { textContent: "Point" }), make("p", { className: "verdict" }, spin, texts[current.state]), numbers(desk, { [current.asked]: current.position }));
    return;
  }
  const answer = row ?? { ...current.match, asked: current.asked, review: "proposed", fixed: null, moving: null };
  if (!row) {
    answer[current.asked] = current.position;
    answer[desk.other(current.asked)] = current.match.moving;
  }
  const kind = answer.verdict ?? "none";
  const title = make("p", { className: `verdict ${kind}` }, badge(kind, answer.review), WORDS[kind] ?? "Not asked yet");
  if (answer.review !== "proposed") title.append(make("span", { className: "faint", textContent: `· ${REVIEWS[answer.review]}` }));
  const parts = [make("h2", { textContent: row ? `Point ${row.label}` : "Point" }), title];
  if (answer.reason) parts.push(make("p", { className: "reason", textContent: `${answer.reason.charAt(0).toUpperCase()}${answer.reason.slice(1)}.` }));
  parts.push(numbers(desk, answer), actions(desk, answer, row));
  if (!row && desk.withMap) parts.push(legend(current.range));
  card.replaceChildren(...parts);
}

function numbers(desk, answer) {
  const list = make("dl", { className: "numbers" });
  const tell = (name, value, title = "") => list.append(make("dt", { textContent: name, title }), make("dd", { textContent: value }));
  for (const side of ["fixed", "moving"]) if (side in answer) tell(`${side === "fixed" ? "Fixed" : "Moving"}, RAS mm`, placed(answer[side]));
  if ("similarity" in answer) {
    tell("Similarity", fixedDigits(answer.similarity, 2), "mean cosine of the descriptors, -1 to 1");
    tell("Ahead of the runner-up", fixedDigits(answer.margin, 2), "by how much it is more similar than the best rival");
    tell("Inverse-consistency error", answer.inverse_error_mm === null ? "–" : `${answer.inverse_error_mm.toFixed(1)} mm`, "how far looking for it back ends from where it began");
  }
  return list;
}

function actions(desk, answer, row) {
  const other = desk.other(answer.asked), scan = other === "fixed" ? "fixed" : "moving";
  const has = Boolean(answer[other]);
  const found = row ? Boolean(row.found ?? (row.review === "proposed" ? row[other] : null)) : has;
  return make("div", { className: "buttons" },
    button("Accept", "A", () => desk.say("confirmed"), { first: true, disabled: row ? row.review === "confirmed" || !found : !has }),
    button("It is at the crosshair", "C", () => desk.correctAtCrosshair()),
    button("No counterpart", "N", () => desk.say("absent"), { disabled: answer.review === "absent" }),
    row ? null : button("Drop", "Esc", () => desk.drop()),
    make("p", { className: "faint", textContent: has ? `Drag the mark in the ${scan} scan to correct it.` : "" }));
}

function legend(range) {
  if (!range) return make("p", { className: "faint legend", textContent: "The similarity map is being made …" });
  return make("div", { className: "legend" }, "Similarity map (cosine)", make("div", { className: "bar" }),
    make("div", { className: "ends" }, range.low.toFixed(2), make("span", { className: "faint", textContent: "below: not drawn" }), range.high.toFixed(2)));
}
