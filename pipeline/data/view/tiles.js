// Tiles of a plane as they come from the server, and how they are painted.

import { getBuffer, say } from "./common.js";

const IN_FLIGHT = 6;
const MOST_TILES = 600;
const STEPS = 1024;

export class Tiles {
  constructor(image, size, changed) {
    this.image = image; this.size = size; this.changed = changed;
    this.kept = new Map(); this.queue = []; this.coming = new Set();
    this.topLevel = Math.max(0, Math.ceil(Math.log2(Math.max(image.width, image.height) / size)));
  }

  // Columns and rows of a tile.
  shape(level, row, column) {
    const step = 2 ** level, side = this.size * step;
    return [Math.ceil(Math.min(side, this.image.width - column * side) / step),
            Math.ceil(Math.min(side, this.image.height - row * side) / step)];
  }

  // What is not asked for again is not fetched.
  begin() { this.queue = []; }

  has(plane, level, row, column) { return this.kept.get(`${plane}/${level}/${row}/${column}`); }

  get(plane, level, row, column) {
    const key = `${plane}/${level}/${row}/${column}`;
    const found = this.kept.get(key);
    if (found) { this.kept.delete(key); this.kept.set(key, found); return found; }
    if (!this.coming.has(key)) this.queue.push(key);
    this.fetchNext();
    return null;
  }

  fetchNext() {
    while (this.coming.size < IN_FLIGHT && this.queue.length) {
      const key = this.queue.shift();
      if (this.coming.has(key) || this.kept.has(key)) continue;
      this.coming.add(key);
      getBuffer(`tile/${this.image.number}/${key}`).then((buffer) => {
        this.kept.set(key, key.startsWith("dq/") ? new Uint16Array(buffer) : new Float32Array(buffer));
        if (this.kept.size > MOST_TILES) this.kept.delete(this.kept.keys().next().value);
        this.changed();
      }).catch((error) => say(error.message)).finally(() => { this.coming.delete(key); this.fetchNext(); });
    }
  }

  get idle() { return this.coming.size === 0 && this.queue.length === 0; }
}

// ---- colours --------------------------------------------------------------------------------------------------------
const packed = (r, g, b) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;
const NO_VALUE = packed(70, 60, 95);

const CURVES = {
  linear: (t) => t,
  asinh: (t) => Math.asinh(20 * t) / Math.asinh(20),
  sqrt: Math.sqrt,
  log: (t) => Math.log1p(1000 * t) / Math.log(1001),
};
export const curves = Object.keys(CURVES);

export function greyScale(curve, inverted) {
  return Uint32Array.from({ length: STEPS }, (_, k) => {
    const grey = Math.round(255 * CURVES[curve](k / (STEPS - 1)));
    return inverted ? packed(255 - grey, 255 - grey, 255 - grey) : packed(grey, grey, grey);
  });
}

// Blue below, white at 0, red above.
export const twoSided = Uint32Array.from({ length: STEPS }, (_, k) => {
  const t = 2 * k / (STEPS - 1) - 1, end = t < 0 ? [33, 102, 172] : [178, 24, 43];
  return packed(...end.map((value) => Math.round(247 + (value - 247) * Math.abs(t))));
});

function mixed(base, color, share) {
  const part = (shift) => Math.round((base >>> shift & 255) * (1 - share) + (color >>> shift & 255) * share) << shift;
  return (255 << 24 | part(16) | part(8) | part(0)) >>> 0;
}

export const colorOf = (hex) => packed(...[1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16)));

// A tile as a canvas, its first row at the top. `layers` are functions of a pixel's number: a colour, or 0 for none.
export function painted(pixels, [columns, rows], low, high, scale, layers) {
  const canvas = document.createElement("canvas");
  canvas.width = columns; canvas.height = rows;
  const context = canvas.getContext("2d"), picture = context.createImageData(columns, rows);
  const out = new Uint32Array(picture.data.buffer), factor = (STEPS - 1) / (high - low);
  for (let y = 0; y < rows; y++) {
    let place = (rows - 1 - y) * columns;
    for (let k = y * columns, end = k + columns; k < end; k++, place++) {
      const value = pixels[k], step = (value - low) * factor;
      let color = value !== value ? NO_VALUE : scale[step < 0 ? 0 : step > STEPS - 1 ? STEPS - 1 : step | 0];
      for (const layer of layers) { const over = layer(k); if (over) color = mixed(color, over, 0.7); }
      out[place] = color;
    }
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}
