// Camera events: step through events and telescopes, pixels with charge or time, cleaning at any thresholds.

import { $, button, card, dim, element, fitted, getJson, latest, number, onKeys, row, save, say, select, slider } from "./common.js";

const LINEAR_PE = 5;
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const PLASMA = ["#0d0887", "#46039f", "#7201a8", "#9c179e", "#bd3786", "#d8576b", "#ed7953", "#fb9f3a", "#fdca26", "#f0f921"];
const TRUE = "#E69F00", RECO = "#FF6B5E", ELLIPSE = "#56B4E9", NO_VALUE = "#888", OUTSIDE = "#2b2f38";

let info, canvas, context, event, telescope = 0, quantity = "charge", thresholds, fitsOf = new Map(), placed = null;
const cameras = new Map();

export async function start(given) {
  info = given;
  thresholds = { ...info.thresholds };
  canvas = $("canvas"); context = canvas.getContext("2d");
  $("title").textContent = info.file;
  await go(0);
  fitted(canvas, draw);
  canvas.onpointermove = hover;
  keys();
}

// ---- which event ----------------------------------------------------------------------------------------------------
async function go(n) {
  const wanted = Math.min(Math.max(n, 0), info.n_events - 1);
  const before = event?.images[telescope]?.tel_id;
  try {
    event = await getJson(`event/${wanted}`);
    for (const image of event.images) if (!cameras.has(image.geometry))
      cameras.set(image.geometry, await getJson(`camera/${wanted}/${image.tel_id}`));
  } catch (error) { say(error.message); return; }
  telescope = Math.max(event.images.findIndex((image) => image.tel_id === before), 0);
  if (before === undefined) telescope = brightest();
  fitsOf = new Map();
  panel();
  await clean();
}

const size = (image) => image.cleaned.parameters[0][1] ?? 0;
const brightest = () => event.images.reduce((best, image, k) => (size(image) > size(event.images[best]) ? k : best), 0);

async function find(id) {
  try { await go((await getJson(`find?id=${encodeURIComponent(id)}`)).number); } catch (error) { say(error.message); }
}

function turn(step) {
  if (!event.images.length) return;
  telescope = (telescope + step + event.images.length) % event.images.length;
  panel();
  clean();
}

// ---- cleaning -------------------------------------------------------------------------------------------------------
const ask = latest(async (n, tel) => [n, tel, await getJson(`cleaned/${n}/${tel}?picture=${thresholds.picture_pe}&boundary=${thresholds.boundary_pe}`)],
                   ([n, tel, found]) => { if (n === event.number) { fitsOf.set(tel, found); facts(); draw(); } });

async function clean() {
  const image = event.images[telescope];
  const same = ["picture_pe", "boundary_pe"].every((name) => thresholds[name] === info.thresholds[name]);
  if (image && same) fitsOf.set(image.tel_id, image.cleaned);
  else if (image) await ask(event.number, image.tel_id);
  facts();
  draw();
}

function setThreshold(name, value) {
  thresholds[name] = value;
  if (thresholds.boundary_pe > thresholds.picture_pe) {
    const other = name === "picture_pe" ? "boundary_pe" : "picture_pe";
    thresholds[other] = value;
    sliders[other].set(value);
  }
  clean();
}

// ---- drawing --------------------------------------------------------------------------------------------------------
function colors(hexes) {
  const stops = hexes.map((hex) => [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16)));
  return Array.from({ length: 256 }, (_, k) => {
    const t = k / 255 * (stops.length - 1), n = Math.min(Math.floor(t), stops.length - 2), part = t - n;
    return `rgb(${stops[n].map((value, c) => Math.round(value * (1 - part) + stops[n + 1][c] * part)).join(",")})`;
  });
}
const SCALES = { charge: colors(VIRIDIS), time: colors(PLASMA) };

// Function of a value: share of the colour scale; and its ticks.
function scaleOf(image) {
  if (quantity === "charge") {
    const top = Math.max(30, ...image.charge.filter((value) => value !== null));
    return { share: (value) => Math.asinh(Math.max(value, 0) / LINEAR_PE) / Math.asinh(top / LINEAR_PE), unit: "p.e.",
             ticks: [0, 5, 10, 30, 100, 300, 1000, 3000, 10000].filter((tick) => tick <= top) };
  }
  // Times of the image, if anything was left by the cleaning: elsewhere they are those of noise.
  const kept = fitsOf.get(image.tel_id)?.mask ?? [];
  const values = (kept.length ? kept.map((pixel) => image.time[pixel]) : image.time).filter((value) => value !== null);
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
  const span = Math.max(high - low, 1);
  return { share: (value) => (value < low || value > low + span ? NaN : (value - low) / span), unit: "ns", ticks: [0, 0.25, 0.5, 0.75, 1].map((t) => +(low + t * span).toPrecision(3)) };
}

export function draw() {
  context.fillStyle = "#14161a";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const image = event?.images[telescope];
  placed = null;
  if (!image) { words(event?.reason || "no image"); return; }
  const { outlines } = cameras.get(image.geometry), found = fitsOf.get(image.tel_id) ?? image.cleaned;
  const ratio = window.devicePixelRatio || 1, margin = 14 * ratio, bar = 62 * ratio;
  const flat = outlines.flat(), points = [...flat, ...[image.true_source, image.reco_source].filter(Boolean)];
  const range = (k) => [Math.min(...points.map((p) => p[k])), Math.max(...points.map((p) => p[k]))];
  const [xs, ys] = [range(0), range(1)];
  const factor = Math.min((canvas.width - 2 * margin - bar) / (xs[1] - xs[0]), (canvas.height - 2 * margin) / (ys[1] - ys[0]));
  const middle = [(canvas.width - bar) / 2, canvas.height / 2];
  const at = ([x, y]) => [middle[0] + (x - (xs[0] + xs[1]) / 2) * factor, middle[1] - (y - (ys[0] + ys[1]) / 2) * factor];
  placed = { image, outlines, at, factor };
  const scale = scaleOf(image), palette = SCALES[quantity], values = image[quantity];
  outlines.forEach((corners, pixel) => {
    const value = values[pixel], share = value === null ? NaN : scale.share(value);
    context.fillStyle = context.strokeStyle =
      value === null ? NO_VALUE : palette[Math.min(Math.max(Math.round(255 * share), 0), 255)] ?? OUTSIDE;
    polygon(corners.map(at));
    context.fill(); context.lineWidth = 0.7; context.stroke();
  });
  edges(found.edges, at, ratio);
  ellipse(found, at, factor, ratio);
  sources(image, found, at, factor, ratio);
  colorBar(scale, palette, bar, margin, ratio);
}

function polygon(points) {
  context.beginPath();
  points.forEach((point, k) => (k ? context.lineTo(...point) : context.moveTo(...point)));
  context.closePath();
}

function line(from, to, color, width, dash = []) {
  context.strokeStyle = color; context.lineWidth = width; context.setLineDash(dash);
  context.beginPath(); context.moveTo(...from); context.lineTo(...to); context.stroke(); context.setLineDash([]);
}

function edges(found, at, ratio) {
  context.strokeStyle = "white"; context.lineWidth = 1.4 * ratio;
  context.beginPath();
  for (const [x, y, u, v] of found) { context.moveTo(...at([x, y])); context.lineTo(...at([u, v])); }
  context.stroke();
}

function ellipse({ ellipse: known }, at, factor, ratio) {
  if (!known) return;
  const [x, y, length, width, psi] = known, angle = psi * Math.PI / 180, far = 10;
  const along = [far * Math.cos(angle), far * Math.sin(angle)];
  line(at([x - along[0], y - along[1]]), at([x + along[0], y + along[1]]), ELLIPSE, ratio, [3 * ratio, 4 * ratio]);
  context.strokeStyle = ELLIPSE; context.lineWidth = 2 * ratio;
  context.beginPath();
  context.ellipse(...at([x, y]), length * factor, width * factor, -angle, 0, 2 * Math.PI);
  context.stroke();
}

function sources(image, found, at, factor, ratio) {
  const mark = (place, color, radius) => {
    context.fillStyle = color; context.strokeStyle = "black"; context.lineWidth = ratio;
    context.beginPath(); context.arc(...at(place), radius * ratio, 0, 2 * Math.PI); context.fill(); context.stroke();
  };
  if (image.true_source) mark(image.true_source, TRUE, 6);
  if (!image.reco_source) return;
  if (found.ellipse) line(at(found.ellipse.slice(0, 2)), at(image.reco_source), RECO, 1.6 * ratio);
  mark(image.reco_source, RECO, 4);
  if (image.reco_radius) {
    context.strokeStyle = RECO; context.lineWidth = 1.5 * ratio;
    context.beginPath(); context.arc(...at(image.reco_source), image.reco_radius * factor, 0, 2 * Math.PI); context.stroke();
  }
}

function colorBar(scale, palette, width, margin, ratio) {
  const x = canvas.width - width + 4 * ratio, height = canvas.height - 4 * margin, top = 2.5 * margin;
  palette.forEach((color, k) => {
    context.fillStyle = color;
    context.fillRect(x, top + height * (255 - k) / 256, 12 * ratio, height / 256 + 1);
  });
  context.fillStyle = "#e6e8ec"; context.font = `${11 * ratio}px system-ui`; context.textBaseline = "middle";
  for (const tick of scale.ticks) context.fillText(tick, x + 16 * ratio, top + height * (1 - scale.share(tick)));
  context.fillText(scale.unit, x, top - 11 * ratio);
}

function words(text) {
  context.fillStyle = "#9aa3b2"; context.font = "16px system-ui"; context.textAlign = "center";
  context.fillText(text, canvas.width / 2, canvas.height / 2, canvas.width - 20);
  context.textAlign = "start";
}

function hover(pointer) {
  if (!placed) return;
  const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
  const [x, y] = [(pointer.clientX - box.left) * ratio, (pointer.clientY - box.top) * ratio];
  let best = -1, nearest = Infinity;
  placed.outlines.forEach((corners, pixel) => {
    const [u, v] = placed.at(corners.reduce((sum, p) => [sum[0] + p[0] / corners.length, sum[1] + p[1] / corners.length], [0, 0]));
    const distance = Math.hypot(u - x, v - y);
    if (distance < nearest) { nearest = distance; best = pixel; }
  });
  const { image } = placed, kept = (fitsOf.get(image.tel_id)?.mask ?? []).includes(best);
  $("readout").textContent = `pixel ${best}  charge ${number(image.charge[best])} p.e.  time ${number(image.time[best])} ns\n` +
    (kept ? "kept by the cleaning" : "not kept by the cleaning");
}

// ---- the ground -----------------------------------------------------------------------------------------------------
function ground() {
  const made = element("canvas", { className: "ground", "aria-label": "Telescopes on the ground" });
  const seen = event.images.filter((image) => image.ground.every((value) => value !== null));
  requestAnimationFrame(() => fitted(made, () => {
    const pen = made.getContext("2d"), ratio = window.devicePixelRatio || 1;
    const points = seen.map((image) => (image.axis ? image.axis.slice(0, 2) : image.ground));
    const all = [...points, ...Object.values(event.core).filter(Boolean)];
    const range = (k) => [Math.min(...all.map((p) => p[k])), Math.max(...all.map((p) => p[k]))];
    const [xs, ys] = [range(0), range(1)], half = 0.62 * Math.max(xs[1] - xs[0], ys[1] - ys[0], 60);
    const factor = Math.min(made.width, made.height) / (2 * half);
    const at = ([x, y]) => [made.width / 2 + (x - (xs[0] + xs[1]) / 2) * factor, made.height / 2 - (y - (ys[0] + ys[1]) / 2) * factor];
    pen.clearRect(0, 0, made.width, made.height);
    pen.strokeStyle = ELLIPSE; pen.lineWidth = ratio;
    for (const { axis } of seen.filter((image) => image.axis)) {
      const [x, y, dx, dy] = axis;
      pen.beginPath(); pen.moveTo(...at([x - 1e4 * dx, y - 1e4 * dy])); pen.lineTo(...at([x + 1e4 * dx, y + 1e4 * dy])); pen.stroke();
    }
    const dot = (place, color, radius) => { pen.fillStyle = color; pen.beginPath(); pen.arc(...at(place), radius * ratio, 0, 7); pen.fill(); };
    pen.font = `${11 * ratio}px system-ui`;
    seen.forEach((image, k) => {
      dot(points[k], "#ccd", 4);
      const [x, y] = at(points[k]);
      pen.fillText(image.tel_id, x + 6 * ratio, y - 4 * ratio);
    });
    if (event.core.true) dot(event.core.true, TRUE, 6);
    if (event.core.predicted) dot(event.core.predicted, RECO, 4);
    pen.strokeStyle = pen.fillStyle = "#9aa3b2";
    const length = [20, 50, 100, 200, 500, 1000].find((m) => m * factor > 30 * ratio) ?? 1000;
    pen.fillRect(8 * ratio, made.height - 10 * ratio, length * factor, 2 * ratio);
    pen.fillText(`${length} m, north up`, 8 * ratio, made.height - 16 * ratio);
  }));
  return made;
}

// ---- controls -------------------------------------------------------------------------------------------------------
let sliders = {};

function panel() {
  const id = element("input", { type: "number", value: event.event, min: info.first, max: info.last, "aria-label": "event id",
                                onchange: () => find(id.value) });
  const which = row(button("◀", () => go(event.number - 1), "previous event (left, p)"), id,
                    button("▶", () => go(event.number + 1), "next event (right, n)"));
  const telescopes = row(...event.images.map((image, k) => {
    const made = button(String(image.tel_id), () => turn(k - telescope), image.camera);
    made.setAttribute("aria-pressed", k === telescope);
    return made;
  }));
  const limit = (name, text) => {
    sliders[name] = slider(text, { low: 0, high: 40, step: 0.5, value: thresholds[name], digits: 1 }, (value) => setThreshold(name, value));
    return sliders[name];
  };
  const shown = select([["charge", "charge [p.e.]"], ["time", "peak time [ns]"]], quantity, (value) => { quantity = value; draw(); }, "quantity");
  const legend = (color, text) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = color;
    return element("label", {}, swatch, text);
  };
  const image = event.images[telescope], colorsOf = [legend("white", "cleaning"), legend(ELLIPSE, "ellipse and axis")];
  if (image?.reco_source) colorsOf.push(legend(RECO, "predicted source, 68 % circle"));
  if (image?.true_source) colorsOf.push(legend(TRUE, "true source"));
  const cards = [
    card("Event", which, dim(`${event.number + 1} of ${info.n_events}, run ${event.run}`), dim("telescopes"), telescopes),
    card("Image", row(shown, button("picture as PNG", savePicture, "s")), limit("picture_pe", "picture"), limit("boundary_pe", "boundary"),
         row(...colorsOf), dim("thresholds of the cleaning [p.e.]; models clean as they were trained")),
    element("section", { id: "facts" }),
  ];
  if (event.images.length > 1) cards.push(card("Ground, seen along the pointing", ground()));
  $("panel").replaceChildren(...cards);
}

function facts() {
  const image = event.images[telescope], list = (texts) => element("ul", {}, ...texts.map((text) => element("li", { textContent: text })));
  const made = [];
  const add = (title, texts) => { if (texts.length) made.push(element("h2", { textContent: title }), list(texts)); };
  add("Event, predicted", event.predicted.length ? event.predicted : [event.reason].filter(Boolean));
  if (image) add(`Telescope ${image.tel_id}, predicted`, image.predicted.length ? image.predicted : [image.reason].filter(Boolean));
  if (!info.predictions) made.push(dim("No predictions: give a --bundle, or a DL2 file beside this one."));
  add("True", event.truth);
  const found = image && (fitsOf.get(image.tel_id) ?? image.cleaned);
  if (found) made.push(element("h2", { textContent: "Cleaned image" }), element("table", {}, ...found.parameters.map(([name, value]) =>
    element("tr", {}, element("td", { textContent: name }), element("td", { textContent: number(value) })))));
  $("facts")?.replaceChildren(...made);
}

function savePicture() {
  canvas.toBlob((blob) => save(blob, `${info.file}.event${event.event}.tel${event.images[telescope]?.tel_id}.png`), "image/png");
}

function keys() {
  const step = (n) => () => go(event.number + n);
  onKeys([
    ["ArrowRight", "next event", step(1)], ["n", "next event", step(1)], ["ArrowLeft", "previous event", step(-1)],
    ["p", "previous event", step(-1)], ["ArrowDown", "next telescope", () => turn(1)], ["ArrowUp", "previous telescope", () => turn(-1)],
    ["t", "charge or time", () => { quantity = quantity === "charge" ? "time" : "charge"; panel(); facts(); draw(); }],
    ["s", "save the picture", savePicture],
  ]);
}
