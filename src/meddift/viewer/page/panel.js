// One scan: three planes with crosshair, letters and marks over them, and what a hand can do there.

import { FlatView } from "./planes.js";
import { GlView } from "./scans.js";
import { element, mark } from "./marks.js";

//: A pointer that has moved by less than this between down and up was a click, CSS pixels.
const CLICK = 4;
//: Marks farther from the plane than this are drawn faintly, or not at all, mm.
const NEAR = 4;
const LETTERS = { axial: ["R", "L", "A", "P"], coronal: ["R", "L", "S", "I"], sagittal: ["A", "P", "S", "I"] };
const AXIS = ["R–L", "A–P", "I–S"];

export class Panel {
  // on: {ask(panel, mm), moved(panel, mm), dragged(panel, id, mm), active(panel), stays(error)}
  constructor(on) {
    this.on = on;
    this.marks = [];
    this.map = null;
    this.taking = Promise.resolve();
    this.position = [0, 0, 0];
    this.ready = false;
    this.plane = "axial";
    this.root = document.createElement("section");
    this.root.className = "scan";
    this.root.innerHTML = `
      <div class="head"><h2></h2><span class="faint about"></span></div>
      <div class="stage"><svg tabindex="0" role="application"></svg><div class="veil"><span>reading the scan …</span></div><p class="soon" hidden>drawn by the server until the browser is ready to</p></div>
      <div class="foot"><span class="at"></span><label>Window <select class="windows"></select></label><span class="faint levels"></span></div>`;
    this.stage = this.root.querySelector(".stage");
    this.svg = this.root.querySelector("svg");
    this.veil = this.root.querySelector(".veil");
    this.soon = this.root.querySelector(".soon");
    this.numbers = AXIS.map((name, axis) => this.coordinate(name, axis));
    const choice = this.root.querySelector(".windows");
    choice.addEventListener("change", () => this.window(Number(choice.value)));
    this.hands();
    new ResizeObserver(() => this.arrange()).observe(this.stage);
  }

  coordinate(name, axis) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "number", step: 1, title: `${name}, world RAS mm` });
    input.addEventListener("change", () => {
      if (!this.ready || !Number.isFinite(input.valueAsNumber)) return;
      const mm = [...this.position];
      mm[axis] = input.valueAsNumber;
      this.move(mm);
    });
    label.append(`${"xyz"[axis]} `, input);
    this.root.querySelector(".at").append(label);
    return input;
  }

  // Shows planes that the server has drawn, which takes a moment; `takeOver` goes on from there.
  async open(scan, flat) {
    this.ready = false;
    this.map = null;
    this.root.dataset.drawn = flat ? "server" : "for now";
    this.scan = scan;
    this.root.querySelector("h2").textContent = scan.title;
    const size = (numbers, digits) => numbers.map((v) => Number(v.toFixed(digits))).join(" × ");
    const facts = [scan.modality, `${scan.shape.join(" × ")} voxels of ${size(scan.spacing, 2)} mm`];
    if (scan.oblique_degrees > 0.5) facts.push(`${scan.oblique_degrees.toFixed(0)}° oblique`);
    if (scan.copy.reduced) facts.push(`shown at ${size(scan.copy.spacing, 2)} mm; points are looked for in the full scan`);
    this.root.querySelector(".about").textContent = facts.filter(Boolean).join(" · ");
    this.svg.setAttribute("aria-label", `${scan.title}: click asks for the same place in the other scan; arrow keys move the crosshair`);
    this.planesView ??= Object.assign(FlatView.on(this.stage), { drawn: () => this.paint() });
    await this.planesView.show(scan);
    if (scan !== this.scan) return;
    this.use(this.planesView);
    this.position = [...scan.center];
    const choice = this.root.querySelector(".windows");
    choice.replaceChildren(...scan.windows.map((w, i) => new Option(w.name, i)));
    this.level = { ...scan.windows[0] };
    this.ready = true;
    this.veil.hidden = true;
    this.tell(0);
    this.arrange();
    this.go(this.position);
  }

  // The browser draws by itself from now on, which is fluent, but takes seconds to prepare without a graphics card.
  takeOver() {
    const scan = this.scan;
    this.soon.hidden = false;
    this.taking = this.taking.then(async () => {
      if (scan !== this.scan || this.view !== this.planesView) return;
      try {
        this.glView ??= await GlView.on(this.stage);
        await this.glView.show(scan);
      } catch (error) {
        this.root.dataset.drawn = "server";
        this.on.stays(error);
        return;
      } finally {
        this.soon.hidden = scan === this.scan;
      }
      if (scan !== this.scan) return;
      this.glView.look = this.planesView.look;
      this.glView.window(this.level.low, this.level.high);
      for (let laid = null; laid !== this.map;) {
        laid = this.map;
        await this.glView.overlay(...(laid ?? [null]));
      }
      this.use(this.glView);
      this.root.dataset.drawn = "browser";
      this.arrange();
      this.go(this.position);
    });
    return this.taking;
  }

  use(view) {
    this.view = view;
    for (const one of [this.planesView, this.glView]) if (one) one.canvas.style.visibility = one === view ? "visible" : "hidden";
  }

  async overlay(url, range) {
    this.map = url ? [url, range] : null;
    await this.view.overlay(url, range);
  }

  // ------------------------------------------------------------------ what is shown

  planes(which) { this.shown = which; this.arrange(); }

  arrange() {
    if (!this.ready) return;
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return;
    const whole = { left: 0.01, top: 0.01, width: 0.98, height: 0.98 };
    if (this.shown && this.shown !== "three") this.view.arrange([{ plane: this.shown, ...whole }]);
    else if (width > 1.15 * height) {
      this.view.arrange([
        { plane: "axial", left: 0.01, top: 0.01, width: 0.57, height: 0.98 },
        { plane: "coronal", left: 0.6, top: 0.01, width: 0.39, height: 0.48 }, { plane: "sagittal", left: 0.6, top: 0.51, width: 0.39, height: 0.48 }]);
    } else {
      this.view.arrange([
        { plane: "axial", left: 0.01, top: 0.01, width: 0.98, height: 0.56 },
        { plane: "coronal", left: 0.01, top: 0.59, width: 0.48, height: 0.4 }, { plane: "sagittal", left: 0.51, top: 0.59, width: 0.48, height: 0.4 }]);
    }
    this.view.draw();
    this.paint();
  }

  // Moves the crosshair without telling anybody.
  go(mm) {
    if (!this.ready) return;
    const { low, high } = this.scan.box;
    this.position = mm.map((v, i) => Math.min(Math.max(v, low[i]), high[i]));
    this.view.goTo(this.position);
    this.numbers.forEach((input, i) => { if (document.activeElement !== input) input.value = this.position[i].toFixed(1); });
    this.paint();
  }

  // Moves it because a person wants to.
  move(mm) { this.go(mm); this.on.moved(this, this.position); }

  step(axis, count) {
    const mm = [...this.position];
    mm[axis] += count * this.scan.steps[axis];
    this.move(mm);
  }

  zoom(factor) { if (this.ready) { this.view.zoom(factor, this.position); this.paint(); } }

  window(number) {
    if (!this.scan?.windows[number]) return;
    this.tell(number);
    this.levels(this.scan.windows[number].low, this.scan.windows[number].high);
  }

  levels(low, high) {
    this.level = { low, high: Math.max(high, low + 1e-6) };
    this.view.window(this.level.low, this.level.high);
    this.tell();
  }

  // Which window it is, in words.
  tell(number = null) {
    if (number !== null) this.root.querySelector(".windows").value = String(number);
    const { low, high } = this.level, digits = high - low < 20 ? 2 : 0;
    this.root.querySelector(".levels").textContent = `${low.toFixed(digits)} to ${high.toFixed(digits)} ${this.scan.unit}`.trim();
  }

  // marks: [{id, kind, mm, review, label, title, chosen, draggable}]
  show(marks) { this.marks = marks; this.paint(); }

  paint() {
    if (!this.ready) return;
    const parts = [];
    for (const tile of this.view.tiles()) {
      const inside = element("svg", { x: tile.left, y: tile.top, width: tile.width, height: tile.height, overflow: "hidden" });
      const shifted = element("g", { transform: `translate(${-tile.left} ${-tile.top})` });
      inside.append(shifted);
      const { x, y } = tile.toScreen(this.position), gap = 11;
      const lines = [[tile.left, y, x - gap, y], [x + gap, y, tile.left + tile.width, y], [x, tile.top, x, y - gap], [x, y + gap, x, tile.top + tile.height]];
      for (const [x1, y1, x2, y2] of lines) shifted.append(element("line", { class: "hair", x1, y1, x2, y2 }));
      for (const one of this.marks) this.paintMark(shifted, tile, one);
      parts.push(inside, ...this.letters(tile));
    }
    this.svg.replaceChildren(...parts);
  }

  paintMark(group, tile, one) {
    const { x, y, depth } = tile.toScreen(this.dragging?.id === one.id ? this.dragging.mm : one.mm);
    const far = Math.abs(depth) > NEAR;
    if (far && !one.chosen) return;
    group.append(mark({ ...one, x, y, size: one.chosen ? 9 : 6.5, off: far, label: one.chosen && !far ? one.label : "", flip: x > tile.left + tile.width - 70 }));
    if (!one.draggable || far) return;
    const handle = element("circle", { class: "handle", cx: x, cy: y, r: 13 });
    handle.dataset.mark = one.id;
    group.append(handle);
  }

  letters(tile) {
    const { left, top, width, height } = tile, [a, b, c, d] = LETTERS[tile.plane];
    const at = (text, x, y, anchor) => element("text", { class: "letter", x, y, "text-anchor": anchor, "dominant-baseline": "central" }, text);
    return [
      element("rect", { class: "frame", x: left, y: top, width, height }),
      at(a, left + 7, top + height / 2, "start"), at(b, left + width - 7, top + height / 2, "end"), at(c, left + width / 2, top + 11, "middle"), at(d, left + width / 2, top + height - 11, "middle"),
      element("text", { class: "plane-name", x: left + 6, y: top + 14 }, tile.plane),
    ];
  }

  // ------------------------------------------------------------------ what a hand does

  tileAt(event) {
    const frame = this.stage.getBoundingClientRect();
    const x = event.clientX - frame.left, y = event.clientY - frame.top;
    const tile = this.view.tiles().find((t) => x >= t.left && x <= t.left + t.width && y >= t.top && y <= t.top + t.height);
    return tile ? { tile, x, y } : null;
  }

  hands() {
    let held = null;
    const { svg } = this;
    svg.addEventListener("contextmenu", (event) => event.preventDefault());
    svg.addEventListener("pointerdown", (event) => {
      if (!this.ready) return;
      this.on.active(this);
      svg.focus({ preventScroll: true });
      const at = this.tileAt(event);
      if (!at) return;
      this.plane = at.tile.plane;
      svg.setPointerCapture(event.pointerId);
      const id = event.target.dataset?.mark;
      const levelling = event.button === 2 || document.body.classList.contains("levelling");
      held = { kind: levelling ? "level" : id ? "mark" : "cross", id, tile: at.tile, x: event.clientX, y: event.clientY, far: 0, level: { ...this.level } };
      if (held.kind === "cross" && event.button === 0) this.move(at.tile.toWorld(at.x, at.y));
      event.preventDefault();
    });
    svg.addEventListener("pointermove", (event) => {
      if (!held) return;
      const dx = event.clientX - held.x, dy = event.clientY - held.y;
      held.far = Math.max(held.far, Math.hypot(dx, dy));
      if (held.far < CLICK) return;
      if (held.kind === "level") {
        const width = held.level.high - held.level.low, middle = (held.level.high + held.level.low) / 2;
        const wide = width * Math.exp(dx / 200), center = middle - (dy / 300) * width;
        this.levels(center - wide / 2, center + wide / 2);
        return;
      }
      const frame = this.stage.getBoundingClientRect();
      const mm = held.tile.toWorld(event.clientX - frame.left, event.clientY - frame.top);
      if (held.kind === "mark") { this.dragging = { id: held.id, mm: this.inPlane(held, mm) }; this.paint(); }
      else this.move(mm);
    });
    svg.addEventListener("pointerup", (event) => {
      const done = held;
      held = null;
      if (!done) return;
      const clicked = done.far < CLICK;
      if (done.kind === "mark" && !clicked && this.dragging) {
        const { mm } = this.dragging;
        this.dragging = null;
        this.go(mm);
        this.on.dragged(this, done.id, mm);
      } else if (clicked && event.button === 0 && done.kind !== "level") this.on.ask(this, [...this.position]);
    });
    svg.addEventListener("pointercancel", () => { held = null; this.dragging = null; });
    svg.addEventListener("focus", () => this.on.active(this));
    svg.addEventListener("wheel", (event) => {
      const at = this.ready && this.tileAt(event);
      if (!at) return;
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) this.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2);
      else this.step(at.tile.through, event.deltaY < 0 ? 1 : -1);
    }, { passive: false });
  }

  // A mark keeps its own distance from the plane in which it is dragged.
  inPlane(held, mm) {
    const at = [...mm];
    at[held.tile.through] = this.marks.find((m) => m.id === held.id)?.mm[held.tile.through] ?? mm[held.tile.through];
    return at;
  }
}
