// The only module that knows NiiVue (0.69). It draws planes of one scan; marks, crosshair and letters lie above, in SVG.
//
//   const view = await GlView.on(stage)      throws where there is no WebGL 2
//   await view.show(scan)                    a scan as the API describes it
//   view.window(low, high)                   in the scan's own values
//   await view.overlay(url, {low, high, scale}) ; view.overlay(null)
//   view.goTo(mm) ; view.position            world RAS mm
//   view.arrange(rectangles)                 [{plane, left, top, width, height}], shares of the stage
//   view.zoom(factor, mm) ; view.look          how far it is zoomed, and where: {factor, pan}
//   view.tiles()                             [{plane, left, top, width, height, toScreen(mm), toWorld(x, y)}], CSS pixels

import { address } from "./api.js";

const PLANES = ["axial", "coronal", "sagittal"];
// World axes that run along the picture and across it, for each plane.
const AXES = [[0, 1, 2], [0, 2, 1], [1, 2, 0]];

let library = null;
function load() {
  library ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = "page/vendor/niivue.umd.js";
    script.onload = () => done(globalThis.niivue);
    script.onerror = () => failed(new Error("the part that draws scans could not be loaded"));
    document.head.append(script);
  });
  return library;
}

export function hasWebGL2() {
  const gl = document.createElement("canvas").getContext("webgl2");
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return gl !== null;
}

// A program that draws nothing. NiiVue computes gradients for pictures in 3-D, which are never shown here: they would
// take most of the time until a scan is drawn, and again at each change of the window.
function nothing(gl) {
  const program = gl.createProgram();
  const kinds = [[gl.VERTEX_SHADER, "#version 300 es\nvoid main() { gl_Position = vec4(2.0); }"], [gl.FRAGMENT_SHADER, "#version 300 es\nprecision lowp float;\nout vec4 colour;\nvoid main() { colour = vec4(0.0); }"]];
  for (const [kind, text] of kinds) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  return { uniforms: {}, use: () => gl.useProgram(program) };
}

export class GlView {
  static async on(stage) {
    const { Niivue, SHOW_RENDER } = await load();
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    stage.prepend(canvas);
    const nv = new Niivue({
      isSliceMM: true, isRadiologicalConvention: true, sagittalNoseLeft: true, interactive: false, crosshairWidth: 0,
      multiplanarShowRender: SHOW_RENDER?.NEVER ?? 0, isOrientationTextVisible: false, isColorbar: false, show3Dcrosshair: false,
      backColor: [0, 0, 0, 1], dragAndDropEnabled: false, loadingText: "", logLevel: "error", isNearestInterpolation: false,
      isCornerOrientationText: false, isResizeCanvas: true, sliceType: 3,
    });
    await nv.attachToCanvas(canvas, false);
    nv.blurShader = nv.sobelFirstOrderShader = nothing(nv.gl);
    return new GlView(nv, canvas);
  }

  constructor(nv, canvas) {
    this.nv = nv;
    this.canvas = canvas;
    this.canvas.tabIndex = -1;
    this.scan = null;
    this.map = null;
    this.queued = 0;
  }

  async show(scan) {
    this.scan = scan;
    this.map = null;
    for (const volume of [...this.nv.volumes]) this.nv.removeVolume(volume);
    const { low, high } = scan.windows[0];
    await this.nv.addVolumeFromUrl({
      url: address(`scans/${scan.id}/volume.nii`), name: `${scan.id}.nii`, colormap: "gray", ...this.stored(low, high), trustCalMinMax: true,
    });
    this.goTo(scan.center);
  }

  stored(low, high) {
    const { scale, offset } = this.scan.copy;
    return { cal_min: (low - offset) / scale, cal_max: (high - offset) / scale };
  }

  window(low, high) {
    const volume = this.nv.volumes[0];
    if (!volume) return;
    Object.assign(volume, this.stored(low, high));
    // The whole texture is made anew, so once a frame is enough.
    cancelAnimationFrame(this.queued);
    this.queued = requestAnimationFrame(() => { this.nv.refreshLayers(volume, 0); this.nv.drawScene(); });
  }

  async overlay(url, range) {
    // Hidden by the shader: nothing is made anew until there is another map.
    this.nv.overlayAlphaShader = 0;
    if (url) {
      const look = { colormap: "warm", opacity: 0.55, cal_min: range.low / range.scale, cal_max: range.high / range.scale, trustCalMinMax: true };
      const { NVImage } = await load();
      const read = await NVImage.loadFromUrl({ url, name: "map.nii", ...look });
      if (this.map && String(this.map.dims) === String(read.dims)) {
        // The same grid: its values are exchanged, and the scan beneath is left alone.
        this.map.img = read.img;
        Object.assign(this.map, { cal_min: look.cal_min, cal_max: look.cal_max });
        this.nv.refreshLayers(this.map, 1);
      } else {
        if (this.map) this.nv.removeVolume(this.map);
        this.nv.addVolume(read);
        this.map = read;
      }
      this.nv.overlayAlphaShader = 1;
    }
    this.nv.drawScene();
  }

  goTo(mm) {
    if (!this.nv.volumes.length) return;
    this.nv.scene.crosshairPos = this.nv.mm2frac(mm);
    this.nv.drawScene();
  }

  zoom(factor, mm) {
    const pan = this.nv.scene.pan2Dxyzmm;
    const after = Math.min(Math.max(pan[3] * factor, 1), 12);
    // What lies at the crosshair stays where it is on the screen; back at 1 everything is in the middle again.
    for (let i = 0; i < 3; i++) pan[i] = after === 1 ? 0 : pan[i] + (pan[3] - after) * mm[i];
    pan[3] = after;
    this.nv.drawScene();
  }

  get look() { const pan = this.nv.scene.pan2Dxyzmm; return { factor: pan[3], pan: [...pan.slice(0, 3)] }; }
  set look({ factor, pan }) { this.nv.scene.pan2Dxyzmm = [...pan, factor]; }

  arrange(rectangles) {
    // NiiVue notices a new size of its own a moment later; what lies above has to fit at once.
    this.nv.resizeListener();
    this.nv.setCustomLayout(rectangles.map((r) => ({ sliceType: PLANES.indexOf(r.plane), position: [r.left, r.top, r.width, r.height] })));
  }

  draw() { this.nv.drawScene(); }

  tiles() {
    const dpr = this.nv.uiData.dpr || 1;
    if (!this.nv.volumes.length) return [];
    return this.nv.screenSlices.filter((s) => s.axCorSag < 3 && s.AxyzMxy.length > 4).map((slice) => {
      const [across, up, through] = AXES[slice.axCorSag];
      const [left, top, width, height] = slice.leftTopWidthHeight.map((v) => v / dpr);
      const [firstA, firstB] = slice.leftTopMM, [lengthA, lengthB] = slice.fovMM, v = slice.AxyzMxy;
      // Planes of oblique scans lean: how far they have come along the third axis at (a, b).
      const depth = (a, b) => v[2] + v[4] * (b - v[1]) - v[3] * (a - v[0]);
      return {
        plane: PLANES[slice.axCorSag], across, up, through, left: width < 0 ? left + width : left, top, width: Math.abs(width), height,
        toScreen(mm) {
          const a = mm[across], b = mm[up];
          return { x: left + ((a - firstA) / lengthA) * width, y: top + height - ((b - firstB) / lengthB) * height, depth: mm[through] - depth(a, b) };
        },
        toWorld(x, y) {
          const a = firstA + ((x - left) / width) * lengthA, b = firstB + ((top + height - y) / height) * lengthB;
          const mm = [0, 0, 0];
          mm[across] = a; mm[up] = b; mm[through] = depth(a, b);
          return mm;
        },
      };
    });
  }
}
