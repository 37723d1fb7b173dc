// Planes drawn by the server: until the browser is ready to draw, and in browsers without WebGL 2 for good. The same
// functions as the view in scans.js.

import { address } from "./api.js";

const AXES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] };

export class FlatView {
  static on(stage) {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    stage.prepend(canvas);
    return new FlatView(canvas);
  }

  constructor(canvas) {
    this.canvas = canvas;
    this.scan = null;
    this.rectangles = [];
    this.pictures = {};
    this.look = { factor: 1, pan: [0, 0, 0] };
    this.map = null;
  }

  async show(scan) {
    this.scan = scan;
    this.pictures = {};
    this.map = null;
    this.look = { factor: 1, pan: [0, 0, 0] };
    [this.low, this.high] = [scan.windows[0].low, scan.windows[0].high];
    this.position = [...scan.center];
    await Promise.all(Object.keys(AXES).map((plane) => this.fetch(plane)));
  }

  window(low, high) { [this.low, this.high] = [low, high]; this.refresh(); }

  async overlay(url, range) {
    this.map = url ? { url: url.replace(/\.nii$/, ""), ...range } : null;
    await this.refresh();
  }

  goTo(mm) { this.position = [...mm]; this.refresh(); }

  zoom(factor, mm) {
    const after = Math.min(Math.max(this.factor * factor, 1), 12);
    for (let i = 0; i < 3; i++) this.pan[i] = after === 1 ? 0 : this.pan[i] + (this.factor - after) * mm[i];
    this.factor = after;
    this.draw();
  }

  get look() { return { factor: this.factor, pan: [...this.pan] }; }
  set look({ factor, pan }) { [this.factor, this.pan] = [factor, [...pan]]; }

  arrange(rectangles) { this.rectangles = rectangles; this.refresh(); }

  // One request a plane at a time; what was wanted meanwhile is fetched after it.
  async refresh() {
    if (!this.scan) return;
    await Promise.all(this.rectangles.map(({ plane }) => this.fetch(plane)));
  }

  // What a plane shows depends on where it is cut, and not on where in it the crosshair is.
  wanted(plane) {
    const [x, y, z] = this.position.map((v, axis) => (axis === AXES[plane][2] ? v : 0).toFixed(3));
    const map = this.map ? `${this.map.url}/plane.png?` : "";
    return { at: `plane=${plane}&x=${x}&y=${y}&z=${z}`, window: `low=${this.low}&high=${this.high}`, map };
  }

  async fetch(plane) {
    const held = (this.pictures[plane] ??= { image: null, map: null, shown: "", busy: false });
    if (held.busy) return;
    held.busy = true;
    // Whatever has changed meanwhile is fetched after it.
    for (let wanted = this.wanted(plane); this.pictures[plane] === held && held.shown !== shownBy(wanted); wanted = this.wanted(plane)) {
      const { at, window, map } = wanted;
      [held.image, held.map] = await Promise.all([
        picture(address(`scans/${this.scan.id}/plane.png?${at}&${window}&pixels=512`)),
        map ? picture(`${map}${at}&scan=${this.scan.id}&pixels=256`) : null,
      ]);
      held.shown = shownBy(wanted);
    }
    held.busy = false;
    this.draw();
  }

  draw() {
    const stage = this.canvas.parentElement;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = stage.clientWidth * ratio;
    this.canvas.height = stage.clientHeight * ratio;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.imageSmoothingQuality = "high";
    for (const tile of this.tiles()) {
      const held = this.pictures[tile.plane];
      pen.save();
      pen.beginPath();
      pen.rect(tile.left, tile.top, tile.width, tile.height);
      pen.clip();
      const { low, high } = this.scan.box;
      const one = tile.toScreen(low), other = tile.toScreen(high);
      const [x, y] = [Math.min(one.x, other.x), Math.min(one.y, other.y)];
      const [w, h] = [Math.abs(one.x - other.x), Math.abs(one.y - other.y)];
      // A picture of another place than that of the crosshair is on its way out, and shall look so.
      pen.globalAlpha = held?.shown.startsWith(this.wanted(tile.plane).at) ? 1 : 0.45;
      if (held?.image) pen.drawImage(held.image, x, y, w, h);
      if (held?.map) pen.drawImage(held.map, x, y, w, h);
      pen.restore();
    }
    this.drawn?.();
  }

  tiles() {
    if (!this.scan) return [];
    const stage = this.canvas.parentElement;
    const { low, high } = this.scan.box;
    return this.rectangles.map((r) => {
      const [across, up, through] = AXES[r.plane];
      const [wide, tall] = [high[across] - low[across], high[up] - low[up]];
      const room = { width: r.width * stage.clientWidth, height: r.height * stage.clientHeight };
      const scale = Math.min(room.width / wide, room.height / tall);
      const [width, height] = [wide * scale, tall * scale];
      const left = r.left * stage.clientWidth + (room.width - width) / 2, top = r.top * stage.clientHeight + (room.height - height) / 2;
      const share = (mm, axis) => (mm[axis] * this.factor - low[axis] + this.pan[axis]) / (high[axis] - low[axis]);
      const back = (part, axis) => (part * (high[axis] - low[axis]) + low[axis] - this.pan[axis]) / this.factor;
      const position = this.position;
      return {
        plane: r.plane, across, up, through, left, top, width, height,
        // Right and front stand on the left of the picture.
        toScreen: (mm) => ({ x: left + (1 - share(mm, across)) * width, y: top + (1 - share(mm, up)) * height, depth: mm[through] - position[through] }),
        toWorld(x, y) {
          const mm = [...position];
          mm[across] = back(1 - (x - left) / width, across);
          mm[up] = back(1 - (y - top) / height, up);
          return mm;
        },
      };
    });
  }
}

const shownBy = ({ at, window, map }) => [at, window, map].join();

async function picture(url) {
  const answer = await fetch(url).catch(() => null);  // the page says by itself that the server is gone
  return answer?.ok ? createImageBitmap(await answer.blob()) : null;
}
