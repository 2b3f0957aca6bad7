// FITS frames: pan and zoom over tiles, stretch, blink, mask by bits, threshold, brush.

import { $, button, card, checkbox, dim, element, fitted, getJson, latest, number, onKeys, post, row, save, say, select, slider } from "./common.js";
import { Tiles, colorOf, curves, greyScale, painted, twoSided } from "./tiles.js";

const BIT_COLORS = { 1: "#AA3377", 2: "#CC3311", 4: "#EECC66", 8: "#4477AA", 16: "#228833", 32: "#999999", 64: "#66CCEE",
                     128: "#BBAADD", 256: "#EE7733", 512: "#882255" };
// What a pixel is drawn as that has several bits.
const BIT_ORDER = [8, 2, 16, 512, 256, 4, 1, 32, 64, 128];
const THRESHOLD_COLOR = colorOf("#FF33CC"), PAINTED_COLOR = colorOf("#33FF66"), ERASED_COLOR = colorOf("#FFFFFF");
const BLINK_MS = 600, RESIDUAL_SIGMA = 5, MOST_PAINTED = 400;

let info, image, tiles, canvas, context;
let plane, stretch = "zscale", curve = "asinh", inverted = false, low = 0, high = 1;
let shownBits = 0, threshold = null, blinking = 0;
let whole = true;  // whether the view is that of the whole frame
let x0, y0, zoom;  // centre of the view in pixels from the lower left edge; pixels of the screen for each of the image
let editing = 0, radius = 3, editBit = 8, edits = new Map(), strokes = [];
let paintings = new Map(), style = 0, scheduled = false, controls = {};

export async function start(given) {
  info = given;
  canvas = $("canvas"); context = canvas.getContext("2d");
  await choose(0);
  fitted(canvas, () => (whole ? fitAll() : draw()));
  pointer();
  keys();
}

async function choose(n) {
  image = { ...info.images[n], number: n };
  tiles = new Tiles(image, info.tile_px, draw);
  plane = image.planes[0]; threshold = null; shownBits = 0; edits = new Map(); strokes = []; whole = true;
  $("title").textContent = info.file;
  panel();
  await show(plane);
  fitAll();
}

// ---- what is shown --------------------------------------------------------------------------------------------------
async function show(name) {
  plane = name;
  for (const [key, made] of Object.entries(controls.planes)) made.setAttribute("aria-pressed", key === name);
  await limits();
}

async function limits() {
  if (plane === "residual" && image.noise) {
    [low, high] = [-RESIDUAL_SIGMA * image.noise, RESIDUAL_SIGMA * image.noise];
  } else if (stretch !== "manual") {
    // Before and after are compared: they share limits.
    const asked = plane, of = plane === "after" ? "before" : plane;
    try {
      const found = await getJson(`limits/${image.number}/${of}`);
      if (plane !== asked) return;  // another one was chosen meanwhile
      [low, high] = found[stretch];
    } catch (error) { say(error.message); }
  }
  if (!(high > low)) high = low + 1e-6;
  controls.low.value = number(low, 6); controls.high.value = number(high, 6);
  repaint();
}

function repaint() { style++; paintings.clear(); draw(); }

function blink() {
  const [first, second] = image.planes;
  if (!image.planes.includes("after")) { say("there is no picture before and after"); return; }
  clearInterval(blinking);
  blinking = blinking ? 0 : setInterval(() => show(plane === first ? second : first), BLINK_MS);
  controls.blink.setAttribute("aria-pressed", Boolean(blinking));
}

function fitAll() {
  whole = true;
  zoom = Math.min(canvas.width / image.width, canvas.height / image.height);
  [x0, y0] = [image.width / 2, image.height / 2];
  draw();
}

function zoomBy(factor, x = canvas.width / 2, y = canvas.height / 2) {
  const [column, line] = toImage(x, y);
  whole = false;
  zoom = Math.min(Math.max(zoom * factor, 0.5 / 2 ** tiles.topLevel), 64);
  x0 = column - (x - canvas.width / 2) / zoom;
  y0 = line + (y - canvas.height / 2) / zoom;
  draw();
}

const toImage = (x, y) => [x0 + (x - canvas.width / 2) / zoom, y0 - (y - canvas.height / 2) / zoom];
const toScreen = (column, line) => [canvas.width / 2 + (column - x0) * zoom, canvas.height / 2 - (line - y0) * zoom];

// ---- drawing --------------------------------------------------------------------------------------------------------
export function draw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; drawNow(); });
}

function drawNow() {
  if (zoom === undefined) return;
  context.fillStyle = "#101216";
  context.fillRect(0, 0, canvas.width, canvas.height);
  tiles.begin();
  tiles.get(plane, tiles.topLevel, 0, 0);  // stands in for all that has not come yet
  const level = Math.min(Math.max(Math.floor(Math.log2(1 / zoom) + 1e-9), 0), tiles.topLevel);
  const side = tiles.size * 2 ** level;
  const [left, top] = toImage(0, 0), [right, bottom] = toImage(canvas.width, canvas.height);
  const last = (length) => Math.ceil(length / side) - 1;
  context.imageSmoothingEnabled = zoom * 2 ** level < 1;
  for (let r = Math.max(0, Math.floor(bottom / side)); r <= Math.min(last(image.height), Math.floor(top / side)); r++)
    for (let c = Math.max(0, Math.floor(left / side)); c <= Math.min(last(image.width), Math.floor(right / side)); c++)
      drawTile(level, r, c);
  canvas.dataset.idle = tiles.idle;
  if (!tiles.idle && !paintings.size) $("readout").textContent = "loading …";
  else if ($("readout").textContent === "loading …") $("readout").textContent = "";
}

function drawTile(level, r, c) {
  const made = painting(level, r, c);
  const [columns, rows] = tiles.shape(level, r, c), step = 2 ** level, side = tiles.size * step;
  const [x, y] = toScreen(c * side, r * side + rows * step);
  const [width, height] = [columns * step * zoom, rows * step * zoom];
  if (made) { context.drawImage(made, x, y, width, height); return; }
  // Until it comes, the part of a coarser one.
  for (let up = 1; level + up <= tiles.topLevel; up++) {
    const factor = 2 ** up, [pr, pc] = [r >> up, c >> up];
    if (!tiles.has(plane, level + up, pr, pc)) continue;
    const coarse = painting(level + up, pr, pc);
    if (!coarse) continue;
    const w = columns / factor, h = rows / factor;
    const sx = (c % factor) * tiles.size / factor, sy = coarse.height - (r % factor) * tiles.size / factor - h;
    context.drawImage(coarse, sx, Math.max(sy, 0), w, h, x, y, width, height);
    return;
  }
}

function painting(level, r, c) {
  const key = `${plane}/${level}/${r}/${c}/${style}`;
  if (paintings.has(key)) return paintings.get(key);
  const pixels = tiles.get(plane, level, r, c);
  const dq = shownBits ? tiles.get("dq", level, r, c) : null;
  const score = threshold === null ? null : tiles.get("score", level, r, c);
  if (!pixels || (shownBits && !dq) || (threshold !== null && !score)) return null;
  const layers = [];
  if (dq) layers.push(maskLayer(dq));
  if (score) layers.push((k) => (score[k] >= threshold ? THRESHOLD_COLOR : 0));
  if (edits.size) layers.push(editLayer(level, r, c));
  const scale = plane === "residual" ? twoSided : greyScale(curve, inverted);
  const made = painted(pixels, tiles.shape(level, r, c), low, high, scale, layers);
  paintings.set(key, made);
  if (paintings.size > MOST_PAINTED) paintings.delete(paintings.keys().next().value);
  return made;
}

function maskLayer(dq) {
  const colors = BIT_ORDER.filter((bit) => shownBits & bit).map((bit) => [bit, colorOf(BIT_COLORS[bit])]);
  return (k) => {
    if (!(dq[k] & shownBits)) return 0;
    for (const [bit, color] of colors) if (dq[k] & bit) return color;
    return 0;
  };
}

// ---- brush ----------------------------------------------------------------------------------------------------------
// Edits are kept in tiles of level 0: 1 where the bit is set, 2 where a pixel is made good.
function editLayer(level, r, c) {
  const [columns, rows] = tiles.shape(level, r, c), step = 2 ** level, found = new Uint8Array(columns * rows);
  for (const [key, edit] of edits) {
    const [tr, tc] = key.split(",").map(Number), width = tiles.shape(0, tr, tc)[0];
    if (tr >> level !== r || tc >> level !== c) continue;
    edit.forEach((value, k) => {
      if (!value) return;
      const y = Math.floor((tr * tiles.size + Math.floor(k / width)) / step) - r * tiles.size;
      const x = Math.floor((tc * tiles.size + k % width) / step) - c * tiles.size;
      found[y * columns + x] = value;
    });
  }
  return (k) => (found[k] === 1 ? PAINTED_COLOR : found[k] === 2 ? ERASED_COLOR : 0);
}

function brush(column, line) {
  const stroke = strokes.at(-1), [cx, cy] = [Math.floor(column), Math.floor(line)];
  for (let y = cy - radius; y <= cy + radius; y++) {
    for (let x = cx - radius; x <= cx + radius; x++) {
      if (x < 0 || y < 0 || x >= image.width || y >= image.height || Math.hypot(x - cx, y - cy) > radius) continue;
      const r = Math.floor(y / tiles.size), c = Math.floor(x / tiles.size), key = `${r},${c}`;
      const [columns, rows] = tiles.shape(0, r, c);
      if (!edits.has(key)) edits.set(key, new Uint8Array(columns * rows));
      const edit = edits.get(key), k = (y - r * tiles.size) * columns + (x - c * tiles.size);
      if (edit[k] !== editing) { stroke.push([key, k, edit[k]]); edit[k] = editing; forget(r, c); }
    }
  }
  draw();
}

// Tiles that show a tile of level 0 are painted anew.
function forget(r, c) {
  for (let level = 0; level <= tiles.topLevel; level++)
    for (const name of image.planes) paintings.delete(`${name}/${level}/${r >> level}/${c >> level}/${style}`);
}

function undo() {
  for (const [key, k, old] of (strokes.pop() || []).reverse()) edits.get(key)[k] = old;
  repaint();
}

function setEditing(value) {
  editing = editing === value ? 0 : value;
  controls.paint.setAttribute("aria-pressed", editing === 1);
  controls.erase.setAttribute("aria-pressed", editing === 2);
}

// ---- what goes out --------------------------------------------------------------------------------------------------
async function saveMask() {
  const encoded = [...edits].filter(([, edit]) => edit.some(Boolean)).map(([key, edit]) => {
    let text = "";
    for (let k = 0; k < edit.length; k += 4096) text += String.fromCharCode(...edit.subarray(k, k + 4096));
    return [...key.split(",").map(Number), btoa(text)];
  });
  try {
    const blob = await post(`mask/${image.number}`, { bit: editBit, threshold, edits: encoded });
    save(blob, `${info.file.replace(/(\.fits?|\.fts)?(\.gz|\.fz|\.bz2)?$/, "")}.mask.fits`);
  } catch (error) { say(error.message); }
}

const savePicture = () => canvas.toBlob((blob) => save(blob, `${info.file}.${plane}.png`), "image/png");

// ---- controls -------------------------------------------------------------------------------------------------------
function panel() {
  controls = { planes: {} };
  const made = [];
  const cards = [...info.notes, ...image.warnings].map((text) => element("p", { className: "warn", textContent: text }));
  if (info.images.length > 1)
    made.push(row(select(info.images.map(({ name }, n) => [n, name]), image.number, (n) => choose(+n), "HDU")));
  made.push(dim(`${image.name}, ${image.width} x ${image.height} px, ${image.unit}`), ...cards);
  for (const name of image.planes) controls.planes[name] = button(name, () => show(name));
  made.push(row(...Object.values(controls.planes)));
  controls.blink = button("blink", blink, "before and after in turn (b)");
  if (!image.planes.includes("after")) controls.blink.hidden = true;
  made.push(row(controls.blink, button("fit", fitAll, "the whole frame (f)"), button("+", () => zoomBy(2), "zoom in"),
                button("−", () => zoomBy(0.5), "zoom out"), button("1:1", () => zoomBy(1 / zoom), "pixel by pixel")));
  $("panel").replaceChildren(card("Image", ...made), stretchCard(), maskCard(), thresholdCard(), brushCard());
}

function stretchCard() {
  controls.low = element("input", { type: "number", step: "any", "aria-label": "low", onchange: manual });
  controls.high = element("input", { type: "number", step: "any", "aria-label": "high", onchange: manual });
  const names = [["zscale", "zscale"], ["percentile", "0.5 to 99.8 %"], ["all", "all values"], ["manual", "as given"]];
  controls.stretch = select(names, stretch, (value) => { stretch = value; limits(); }, "limits");
  controls.curve = select(curves.map((c) => [c, c]), curve, (value) => { curve = value; repaint(); }, "curve");
  return card("Stretch", row(controls.stretch, controls.curve,
                             checkbox("inverted", inverted, (on) => { inverted = on; repaint(); })),
              row(controls.low, "to", controls.high));
}

function manual() {
  stretch = controls.stretch.value = "manual";
  [low, high] = [+controls.low.value, +controls.high.value];
  limits();
}

function maskCard() {
  controls.bits = new Map();
  const boxes = info.bits.map(({ bit, name }) => {
    const made = checkbox(name, Boolean(shownBits & bit), (on) => { shownBits = on ? shownBits | bit : shownBits & ~bit; repaint(); },
                          BIT_COLORS[bit]);
    controls.bits.set(bit, made.querySelector("input"));
    return row(made);
  });
  return card("Mask", row(button("all", () => showBits(~0), "all bits (d)"), button("none", () => showBits(0))), ...boxes);
}

function showBits(bits) {
  shownBits = 0;
  for (const [bit, box] of controls.bits) { box.checked = Boolean(bits & bit); if (box.checked) shownBits |= bit; }
  repaint();
}

function thresholdCard() {
  const { label, low: least, high: most, start: value } = image.score;
  const set = (number_) => { threshold = number_; box.querySelector("input").checked = true; repaint(); };
  const bar = slider("≥", { low: least, high: most, step: (most - least) / 240, value }, set);
  const box = checkbox("show what is above", false, (on) => {
    threshold = on ? +bar.querySelector("input").value : null;
    repaint();
  }, "#FF33CC");
  controls.threshold = bar;
  return card("Defect threshold", dim(label), row(box), bar);
}

function brushCard() {
  controls.paint = button("paint", () => setEditing(1), "set the bit (e)");
  controls.erase = button("make good", () => setEditing(2), "clear all bits (r)");
  const bits = info.bits.map(({ bit, name }) => [bit, name]);
  return card("Edit and save", row(controls.paint, controls.erase, button("undo", undo, "u")),
              row("as", select(bits, editBit, (bit) => { editBit = +bit; }, "bit")),
              slider("radius", { low: 0, high: 30, step: 1, value: radius, digits: 0 }, (value) => { radius = value; }),
              row(button("mask as FITS", saveMask, "with edits and threshold (x)"),
                  button("picture as PNG", savePicture, "what is seen (s)")),
              dim("Nothing is written but what you save."));
}

function keys() {
  const pan = (dx, dy) => () => { whole = false; x0 += dx * canvas.width / zoom; y0 += dy * canvas.height / zoom; draw(); };
  const nextPlane = () => show(image.planes[(image.planes.indexOf(plane) + 1) % image.planes.length]);
  onKeys([
    [" ", "next plane: before, after, residual, error", nextPlane], ["b", "blink before and after", blink],
    ["f", "whole frame", fitAll], ["+", "zoom in", () => zoomBy(2)], ["-", "zoom out", () => zoomBy(0.5)],
    ["ArrowLeft", "move", pan(-0.2, 0)], ["ArrowRight", "move", pan(0.2, 0)], ["ArrowUp", "move", pan(0, 0.2)],
    ["ArrowDown", "move", pan(0, -0.2)], ["d", "mask on and off", () => showBits(shownBits ? 0 : ~0)],
    ["a", "next curve of the grey scale", () => { curve = curves[(curves.indexOf(curve) + 1) % curves.length]; controls.curve.value = curve; repaint(); }],
    ["z", "limits by zscale", () => { stretch = controls.stretch.value = "zscale"; limits(); }],
    ["e", "paint", () => setEditing(1)], ["r", "make good", () => setEditing(2)], ["u", "undo", undo],
    ["s", "save the picture", savePicture], ["x", "save the mask", saveMask],
  ]);
}

// ---- pointer --------------------------------------------------------------------------------------------------------
const readOut = latest((x, y) => getJson(`at/${image.number}?x=${x}&y=${y}`), (at) => {
  const names = info.bits.filter(({ bit }) => at.dq & bit).map(({ name }) => name).join(", ") || "good";
  const values = image.planes.map((name) => `${name} ${number(at[name], 6)}`).join("  ");
  const sky = at.sky ? `  ${at.sky.names.join(", ")} ${at.sky.text}` : "";
  $("readout").textContent = `x ${at.x}  y ${at.y}${sky}\n${values} ${image.unit}  score ${number(at.score, 3)}  ${names}`;
});

function pointer() {
  const down = new Map();
  const place = (event) => {
    const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
    return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
  };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, place(event));
    if (editing && down.size === 1) { strokes.push([]); brush(...toImage(...place(event))); }
  };
  canvas.onpointermove = (event) => {
    const now = place(event), before = down.get(event.pointerId), [x, y] = toImage(...now).map(Math.floor);
    if (x >= 0 && y >= 0 && x < image.width && y < image.height) readOut(x, y);
    if (!before) return;
    if (down.size === 2) {
      const other = [...down].find(([id]) => id !== event.pointerId)[1];
      const distance = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
      zoomBy(distance(now) / Math.max(distance(before), 1), other[0], other[1]);
    } else if (editing) {
      brush(...toImage(...now));
    } else {
      whole = false;
      x0 -= (now[0] - before[0]) / zoom; y0 += (now[1] - before[1]) / zoom;
      draw();
    }
    down.set(event.pointerId, now);
  };
  canvas.onpointerup = canvas.onpointercancel = (event) => down.delete(event.pointerId);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 300), ...place(event));
  }, { passive: false });
}
