// Where the page begins: what the server holds, two panels, and what belongs to the mode.

import { get, listen, post } from "./api.js";
import { FollowUpDesk } from "./followup.js";
import { listenToKeys } from "./keys.js";
import { clear, complain, notice, showJobs } from "./notices.js";
import { PairDesk } from "./pair.js";
import { Panel } from "./panel.js";
import { hasWebGL2 } from "./scans.js";
import { choosePair } from "./store.js";

// The token has done its work: it shall stand neither in the address nor in the history.
if (location.search) history.replaceState(null, "", location.pathname);

const place = document.querySelector("#panels"), side = document.querySelector("#side");
const register = document.querySelector("#register"), follow = document.querySelector("#follow"), map = document.querySelector("#map"), planes = document.querySelector("#planes");
const flat = !hasWebGL2();
let desk = null, active = null;

const panels = [0, 1].map(() => new Panel({
  ask: (panel, mm) => desk?.ask(panel, mm),
  moved: (panel, mm) => desk?.moved(panel, mm),
  dragged: (panel, id, mm) => desk?.dragged(panel, id, mm),
  active: activate,
  stays: (error) => complain(new Error(`the browser cannot draw this scan (${error.message}), so the server goes on drawing its planes`)),
}));

function activate(panel) {
  active = panel;
  if (desk) desk.active = panel;
  for (const other of panels) other.root.classList.toggle("active", other === panel);
}

async function open(session) {
  document.body.classList.remove("choosing");
  place.replaceChildren(...panels.map((panel) => panel.root));
  const name = (id) => session.scans.find((scan) => scan.id === id)?.title ?? id;
  desk = session.mode === "follow-up" ? new FollowUpDesk(session, panels, side, flat) : new PairDesk(session, panels, side);
  if (flat) notice("flat", "This browser does not offer WebGL 2, so the server draws the planes: everything works, scrolling is slower. Turning on hardware acceleration in the browser's settings makes it faster.");
  if (!desk.opens) await Promise.all(panels.map(async (panel, i) => panel.open(await get(`scans/${Object.values(desk.ids)[i]}`), flat)));
  activate(panels[0]);
  await desk.begin();
  document.body.dataset.ready = "yes";
  // Only when what is there already has been drawn: it keeps the browser busy.
  if (!flat && !desk.opens) requestAnimationFrame(() => setTimeout(() => panels.forEach((panel) => panel.takeOver())));
  const ids = (about) => about.split(">");
  const names = (about) => ` (${ids(about).map((id) => name(id).toLowerCase()).join(" → ")})`;
  listen((told) => {
    showJobs(told.jobs, names, (job) => post(job.kind, { fixed: ids(job.about)[0], moving: ids(job.about)[1] }).catch(complain));
    desk.jobs(told.jobs);
    if (told.points !== null && desk.list && told.points > desk.list.version) desk.list.refresh().catch(complain);
  }, (gone) => (gone ? notice("gone", "The server does not answer. If meddift was ended in the terminal, start it again; points that were not saved are lost.", { problem: true }) : clear("gone")));
}

register.addEventListener("click", () => desk?.register());
follow.addEventListener("change", () => desk?.setFollow(follow.checked));
map.addEventListener("change", () => desk?.setMap(map.checked));
planes.addEventListener("change", () => panels.forEach((panel) => panel.planes(planes.value)));

listenToKeys({
  panel: () => active,
  ask: () => active?.ready && desk?.ask(active, [...active.position]),
  accept: () => desk?.say("confirmed"), reject: () => desk?.say("absent"), correct: () => desk?.correctAtCrosshair(), drop: () => desk?.drop(),
  next: (step) => desk?.list.next(step), remove: () => desk?.list.delete(desk.list.key), undo: () => desk?.list.undo(), save: () => desk?.list.save(),
  register: () => register.click(), follow: () => follow.click(), map: () => map.click(),
  planes: () => { planes.selectedIndex = (planes.selectedIndex + 1) % planes.options.length; planes.dispatchEvent(new Event("change")); },
});

const session = await get("session").catch((error) => { complain(error); return null; });
if (session?.mode === "store" && !session.pair) {
  choosePair(place, async () => open(await get("session")).catch(complain)).catch(complain);
} else if (session) open(session).catch((error) => { console.error(error); complain(error); });
