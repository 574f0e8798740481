// The page: its three ways of work, the keys, and the state that all of them show.

import { post } from "/api.js";
import { byId, make, onPress, percent, say, typing } from "/dom.js";
import { Done } from "/done.js";
import { One } from "/one.js";
import { Panel } from "/panel.js";
import { Tiles } from "/tiles.js";

const POLL = 1000;

class App {
  constructor() {
    this.state = null;
    this.mode = "one";
    this.one = new One(this);
    this.tiles = new Tiles(this);
    this.done = new Done(this);
    this.panel = new Panel(this);
    onPress(byId("to-one"), () => this.go("one"));
    onPress(byId("to-tiles"), () => this.go("tiles"));
    onPress(byId("to-done"), () => this.go("done"));
    onPress(byId("offer"), () => this.go("tiles"));
    onPress(byId("find"), () => this.chooseClass("", (label) => this.one.answer("label", label)));
    onPress(byId("finder-close"), () => this.closeFinder());
    byId("finder-text").addEventListener("input", () => this.match());
    byId("finder-text").addEventListener("keydown", (event) => this.finderKey(event));
    for (const button of document.querySelectorAll("[data-answer]")) {
      onPress(button, async () => {
        try { this.update(await post("/api/folders", { answer: button.dataset.answer })); this.one.refresh(); this.askFirst(); } catch (error) { say(error.message); }
      });
    }
    addEventListener("keydown", (event) => this.key(event));
    // "/" opens the field; where it is open and empty, "/" is not the first letter of a class.
    byId("finder-text").addEventListener("beforeinput", (event) => {
      if (event.data === "/" && !byId("finder-text").value) event.preventDefault();
    });
  }

  async run() {
    this.one.fill();
    await this.poll();
    this.askFirst();
    setInterval(() => { if (!document.hidden) this.poll(); }, POLL);
  }

  // Without a class, its name is what comes first.
  askFirst() {
    if (this.state && !this.state.classes.length && !this.state.question) this.chooseClass("", (label) => this.one.answer("label", label));
  }

  async poll() {
    try { this.update(await post("/api/state", { size: this.tiles.size })); } catch { /* the outbox says it */ }
    return this.state;
  }

  update(state) {
    this.state = state;
    byId("source").textContent = `label ${state.source}` + (state.annotator ? ` (${state.annotator})` : "");
    document.title = `handful label ${state.source}`;
    byId("question").hidden = !state.question;
    byId("question-text").textContent = state.question;
    const byFolder = !state.question && state.left === 0 && state.by_folder > 0;
    byId("by-folder").hidden = !byFolder;
    const names = state.classes.map((row) => row.name);
    if (byFolder) {
      byId("by-folder-text").textContent = (state.by_folder === state.images
        ? "Every image has a label, the name of its sub-folder" : `No image is left; ${state.by_folder} have the name of their sub-folder as label`)
        + ` (${names.slice(0, 5).join(", ")}${names.length > 5 ? `, and ${names.length - 5} more` : ""}). If these are the classes, press Done to train.`;
    }
    this.counted(state);
    this.panel.learned(state);
    this.done.state(state.fit);
    this.tiles.offers(state.offers, names);
    this.one.waits(state);
    const offer = state.offers[0];
    const button = byId("offer");
    button.hidden = !offer || this.mode !== "one";
    if (offer) button.replaceChildren(make("kbd", {}, "Shift+P"), ` ${offer.tiles} images that look like “${offer.label}” (${percent(offer.sure)}): all at once`);
  }

  counted(state) {
    this.state = { ...this.state, ...state };
    this.one.classes(state.classes.map((row) => row.name), this.state.keys ?? "");
    this.panel.counts(this.state);
    this.one.strip(state.recent);
    byId("undo").disabled = false;
  }

  go(mode, open = true) {
    this.closeFinder();
    const opened = this.mode !== mode;
    this.mode = mode;
    for (const name of ["one", "tiles", "done"]) {
      byId(name).hidden = name !== mode;
      byId(`to-${name}`).setAttribute("aria-pressed", String(name === mode));
    }
    if (mode === "tiles" && open) this.tiles.open();
    if (mode === "one") { this.one.fill(); if (document.activeElement !== document.body) document.activeElement.blur(); }
    if (mode === "done") this.poll();
    if (opened) scrollTo(0, 0);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || event.isComposing) return;
    const button = event.target.closest?.("button, a");
    const plain = event.key === "Enter" || event.key === " ";
    if (!byId("finder").hidden) return this.toFinder(event, plain && button);
    if (plain && button && !button.classList.contains("tile")) return;
    if (event.key === "Tab" || event.key === "Shift") return;
    const taken = { one: this.one, tiles: this.tiles, done: this.done }[this.mode].key(event);
    if (taken !== false) event.preventDefault();
  }

  // Ask for a class, known or new, and go on with it.
  chooseClass(question, act, start = "") {
    this.chosen = act;
    if (byId("finder").hidden) this.scrolled = scrollY;
    byId("finder").hidden = false;
    document.querySelector("label[for=finder-text]").textContent = question || "Class: type its name, then Enter";
    byId("finder-text").value = start;
    this.match();
    byId("finder-text").focus();
  }

  // A key that was pressed beside the open field: it belongs to the field.
  toFinder(event, ofButton) {
    if (ofButton || event.key === "Tab" || event.key === "Shift") return;
    byId("finder-text").focus(); // the browser puts the letter there
    this.finderKey(event);
  }

  // The field may have been below the screen: the image comes into view again.
  closeFinder() {
    const open = !byId("finder").hidden;
    byId("finder").hidden = true;
    byId("finder-text").blur();
    if (open) scrollTo(scrollX, this.scrolled);
  }

  match() {
    const typed = byId("finder-text").value.trim();
    const folded = typed.toLocaleLowerCase();
    const names = (this.state?.classes ?? []).map((row) => row.name);
    const starts = names.filter((name) => name.toLocaleLowerCase().startsWith(folded));
    const inside = names.filter((name) => !starts.includes(name) && name.toLocaleLowerCase().includes(folded));
    const exact = names.find((name) => name.toLocaleLowerCase() === folded);
    const found = [...starts, ...inside].slice(0, 50).map((name) => ({ name, text: name }));
    if (typed && !exact) found.push({ name: typed, text: `New class “${typed}”` });
    this.matches = found;
    this.select(Math.max(found.findIndex((one) => one.name === exact), 0));
  }

  select(at) {
    this.at = at;
    byId("finder-list").replaceChildren(...this.matches.map((one, index) => {
      const item = make("li", { role: "option", id: `match-${index}`, "aria-selected": String(index === at) }, one.text);
      item.addEventListener("click", () => this.take(index));
      return item;
    }));
    const text = byId("finder-text");
    if (this.matches.length) text.setAttribute("aria-activedescendant", `match-${at}`);
    else text.removeAttribute("aria-activedescendant");
    byId(`match-${at}`)?.scrollIntoView({ block: "nearest" });
  }

  finderKey(event) {
    if (event.isComposing) return;
    if (event.key === "Escape") this.closeFinder();
    else if (event.key === "Enter") this.take(this.at);
    else if (event.key === "ArrowDown") this.select(Math.min(this.at + 1, this.matches.length - 1));
    else if (event.key === "ArrowUp") this.select(Math.max(this.at - 1, 0));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  take(at) {
    const one = this.matches[at];
    if (!one) return;
    this.closeFinder();
    this.chosen(one.name);
  }
}

const app = new App();
window.handful = app;
app.run();
