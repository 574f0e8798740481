// A page of tiles that the classifier believes to be alike: take out the wrong ones, confirm the rest.

import { post, send, settled } from "/api.js";
import { byId, make, onPress, picture, say } from "/dom.js";

const TILE = 200;
const PATIENCE = 1500; // milliseconds
const HINTS = "abcdefghijklmnopqrstuvwyz0123456789ABCDEFGHIJKLM"; // 48 tiles
const shownKey = (key) => (key >= "A" && key <= "Z" ? `Shift+${key}` : key);

export class Tiles {
  constructor(app) {
    this.app = app;
    this.tiles = [];
    this.label = null;
    onPress(byId("confirm"), () => this.confirm());
    onPress(byId("tiles-undo"), () => this.undo());
    onPress(byId("tiles-back"), () => app.go("one"));
    onPress(byId("tiles-unsure"), () => this.unsure());
    byId("tiles-class").addEventListener("change", () => { byId("tiles-class").blur(); this.load("class", byId("tiles-class").value); });
    byId("tiles-size").addEventListener("change", () => { byId("tiles-size").blur(); this.load("class", byId("tiles-class").value); });
  }

  // Tiles of a page, 0: 24, or 48 where the classifier is sure of them.
  get size() { return Number(byId("tiles-size").value); }

  offers(offers, names) {
    const select = byId("tiles-class");
    const sure = new Map(offers.map((offer) => [offer.label, offer]));
    const wanted = JSON.stringify([names, [...sure.keys()]]);
    if (select.dataset.names === wanted || document.activeElement === select) return;
    select.dataset.names = wanted;
    const chosen = this.label ?? select.value;
    select.replaceChildren(...names.map((name) => make("option", { value: name }, sure.has(name) ? `${name} ✓` : name)));
    if (names.includes(chosen)) select.value = chosen;
  }

  // The page of the class that is surest; false where none is.
  async open() {
    await settled();
    let state = await this.app.poll();
    // A page is better after a refit; it takes a part of a second.
    for (let waited = 0; state && !state.fresh && waited < PATIENCE; waited += 100) {
      await new Promise((done) => setTimeout(done, 100));
      state = await this.app.poll();
    }
    if (this.app.mode !== "tiles") return false; // left meanwhile
    const offer = state?.offers[0];
    if (!offer) {
      say("No class is sure enough for a page yet: go on one by one.");
      this.app.go("one");
      return false;
    }
    await this.load("class", offer.label, null, offer.tiles);
    return true;
  }

  unsure() { this.app.go("tiles", false); this.load("unsure", null); }
  like(number, label) { this.app.go("tiles", false); this.load("like", number, label); }

  async load(kind, value, label = null, size = this.size || 24) {
    this.kind = kind;
    await settled();
    try {
      const found = await post("/api/tiles", { kind, value, label, size });
      await this.render(found);
    } catch (error) { say(error.message); }
  }

  async render({ label, tiles }) {
    this.label = label;
    if (label) byId("tiles-class").value = label;
    byId("tiles-title").textContent = label ? `All “${label}”?` : "Is each guess right?";
    this.tiles = tiles.map((tile, at) => {
      const image = picture(tile.number, TILE, tile.name);
      const button = make("button", { type: "button", class: "tile", "aria-pressed": "true",
        tabindex: at ? "-1" : "0", "data-number": String(tile.number) }, image);
      button.append(make("kbd", { "data-key": HINTS[at] }, shownKey(HINTS[at])));
      if (!label) button.append(make("span", { class: "guess" }, tile.label));
      const entry = { ...tile, button, kept: true };
      button.addEventListener("click", () => this.toggle(entry));
      return entry;
    });
    byId("grid").replaceChildren(...this.tiles.map((entry) => entry.button));
    this.count();
    await Promise.all(this.tiles.map((entry) => entry.button.firstChild.ready));
    byId("grid").dataset.page = String(Number(byId("grid").dataset.page ?? 0) + 1);
    this.tiles[0]?.button.focus({ preventScroll: true });
    if (!tiles.length) say("There is nothing for a page here.");
  }

  toggle(entry) {
    if (!entry) return;
    entry.kept = !entry.kept;
    entry.button.setAttribute("aria-pressed", String(entry.kept));
    this.count();
  }

  count() {
    const kept = this.tiles.filter((entry) => entry.kept).length;
    byId("confirm-text").textContent = `Confirm ${kept}` + (kept < this.tiles.length ? `, ${this.tiles.length - kept} taken out` : "");
  }

  async confirm() {
    if (!this.tiles.length || this.busy) return;
    this.busy = true;
    const items = [], out = [];
    for (const entry of this.tiles) {
      if (entry.kept) items.push({ number: entry.number, kind: "label", label: entry.label, seen: "page" });
      else out.push({ number: entry.number, label: entry.label });
    }
    const numbers = this.tiles.map((entry) => entry.number);
    this.tiles = [];
    try {
      const state = await send("/api/confirm", { page: this.kind, items, out });
      this.app.one.history.length = 0;
      this.app.one.drop(numbers);
      if (out.length) this.app.one.refresh();
      this.app.counted(state);
    } catch (error) { say(error.message); }
    this.busy = false;
    await this.open();
  }

  undo() {
    send("/api/undo", {}).then((state) => { this.app.counted(state); say("The last act is taken back."); this.open(); },
      (error) => say(error.message));
  }

  key(event) {
    const key = event.key;
    const entries = this.tiles;
    const at = Math.max(entries.findIndex((entry) => entry.button === document.activeElement), 0);
    if (key === "Escape") return this.app.go("one");
    if (key === "Enter") return this.confirm();
    if (key === "Backspace") return this.undo();
    if (key === "U") return this.unsure();
    if (key === "P") return this.open();
    if (key === "x" || key === " ") return this.toggle(entries[at]);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns(), ArrowUp: -this.columns() }[key];
    if (step) {
      const to = Math.min(Math.max(at + step, 0), entries.length - 1);
      entries[to]?.button.focus();
      return true;
    }
    const hinted = key.length === 1 ? HINTS.indexOf(key) : -1;
    if (hinted >= 0 && hinted < entries.length) return this.toggle(entries[hinted]);
    return false;
  }

  columns() {
    return getComputedStyle(byId("grid")).gridTemplateColumns.split(" ").length;
  }
}
