// Choosing one of the pairs that were opened lately.

import { get, post } from "./api.js";
import { make } from "./answer.js";
import { clear, complain, notice } from "./notices.js";

// What tells its scans from others; what an earlier version has remembered says nothing about them.
function about(pair) {
  const one = ["Fixed", "Moving"].map((name, i) => pair.about[i] && `${name}: ${pair.about[i]}`);
  return one.filter(Boolean).map((textContent) => make("span", { className: "about", textContent }));
}

export async function choosePair(place, opened) {
  document.body.classList.add("choosing");
  const { pairs } = await get("recent");
  const choices = make("div", { className: "choices" }, make("h2", { textContent: "Pairs that were opened lately" }));
  for (const pair of pairs) {
    const points = pair.points === 1 ? "1 point kept" : `${pair.points} points kept`;
    const button = make("button", {}, make("span", { textContent: `Opened ${pair.day}` }), make("span", { className: "faint", textContent: points }), ...about(pair));
    button.addEventListener("click", async () => {
      notice("opening", "Reading both scans …", { busy: true });
      try {
        await post(`recent/${pair.number}/open`);
        await opened();
      } catch (error) { complain(error); }
      clear("opening");
    });
    choices.append(button);
  }
  if (!pairs.length) choices.append(make("p", { className: "faint", textContent: "None of them is where it was." }));
  place.replaceChildren(choices);
  document.body.dataset.ready = "yes";
}
