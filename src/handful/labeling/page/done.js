// Train, then look through the answers.

import { post, send } from "/api.js";
import { byId, counted, make, onPress, percent, picture, say } from "/dom.js";

const TILE = 200;

export class Done {
  constructor(app) {
    this.app = app;
    this.label = null;
    this.start = 0;
    onPress(byId("fit"), () => this.fit());
    onPress(byId("stop"), async () => this.state(await post("/api/stop")));
    onPress(byId("bins-more"), () => this.bins(this.label, this.start + this.each));
  }

  async fit() {
    try { this.state(await post("/api/fit", { budget: byId("budget").value })); } catch (error) { say(error.message); }
  }

  state(fit) {
    byId("fit").disabled = fit.running;
    byId("stop").hidden = !fit.running;
    const lines = byId("fit-lines");
    lines.hidden = !fit.lines.length;
    const log = fit.lines.join("\n");
    if (lines.textContent !== log) {
      const atEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 4;
      lines.textContent = log;
      if (atEnd) lines.scrollTop = lines.scrollHeight;
    }
    const result = byId("result");
    if (fit.running) { this.was = true; result.textContent = "Training…"; return; }
    if (fit.failed) result.textContent = "The training ended with an error; its last lines say why.";
    else if (fit.result) {
      const { method, accuracy, said, labels, few } = fit.result;
      result.textContent = accuracy == null ? `Trained ${method} on ${counted(labels, "label")}; no estimate is possible.`
        : `${method}, trained on ${counted(labels, "label")}: ${said} on new images.`
          + (few ? " This is a lower bound, and it depends on how many models could be fitted to measure it: that beside the labels is of the quick classifier of this page, which is fitted more often, so the two may differ." : "");
    }
    else if (fit.stopped) result.textContent = "Stopped before there was a result.";
    const said = JSON.stringify([fit.commands, fit.report]);
    if (fit.result && (this.said !== said || this.was)) {
      this.said = said;
      this.was = false;
      const what = ["Copy the images into class folders:", "Write a CSV of the answers:", "Come back with more labels:"];
      byId("commands").replaceChildren(...fit.commands.map((text, at) => make("p", {}, `${what[at]} `, make("code", {}, text))));
      if (fit.report) byId("commands").prepend(make("p", {}, make("a", { id: "report", href: "/report/", target: "_blank", rel: "noopener" }, "Open the report"), ", ", make("code", {}, fit.report)));
      this.bins(this.label, 0);
    }
  }

  async bins(label, start) {
    const found = await post("/api/bins", { ...(label ? { label } : {}), start });
    byId("bins").hidden = !found.bins.length;
    if (!label && found.bins.length) return this.bins(found.bins[0].label, 0);
    this.label = label;
    this.start = start;
    this.each = found.each;
    byId("bins-list").replaceChildren(...found.bins.map((bin) => {
      const button = make("button", { type: "button", "aria-pressed": String(bin.label === label) }, `${bin.label} (${bin.images})`);
      onPress(button, () => this.bins(bin.label, 0));
      return button;
    }));
    byId("bins-help").textContent = "Click an image whose answer is wrong, and give it its class."
      + (found.hidden ? ` ${counted(found.hidden, "image")} ${found.hidden === 1 ? "is" : "are"} kept unseen for the estimate, or labelled by now.` : "");
    const grid = byId("bins-grid");
    const tiles = found.tiles.map((tile) => {
      const button = make("button", { type: "button", class: "tile", "data-number": String(tile.number) },
        picture(tile.number, TILE, tile.name), make("span", { class: "guess" }, percent(tile.confidence)));
      onPress(button, () => this.app.chooseClass(`${tile.name} is:`, (given) => {
        send("/api/answer", { items: [{ number: tile.number, kind: "label", label: given, seen: "page" }] })
          .then((state) => { this.app.counted(state); button.remove(); say(`${tile.name} is ${given}.`); }, (error) => say(error.message));
      }));
      return button;
    });
    if (start) grid.append(...tiles); else grid.replaceChildren(...tiles);
    byId("bins-more").hidden = tiles.length < found.each;
  }

  key() { return false; }
}
