// Curves of size over time, laid out by the server: colours and dashes tell them apart.

import { make } from "./answer.js";
import { element } from "./marks.js";

export function chart(laid, chosen) {
  if (!laid) return make("p", { className: "faint", textContent: "There are no sizes to draw." });
  const { width, height, left, right } = laid;
  const svg = element("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "longest diameters over time" });
  for (const [y, text] of laid.ticks) svg.append(element("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }), element("text", { x: left - 8, y, "text-anchor": "end", "dominant-baseline": "central" }, text));
  laid.days.forEach(([x, text], i) => svg.append(element("text", { x, y: height - 12, "text-anchor": i === 0 ? "start" : i === laid.days.length - 1 ? "end" : "middle" }, text.split(" ")[0])));
  svg.append(element("text", { x: left + 6, y: 12 }, "mm"));
  for (const curve of laid.curves) {
    const colour = `var(--c${curve.colour})`, faint = chosen && curve.name !== chosen ? 0.35 : 1;
    const group = element("g", { opacity: faint, stroke: colour, fill: colour });
    const line = element("path", { d: curve.path, fill: "none", "stroke-width": curve.name === chosen ? 3.5 : 2 });
    if (curve.dash) line.setAttribute("stroke-dasharray", curve.dash);
    group.append(line, ...curve.dots.map(([cx, cy, text]) => element("circle", { cx, cy, r: 3.5, stroke: "none" }, element("title", {}, text))), element("text", { x: curve.label[0], y: curve.label[1], "dominant-baseline": "central", stroke: "none" }, `lesion ${curve.name}`));
    svg.append(group);
  }
  return svg;
}
