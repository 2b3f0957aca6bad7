// What both pages use: elements, requests, controls, keys.

export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-") || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

// ---- requests -------------------------------------------------------------------------------------------------------
let messageTimer = 0;

export function say(text) {
  $("message").textContent = text;
  $("message").hidden = false;
  clearTimeout(messageTimer);
  messageTimer = setTimeout(() => { $("message").hidden = true; }, 6000);
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("lightpool does not answer; is it still running?");
  }
  if (!response.ok) throw new Error(await response.text());
  return response;
}

export const getJson = async (path) => (await answer(path)).json();
export const getBuffer = async (path) => (await answer(path)).arrayBuffer();
export const post = async (path, value) => (await answer(path, { method: "POST", body: JSON.stringify(value) })).blob();

// A request that is made again and again while something moves: one at a time, and the last one is always made.
export function latest(request, use) {
  let busy = false, waiting = null;
  return async function ask(...parameters) {
    if (busy) { waiting = parameters; return; }
    busy = true;
    try {
      use(await request(...parameters));
    } catch (error) {
      say(error.message);
    }
    busy = false;
    if (waiting) { const next = waiting; waiting = null; ask(...next); }
  };
}

export function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ---- controls -------------------------------------------------------------------------------------------------------
export const card = (title, ...children) => element("section", {}, element("h2", { textContent: title }), ...children);
export const row = (...children) => element("div", { className: "row" }, ...children);
export const dim = (text) => element("p", { className: "dim", textContent: text });

export const button = (text, action, title = "") =>
  element("button", { type: "button", textContent: text, title, onclick: action });

export function select(values, value, action, label) {
  const made = element("select", { onchange: () => action(made.value), "aria-label": label });
  for (const [key, text] of values) made.append(element("option", { value: key, textContent: text }));
  made.value = value;
  return made;
}

export function checkbox(text, checked, action, color = "") {
  const box = element("input", { type: "checkbox", checked, onchange: () => action(box.checked) });
  const swatch = element("span", { className: "swatch" });
  swatch.style.background = color;
  return element("label", {}, box, ...(color ? [swatch] : []), text);
}

// A slider with its value beside it.
export function slider(text, { low, high, step, value, digits = 2 }, action) {
  const shown = element("output", { textContent: value.toFixed(digits) });
  const range = element("input", { type: "range", min: low, max: high, step, value, "aria-label": text });
  range.oninput = () => { shown.textContent = (+range.value).toFixed(digits); action(+range.value); };
  const made = row(element("label", { textContent: text }), range, shown);
  made.set = (number) => { range.value = number; shown.textContent = number.toFixed(digits); };
  return made;
}

// ---- keys -----------------------------------------------------------------------------------------------------------
const actions = new Map();

export function onKeys(entries) {
  for (const [key, text, action] of entries) {
    actions.set(key, action);
    const shown = key === " " ? "space" : key;
    $("keys").append(element("tr", {}, element("td", {}, element("kbd", { textContent: shown })),
                             element("td", { textContent: text })));
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.target.matches("select, input[type=number]")) return;
  if (event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  if (event.target.matches("button, input") && [" ", "Enter"].includes(event.key)) return;
  const action = actions.get(event.key);
  if (action) { event.preventDefault(); action(); }
});

$("help-button").onclick = () => $("help").showModal();
$("help-close").onclick = () => $("help").close();

// ---- canvas ---------------------------------------------------------------------------------------------------------
// Keeps the bitmap of a canvas as large as it is on the screen, and draws again when that changes.
export function fitted(canvas, draw) {
  const fit = () => {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    draw();
  };
  new ResizeObserver(fit).observe(canvas);
  fit();
}

export const number = (value, digits = 4) => (value === null || value === undefined ? "–" : String(+value.toPrecision(digits)));
