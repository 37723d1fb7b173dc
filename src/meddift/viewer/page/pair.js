// A pair of scans: click, answer, map, and the list of points.

import { address, get, post } from "./api.js";
import { answerCard } from "./answer.js";
import { List } from "./list.js";
import { clear, complain, notice } from "./notices.js";
import { Questions, oneAtATime } from "./questions.js";

const sides = ["fixed", "moving"];

export class PairDesk {
  constructor(session, panels, side) {
    this.ids = { fixed: session.pair.fixed, moving: session.pair.moving };
    this.panels = { fixed: panels[0], moving: panels[1] };
    this.questions = new Questions();
    this.current = null;
    this.withMap = false;
    this.following = false;
    this.card = Object.assign(document.createElement("section"), { className: "card", id: "answer" });
    this.card.setAttribute("aria-live", "polite");
    this.list = new List(this);
    side.replaceChildren(this.card, this.list.root);
    this.follow = oneAtATime((panel, mm) => this.carry(panel, mm));
    this.paint();
  }

  name(panel) { return sides.find((side) => this.panels[side] === panel); }
  other(side) { return side === "fixed" ? "moving" : "fixed"; }

  async begin() {
    await this.list.refresh();
    // Last: it takes all processors.
    post("prepare", this.ids).catch(complain);
  }

  // ------------------------------------------------------------------ a question

  ask(panel, mm) {
    const asked = this.name(panel), other = this.other(asked);
    this.list.choose(null);
    this.current = { asked, position: mm.map((v) => Number(v.toFixed(4))), state: "asking", match: null, rivals: [], range: null, moved: null };
    const question = this.current;
    this.map(null);
    this.paint();
    this.questions.ask({ fixed: this.ids[asked], moving: this.ids[other], position: question.position }, {
      answered: (match) => {
        Object.assign(question, { state: "answered", match });
        if (match.moving) this.panels[other].go(match.moving);
        this.paint();
        this.similarity(question);
      },
      waits: () => { question.state = "waiting"; this.paint(); },
      failed: (error) => { question.state = "failed"; question.problem = error.message; this.paint(); },
    });
  }

  // The map with the runner-up places; drawn only where it is wanted.
  async similarity(question) {
    const { asked, position, match } = question, other = this.other(asked), number = this.questions.current;
    if (!match || match.verdict === "outside" && match.similarity === null && match.codes.some((c) => c !== "outside_moving")) return;
    try {
      const found = await post("similarity", { fixed: this.ids[asked], moving: this.ids[other], point: position, answer: match.moving, number });
      if (question !== this.current || found.number !== this.questions.current) return;
      Object.assign(question, { rivals: found.rivals, range: found });
      this.paint();
      if (this.withMap) await this.map(question);
    } catch (error) {
      if (question === this.current) complain(error);
    }
  }

  async map(question) {
    const range = question?.range;
    for (const side of sides) {
      const wanted = range && this.withMap && side === this.other(question.asked);
      if (!wanted && !this.panels[side].hasMap) continue;
      this.panels[side].hasMap = Boolean(wanted);
      await this.panels[side].overlay(wanted ? address(`maps/${range.map}.nii`) : null, range);
    }
    document.body.dataset.map = range && this.withMap ? range.map : "";
    this.paint();
  }

  setMap(on) {
    this.withMap = on;
    this.map(on ? this.current : null).catch(complain);
  }

  drop() {
    this.questions.forget();
    this.current = null;
    this.map(null);
    this.paint();
  }

  // ------------------------------------------------------------------ what a person says

  async say(review, corrected = null) {
    if (this.list.chosen) return this.list.say(review, corrected);
    const question = this.current;
    if (question?.state !== "answered") return;
    if (!corrected && question.moved && review === "confirmed") { corrected = question.moved; review = "corrected"; }
    this.current = null;
    this.questions.forget();
    const { asked, position } = question;
    try {
      const told = await post("points", { asked, position, review, ...(corrected ? { corrected } : {}) });
      this.list.take(told);
      this.list.choose(told.added, { quiet: true });
      this.map(null);
    } catch (error) {
      this.current = question;
      complain(error);
    }
    this.paint();
  }

  // Where the crosshair of the other scan is, is the counterpart: correcting without dragging.
  correctAtCrosshair() {
    const asked = this.list.chosen?.asked ?? this.current?.asked;
    if (asked) this.say("corrected", this.panels[this.other(asked)].position.map((v) => Number(v.toFixed(4))));
  }

  dragged(panel, id, mm) {
    const at = mm.map((v) => Number(v.toFixed(4)));
    if (id === "current") { this.current.moved = at; this.say("corrected", at); } else { this.list.choose(id, { quiet: true }); this.list.say("corrected", at); }
  }

  // ------------------------------------------------------------------ scrolling in step

  moved(panel, mm) { if (this.following) this.follow(panel, mm); }

  async carry(panel, mm) {
    const side = this.name(panel), other = this.other(side);
    try {
      const { points } = await post("warp", { fixed: this.ids[side], moving: this.ids[other], points: [mm] });
      if (this.following && points[0]) this.panels[other].go(points[0]);
    } catch (error) {
      if (error.code !== "preparing") complain(error);
    }
  }

  setFollow(on) {
    this.following = on;
    if (on) this.follow(this.active ?? this.panels.fixed, (this.active ?? this.panels.fixed).position);
  }

  // ------------------------------------------------------------------ registration

  register() { post("register", this.ids).catch(complain); }

  // From here on the crosshair follows the transform, and saving writes it.
  async registered(job) {
    this.registration = job.id;
    try {
      const told = await get(`registration?fixed=${this.ids.fixed}&moving=${this.ids.moving}`);
      const away = told.inverse_residual_mm.p95, folds = told.folding;
      const facts = [away === null ? "" : `there and back ends ${away.toFixed(1)} mm from the start or less in 95 % of the body`, folds > 0 ? `${(100 * folds).toFixed(2)} % of the body folds` : "nothing folds"];
      notice("registered", `Registered: ${facts.filter(Boolean).join(", ")}. "Follow the crosshair" uses it; Save writes it to fixed-to-moving.h5.`, { actions: [["Close", () => clear("registered")]] });
    } catch (error) { complain(error); }
    this.list.saves();
  }

  // ------------------------------------------------------------------ drawing

  jobs(all) {
    this.questions.jobs(all);
    const pair = `${this.ids.fixed}>${this.ids.moving}`;
    const fitted = all.findLast((job) => job.kind === "register" && job.about === pair && job.state === "done");
    if (fitted && fitted.id !== this.registration) this.registered(fitted);
    const done = all.some((job) => job.kind === "prepare" && job.about === pair && job.state === "done");
    if (done && !this.prepared) {
      this.prepared = true;
      post("points/answer").then((told) => this.list.take(told)).catch(complain);
      // Then the way back, so that clicks in the moving scan are answered at once, too.
      post("prepare", { fixed: this.ids.moving, moving: this.ids.fixed }).catch(complain);
    }
  }

  paint() {
    answerCard(this);
    const marks = { fixed: [], moving: [] };
    for (const row of this.list.rows) {
      const chosen = row === this.list.chosen, kind = row.verdict ?? "none";
      for (const side of sides) {
        if (!row[side]) continue;
        const asked = side === row.asked;
        marks[side].push({ id: row.id, kind: asked && chosen ? "asked" : kind, mm: row[side], review: row.review, label: row.label, title: row.label, chosen, draggable: !asked });
      }
    }
    const { current } = this;
    if (current) {
      const other = this.other(current.asked);
      marks[current.asked].push({ id: "asked", kind: "asked", mm: current.position, chosen: true, label: "asked", title: "asked" });
      current.rivals.forEach((rival, i) => marks[other].push({ id: `rival${i}`, kind: "rival", mm: rival.position, chosen: true, label: `${i + 2}.`, title: `runner-up, similarity ${rival.similarity.toFixed(2)}` }));
      const place = current.moved ?? current.match?.moving;
      if (place) marks[other].push({ id: "current", kind: current.match.verdict, mm: place, chosen: true, label: "", title: "answer", draggable: true });
    }
    for (const side of sides) this.panels[side].show(marks[side]);
  }

  async refresh() { this.list.take(await get("points")); }
}
