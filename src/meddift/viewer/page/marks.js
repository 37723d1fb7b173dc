// Marks: verdicts differ in shape and in colour; what a person has said is a dot inside, or a bar through it.

const SPACE = "http://www.w3.org/2000/svg";

export function element(name, attributes = {}, ...children) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Lines of each shape in a square from -1 to 1: a circle, a triangle, a square with a cross.
const SHAPES = {
  ok: "M1 0A1 1 0 1 1 -1 0A1 1 0 1 1 1 0Z",
  uncertain: "M0 -1.1L1.05 .8L-1.05 .8Z",
  outside: "M-.9 -.9H.9V.9H-.9ZM-.9 -.9L.9 .9M.9 -.9L-.9 .9",
  asked: "M-1.1 0H-.35M.35 0H1.1M0 -1.1V-.35M0 .35V1.1M.75 0A.75 .75 0 1 1 -.75 0A.75 .75 0 1 1 .75 0Z",
  rival: "M-.8 0A.8 .8 0 1 1 .8 0A.8 .8 0 1 1 -.8 0",
  none: "M0 -1L1 0L0 1L-1 0Z",
};
export const WORDS = { ok: "Found", uncertain: "Uncertain", outside: "No answer" };
export const REVIEWS = { proposed: "not looked at", confirmed: "accepted", corrected: "corrected", absent: "no counterpart" };

export function mark({ kind, x, y, size = 8, review = "proposed", label = "", off = false, title = "", flip = false }) {
  const group = element("g", { class: `mark ${kind}${off ? " off" : ""}`, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
  if (title) group.append(element("title", {}, title));
  group.append(...drawn(kind, size, review, off));
  if (label) group.append(element("text", { x: flip ? -size - 4 : size + 4, y: -size + 2, "text-anchor": flip ? "end" : "start" }, label));
  return group;
}

function drawn(kind, size, review, dashed) {
  const scale = { d: scaled(SHAPES[kind] ?? SHAPES.none, size) };
  const parts = [element("path", { class: "halo", ...scale }), element("path", { class: `line${dashed || kind === "rival" ? " dashed" : ""}`, ...scale })];
  if (review === "confirmed") parts.push(element("circle", { class: "dot", r: size * 0.33 }));
  if (review === "corrected") parts.push(element("rect", { class: "dot", x: -size * 0.38, y: -size * 0.38, width: size * 0.76, height: size * 0.76 }));
  if (review === "absent") parts.push(element("path", { class: "line", d: `M${-size * 1.3} ${size * 1.3}L${size * 1.3} ${-size * 1.3}` }));
  return parts;
}

// Numbers of a path times a size; the flags of an arc are no lengths.
function scaled(path, size) {
  return path.replace(/A([^A-Z]*)/g, (_, rest) => {
    const n = rest.trim().split(/\s+/).map(Number);
    return `A${n[0] * size} ${n[1] * size} ${n[2]} ${n[3]} ${n[4]} ${n[5] * size} ${n[6] * size}`;
  }).replace(/([MLHV])([^A-Z]*)/g, (_, letter, rest) => letter + rest.trim().split(/\s+/).map((v) => Number(v) * size).join(" "));
}

// The same shape as a small picture in text.
export function badge(kind, review = "proposed") {
  const svg = element("svg", { viewBox: "-12 -12 24 24", "aria-hidden": "true" });
  const group = element("g", { class: `mark ${kind}` });
  group.append(...drawn(kind, 8, review, false));
  svg.append(group);
  return svg;
}
