// Lesions over time: the strip of one lesion, both scans on its places, the table, and a person's word on each link.

import { address, get, patch, post } from "./api.js";
import { button, make } from "./answer.js";
import { chart } from "./chart.js";
import { clear, complain, notice } from "./notices.js";
import { Questions, oneAtATime } from "./questions.js";

const REVIEW = { proposed: "not looked at", confirmed: "confirmed", corrected: "corrected", rejected: "rejected" };
const millimetres = (value) => (value === null ? "" : `${value.toFixed(1)} mm`);

export class FollowUpDesk {
  constructor(session, panels, side, flat) {
    Object.assign(this, { session, panels, flat, opens: true, shown: [null, null], chosen: null, following: false, withMap: false, mark: null });
    this.questions = new Questions();
    this.strip = document.querySelector("#strip");
    this.strip.hidden = false;
    document.querySelector("#map").closest("label").hidden = true;
    document.querySelector("#register").hidden = true;
    this.card = make("section", { className: "card", id: "link" });
    this.table = make("div", { className: "scroll" });
    this.undoButton = button("Undo", "U", () => this.list.undo());
    this.saveButton = button("Save", "S", () => this.list.save(), { first: true });
    this.title = make("h2", { textContent: "Lesions" });
    this.curves = make("section", { className: "card" });
    side.replaceChildren(this.card, make("section", { className: "card grow" }, make("div", { className: "sheet-head" }, this.title, this.undoButton, this.saveButton), this.table), this.curves);
    this.follow = oneAtATime((panel, mm) => this.carry(panel, mm));
    this.show = oneAtATime((row) => this.open(row));
    // What the keyboard calls: the same names as in the list of points.
    this.list = {
      key: null, next: (step) => this.next(step), delete: () => {}, undo: () => this.send(post("follow-up/undo")),
      save: async () => {
        if (await this.send(post("follow-up/save"))) notice("saved", "Saved: lesions.tsv. Give it to `meddift track --review` to work out the rest around it.", { actions: [["Close", () => clear("saved")]] });
      },
    };
    addEventListener("beforeunload", (event) => { if (this.told && !this.told.saved) event.preventDefault(); });
  }

  async begin() {
    this.take(await get("follow-up"));
    const first = this.told.rows.find((row) => row.number > 0 && this.needsLook(row)) ?? this.told.rows.find((row) => row.number > 0) ?? this.told.rows[0];
    if (first) await this.choose(first);
  }

  take(told) {
    this.told = told;
    this.title.textContent = `Lesions (${told.lesions.length})${told.saved ? "" : " · not saved"}`;
    this.undoButton.disabled = !told.can_undo;
    this.saveButton.disabled = told.saved;
    if (this.chosen) this.chosen = this.row(this.chosen.lesion_id, this.chosen.number) ?? null;
    this.draw();
  }

  async send(request) {
    try { this.take(await request); return true; } catch (error) { complain(error); return false; }
  }

  row(lesion, number) { return this.told.rows.find((row) => row.lesion_id === lesion && row.number === number); }
  needsLook(row) { return row.review === "proposed" && (row.verdict === "uncertain" || row.state === "uncertain"); }

  // ------------------------------------------------------------------ choosing

  async choose(row) {
    this.chosen = row;
    this.mark = null;
    this.draw();
    await this.show(row);
  }

  // The scan of the row on the right, the one before it on the left.
  async open(row) {
    const later = Math.max(row.number, 1), numbers = [later - 1, later], opened = [];
    await Promise.all(numbers.map(async (number, i) => {
      const id = this.told.time_points[number].scan;
      if (this.shown[i] !== id) {
        const panel = this.panels[i];
        panel.ready = false;
        panel.veil.hidden = false;
        panel.show([]);
        await panel.open(await get(`scans/${id}`), this.flat);
        this.shown[i] = id;
        if (!this.flat) opened.push(panel);
      }
      const there = this.row(row.lesion_id, number);
      if (there?.place) this.panels[i].go(there.place);
    }));
    this.paint();
    for (const panel of opened) panel.takeOver();
  }

  next(step) {
    const rows = this.told.rows.filter((row) => row.number > 0);
    if (!rows.length) return;
    const at = rows.indexOf(this.chosen);
    this.choose(rows[(at + step + rows.length) % rows.length]);
  }

  // ------------------------------------------------------------------ a person's word

  say(review) {
    const said = { confirmed: "confirmed", absent: "rejected", rejected: "rejected", proposed: "proposed" }[review];
    if (this.chosen && said) this.send(patch(`follow-up/${this.chosen.lesion_id}/${this.chosen.number}`, { review: said }));
  }

  correct(label) { this.send(patch(`follow-up/${this.chosen.lesion_id}/${this.chosen.number}`, { review: "corrected", label })); }
  correctAtCrosshair() {}
  dragged() {}
  drop() { this.questions.forget(); this.mark = null; this.paint(); }
  setMap() {}
  register() {}

  // ------------------------------------------------------------------ asking and scrolling in step

  get ids() { return this.shown; }

  ask(panel, mm) {
    const i = this.panels.indexOf(panel), other = 1 - i;
    if (!this.shown[0] || !this.shown[1]) return;
    this.mark = { asked: i, position: mm, match: null };
    const mark = this.mark;
    this.paint();
    this.questions.ask({ fixed: this.shown[i], moving: this.shown[other], position: mm }, {
      answered: (match) => {
        mark.match = match;
        if (match.moving) this.panels[other].go(match.moving);
        const reason = match.reason ? `: ${match.reason}` : "";
        notice("answer", `The place you clicked: ${match.verdict}${reason}`, { actions: [["Close", () => clear("answer")]] });
        this.paint();
      },
      waits: () => notice("answer", "Your question is answered when the scans are ready.", { actions: [["Drop it", () => { clear("answer"); this.drop(); }]] }),
      failed: complain,
    });
  }

  moved(panel, mm) { if (this.following) this.follow(panel, mm); }

  async carry(panel, mm) {
    const i = this.panels.indexOf(panel);
    try {
      const { points } = await post("warp", { fixed: this.shown[i], moving: this.shown[1 - i], points: [mm] });
      if (this.following && points[0]) this.panels[1 - i].go(points[0]);
    } catch (error) { if (error.code !== "preparing") complain(error); }
  }

  setFollow(on) {
    this.following = on;
    const panel = this.active ?? this.panels[0];
    if (on && panel.ready) this.follow(panel, panel.position);
  }

  jobs(all) { this.questions.jobs(all); }

  // ------------------------------------------------------------------ drawing

  draw() {
    this.drawTable();
    this.drawCard();
    this.drawStrip();
    this.curves.replaceChildren(make("h2", { textContent: "Longest diameter" }), chart(this.told.chart, this.chosen?.lesion_id));
    this.paint();
  }

  drawTable() {
    const points = this.told.time_points;
    const head = make("tr", {}, make("th", { textContent: "Lesion" }), ...points.map((p) => make("th", { textContent: p.name, title: p.day })));
    const lines = this.told.lesions.map((lesion) => make("tr", { className: lesion === this.chosen?.lesion_id ? "chosen" : "" }, make("td", {}, make("b", { textContent: lesion })), ...points.map((_, number) => this.cell(this.row(lesion, number)))));
    this.table.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines)));
  }

  cell(row) {
    const cell = make("td", { className: "cell" });
    if (!row) return cell;
    const look = this.needsLook(row), done = { confirmed: "✓", corrected: "✎", rejected: "✕" }[row.review] ?? (look ? "?" : "");
    if (row === this.chosen) cell.classList.add("chosen");
    cell.dataset.cell = `${row.lesion_id}/${row.number}`;
    cell.append(make("span", { className: `state${look ? " look" : ""}`, textContent: row.long_mm === null ? { disappeared: "gone" }[row.state] ?? row.state : row.long_mm.toFixed(1) }), make("span", { className: look ? "state look" : "done", textContent: done ? ` ${done}` : "" }));
    cell.title = [this.told.states[row.state], row.reason, REVIEW[row.review]].filter(Boolean).join("; ");
    cell.addEventListener("click", () => this.choose(row));
    return cell;
  }

  drawCard() {
    const row = this.chosen;
    if (!row) { this.card.replaceChildren(make("p", { className: "faint", textContent: "Choose a lesion." })); return; }
    const point = this.told.time_points[row.number];
    const facts = make("dl", { className: "numbers" });
    const tell = (name, value) => value && facts.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
    tell("Longest diameter", millimetres(row.long_mm));
    tell("Short axis", millimetres(row.short_mm));
    tell("Volume", row.volume_mm3 === null ? "" : `${row.volume_mm3.toFixed(0)} mm³`);
    tell("Called in this mask", row.label);
    tell("Comes from", row.link_from);
    tell("Place", row.verdict);
    tell("Review", REVIEW[row.review]);
    const choice = make("select", { title: "which lesion of this mask it is" });
    choice.append(new Option("not there", ""), ...point.labels.map((label) => new Option(label, label)));
    if (row.label && !point.labels.includes(row.label)) choice.append(new Option(row.label, row.label));
    choice.value = row.label;
    choice.addEventListener("change", () => this.correct(choice.value));
    this.card.replaceChildren(make("h2", { textContent: `Lesion ${row.lesion_id} at ${point.name}` }), make("p", { className: `state${this.needsLook(row) ? " look" : ""}`, textContent: this.told.states[row.state] }),
      row.reason ? make("p", { className: "reason", textContent: row.reason }) : "", facts,
      make("div", { className: "buttons" }, button("Confirm", "A", () => this.say("confirmed"), { first: true, disabled: row.review === "confirmed" }), button("Reject the link", "N", () => this.say("rejected"), { disabled: row.review === "rejected" || row.number === 0 }),
        make("label", {}, "It is ", choice)));
  }

  drawStrip() {
    const lesion = this.chosen?.lesion_id;
    if (lesion === this.stripOf && this.strip.childElementCount) { this.markStrip(); return; }
    this.stripOf = lesion;
    this.strip.replaceChildren(...(lesion ? this.told.time_points.map((point, number) => this.picture(point, this.row(lesion, number), number)) : []));
    this.markStrip();
  }

  picture(point, row, number) {
    const made = make("button");
    made.dataset.number = number;
    if (row?.place) made.append(make("img", { src: address(`follow-up/${row.lesion_id}/${number}/picture.svg`), alt: `lesion ${row.lesion_id} at ${point.name}`, width: 134, height: 134 }));
    else made.append(make("span", { className: "nothing", textContent: row ? this.told.states[row.state] : "not followed here" }));
    made.append(make("span", { className: "cap" }, make("b", { textContent: point.name }), ` ${point.day}`, make("br"), make("span", { className: "faint told" })));
    made.disabled = !row;
    made.addEventListener("click", () => this.choose(this.row(this.stripOf, number)));
    return made;
  }

  markStrip() {
    for (const made of this.strip.children) {
      const row = this.row(this.stripOf, Number(made.dataset.number));
      made.setAttribute("aria-pressed", String(row !== undefined && row === this.chosen));
      made.querySelector(".told").textContent = row ? [millimetres(row.long_mm), this.told.states[row.state]].filter(Boolean).join(" · ") : "";
    }
  }

  paint() {
    this.panels.forEach((panel, i) => {
      const number = this.told?.time_points.findIndex((point) => point.scan === this.shown[i]) ?? -1;
      if (number < 0) return;
      const marks = this.told.rows.filter((row) => row.number === number && row.place).map((row) => ({
        id: row.lesion_id, kind: row.state === "disappeared" ? "none" : row.verdict === "ok" || row.state === "baseline" || row.state === "new" ? "ok" : row.verdict || "none", mm: row.place, label: `lesion ${row.lesion_id}`, title: `lesion ${row.lesion_id}`,
        chosen: row.lesion_id === this.chosen?.lesion_id, review: row.review === "rejected" ? "absent" : row.review,
      }));
      if (this.mark?.asked === i) marks.push({ id: "asked", kind: "asked", mm: this.mark.position, chosen: true, label: "asked", title: "asked" });
      else if (this.mark?.match?.moving) marks.push({ id: "answer", kind: this.mark.match.verdict, mm: this.mark.match.moving, chosen: true, label: "answer", title: "answer" });
      panel.show(marks);
    });
  }
}
