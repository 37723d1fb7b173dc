// The list of points: choose, accept, correct, rename, delete, undo, save.

import { address, get, patch, post, remove } from "./api.js";
import { button, make } from "./answer.js";
import { REVIEWS, badge } from "./marks.js";
import { clear, complain, notice } from "./notices.js";

export class List {
  constructor(desk) {
    this.desk = desk;
    this.rows = [];
    this.version = -1;
    this.key = null;
    this.root = make("section", { className: "card grow" });
    this.title = make("h2", { textContent: "Points" });
    this.undoButton = button("Undo", "U", () => this.undo());
    this.saveButton = button("Save", "S", () => this.save(), { first: true });
    this.body = make("tbody");
    const head = make("thead", {}, make("tr", {}, ...["", "Label", "Similarity", "Review", ""].map((text, i) => make("th", { textContent: text, className: i === 2 ? "n" : "" }))));
    this.table = make("table", {}, head, this.body);
    this.nothing = make("p", { className: "empty", textContent: "None yet. Accepted and corrected points stand here." });
    this.root.append(make("div", { className: "sheet-head" }, this.title, this.undoButton, this.saveButton), make("div", { className: "scroll" }, this.table, this.nothing), this.foot());
    addEventListener("beforeunload", (event) => { if (this.unsaved) event.preventDefault(); });
  }

  foot() {
    const file = make("input", { type: "file", accept: ".json,.fcsv,.csv,.tsv,.txt,.pts", hidden: true });
    file.addEventListener("change", () => this.takeIn(file));
    const download = (side) => make("a", { href: address(`points/export?side=${side}`), download: `${side}.mrk.json`, textContent: side });
    return make("div", { className: "buttons" }, button("Read points …", "", () => file.click()), file, make("span", { className: "faint" }, "Download for 3D Slicer: ", download("fixed"), ", ", download("moving")));
  }

  get chosen() { return this.rows.find((row) => row.id === this.key) ?? null; }

  async refresh() { this.take(await get("points")); }

  take(told) {
    if (told.version < this.version) return;
    this.version = told.version;
    this.rows = told.points;
    this.unsaved = !told.saved;
    this.title.textContent = `Points (${told.points.length})${told.saved ? "" : " · not saved"}`;
    this.undoButton.disabled = !told.can_undo;
    this.saveButton.disabled = told.saved && !this.more;
    this.draw();
    this.desk.paint();
  }

  draw() {
    this.table.hidden = !this.rows.length;
    this.nothing.hidden = Boolean(this.rows.length);
    this.body.replaceChildren(...this.rows.map((row) => this.line(row)));
  }

  line(row) {
    const chosen = row.id === this.key;
    const made = make("tr", { className: chosen ? "chosen" : "" });
    made.dataset.row = row.id;
    const label = make("td");
    if (chosen) {
      const input = make("input", { type: "text", value: row.label, maxLength: 100 });
      input.setAttribute("aria-label", "label of the point");
      input.addEventListener("change", () => this.send(patch(`points/${row.id}`, { label: input.value })));
      input.addEventListener("click", (event) => event.stopPropagation());
      label.append(input);
    } else label.textContent = row.label;
    const out = make("button", { textContent: "Delete", title: "Delete this point (Del)" });
    out.addEventListener("click", (event) => { event.stopPropagation(); this.delete(row.id); });
    made.append(make("td", {}, badge(row.verdict ?? "none", row.review)), label, make("td", { className: "n", textContent: row.similarity === null ? "–" : row.similarity.toFixed(2) }),
      make("td", { textContent: REVIEWS[row.review], className: row.review === "proposed" ? "faint" : "" }), make("td", {}, chosen ? out : null));
    made.addEventListener("click", () => this.choose(row.id));
    return made;
  }

  choose(key, { quiet = false } = {}) {
    if (key === this.key) return;
    this.key = key;
    const row = this.chosen;
    if (row) {
      this.desk.questions.forget();
      this.desk.current = null;
      this.desk.map(null);
      if (!quiet) for (const side of ["fixed", "moving"]) if (row[side]) this.desk.panels[side].go(row[side]);
    }
    this.draw();
    this.desk.paint();
  }

  next(step) {
    if (!this.rows.length) return;
    const at = this.rows.findIndex((row) => row.id === this.key);
    this.choose(this.rows[(at + step + this.rows.length) % this.rows.length].id);
    this.body.querySelector(".chosen")?.scrollIntoView({ block: "nearest" });
  }

  say(review, corrected) { return this.send(patch(`points/${this.key}`, { review, ...(corrected ? { corrected } : {}) })); }

  async send(request) {
    try { this.take(await request); return true; } catch (error) { complain(error); this.draw(); return false; }
  }

  async delete(key) {
    if (!key) return;
    if (await this.send(remove(`points/${key}`)) && key === this.key) this.choose(null);
  }

  undo() { return this.send(post("points/undo")); }

  // There is something to be saved besides the points.
  saves() { this.more = true; this.saveButton.disabled = false; }

  async save() {
    if (this.saveButton.disabled) return;
    try {
      const told = await post("points/save");
      this.more = false;
      this.take(told);
      notice("saved", `Saved: ${told.files.join(", ")}`, { actions: [["Close", () => clear("saved")]] });
    } catch (error) { complain(error); }
  }

  async takeIn(input) {
    const file = input.files[0];
    input.value = "";
    if (!file) return;
    if (await this.send(post("points/import", { name: `points${/(\.mrk)?\.[a-z]+$/i.exec(file.name)?.[0] ?? ""}`, content: await file.text() }))) this.send(post("points/answer"));
  }
}
