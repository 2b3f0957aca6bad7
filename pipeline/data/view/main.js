import { $, getJson, onKeys, say } from "./common.js";

onKeys([["?", "these keys", () => $("help").showModal()]]);
try {
  const info = await getJson("info.json");
  document.title = `${info.file} – lightpool view`;
  const page = await import(info.kind === "frames" ? "./frames.js" : "./events.js");
  await page.start(info);
  document.body.dataset.ready = "yes";
} catch (error) {
  say(error.message);
}
