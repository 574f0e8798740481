// What the labels tell so far.

import { post } from "/api.js";
import { byId, counted, make, percent, round, say } from "/dom.js";

const FEW = 2; // labels of a class below which it cannot be learned
const SVG = "http://www.w3.org/2000/svg";

export class Panel {
  constructor(app) {
    this.app = app;
    const target = byId("target");
    target.addEventListener("change", async () => {
      const value = target.value === "" ? null : Number(target.value) / 100;
      try { app.update(await post("/api/target", { value })); } catch (error) { say(error.message); }
      target.blur();
    });
    byId("again").addEventListener("click", async () => {
      try {
        const { images } = await post("/api/again");
        app.go("one");
        if (images) app.one.lookAgain();
        else say("No label is in doubt now.");
      } catch (error) { say(error.message); }
    });
  }

  counts(state) {
    byId("totals").textContent = `${counted(state.labels, "label")}, ${state.unsure} unsure, ${state.none} none of these; `
      + `${state.left} of ${counted(state.images, "image")} left` + (state.problem ? `. ${state.problem}` : "");
    const rows = state.classes.map(({ name, labels }) => make("li", { class: labels < FEW ? "few" : null },
      make("span", {}, name), make("span", {}, labels < FEW ? `${labels} (two are needed)` : String(labels))));
    byId("counts").replaceChildren(...rows);
    byId("blind").textContent = `${counted(state.blind, "label")} ${state.blind === 1 ? "is of an image" : "are of images"} drawn at random and shown without a suggestion: only these count in the estimate.`
      + (state.blind_skipped ? ` ${counted(state.blind_skipped, "such image")} ${state.blind_skipped === 1 ? "was" : "were"} skipped; the estimate is of images that you can tell.` : "");
  }

  learned({ learner, settings, unreadable }) {
    const found = learner.estimate;
    const text = byId("estimate");
    if (!found) {
      const known = this.app.state.classes.filter((row) => row.labels).length;
      text.textContent = known < 2 ? "No estimate yet: it needs labels of two classes." : "The classifier is getting ready.";
    }
    else if (found.accuracy === null) text.textContent = found.how;
    else {
      const { figure, random_every: every } = this.app.state;
      const missing = figure - found.counted;
      text.replaceChildren(make("strong", {}, found.said), " on new images, by the quick classifier of this page. Train (under Done) tries better ones. ",
        found.few ? `A figure needs ${counted(missing, "more label")} of random images (${found.counted} of ${figure} are there): about ${every * missing} labels from here, as one image in ${every} is random.`
          : `${counted(found.counted, "label")} count.`);
    }
    const next = found?.next_accuracy;
    byId("gain").textContent = next != null
      ? `The next ${found.next} labels should bring about ${(100 * (next - found.accuracy)).toFixed(1)} points.` : "";
    const target = settings.target;
    if (target != null && document.activeElement !== byId("target")) byId("target").value = String(+(100 * target).toFixed(1));
    byId("answers").textContent = target == null || !found || found.accuracy === null ? ""
      : found.answers == null ? `It cannot promise ${round(target)} yet, however few images it answers: more labels of random images are needed for that.`
        : found.answers >= 0.999 ? `Good enough: it answers all images, and ${round(target)} of the answers are right.`
          : `It answers ${percent(found.answers)} of images now with ${round(target)} of the answers right.`;
    const again = byId("again");
    again.hidden = !found?.issues;
    again.textContent = `Look again at ${counted(found?.issues, "label")} that may be wrong`;
    const made = learner.features, wanted = learner.features_wanted;
    byId("learning").textContent = learner.problem || (made < wanted ? `${made} of ${wanted} images are known to the classifier` : "")
      + (unreadable ? ` ${counted(unreadable, "file")} cannot be read and ${unreadable === 1 ? "is" : "are"} left out.` : "");
    this.curve(learner.history);
  }

  curve(history) {
    const svg = byId("curve");
    svg.toggleAttribute("hidden", history.length < 2);
    if (history.length < 2) return;
    const first = history[0][0], last = history.at(-1)[0];
    const x = (labels) => 28 + 206 * (last > first ? (labels - first) / (last - first) : 1);
    const y = (share) => 66 - 60 * share;
    const draw = (tag, attributes, text) => {
      const element = document.createElementNS(SVG, tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      if (text) element.textContent = text;
      return element;
    };
    const upper = history.map(([n, , , high]) => `${x(n)},${y(high)}`);
    const lower = history.map(([n, , low]) => `${x(n)},${y(low)}`).reverse();
    svg.replaceChildren(
      draw("polygon", { class: "area", points: [...upper, ...lower].join(" ") }),
      draw("polyline", { class: "line", points: history.map(([n, share]) => `${x(n)},${y(share)}`).join(" ") }),
      draw("text", { x: 0, y: 10 }, "100 %"), draw("text", { x: 8, y: 68 }, "0 %"),
      draw("text", { x: 28, y: 79 }, `${first} labels`), draw("text", { x: 234, y: 79, "text-anchor": "end" }, String(last)),
    );
  }
}
