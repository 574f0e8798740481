// One image at a time: a key labels and goes on; the next images are there already.

import { post, send, tab } from "/api.js";
import { byId, make, onPress, percent, picture, say } from "/dom.js";

const AHEAD = 6;
const VIEW = 1000;
const ZOOM = 2400;
const TILE = 200;

const TWO = 2; // classes; before they are there, each letter is the start of the name of one
const isLetter = (key) => /^\p{L}$/u.test(key);

const answered = (item) => item.label ?? { unsure: "unsure", none: "none of these" }[item.kind];

export class One {
  constructor(app) {
    this.app = app;
    this.queue = [];
    this.current = null;
    this.history = [];
    this.recent = []; // what was answered last, the latest first
    this.taken = new Map(); // number -> picture of an answered image, to be shown small
    this.keys = "";
    this.names = [];
    this.filling = false;
    this.asked = false; // whether the last request for images gave none
    this.pressed = null;
    this.pending = new Set(); // answered, and not on disk yet
    onPress(byId("suggestion"), () => this.accept());
    onPress(byId("unsure"), () => this.answer("unsure"));
    onPress(byId("none"), () => this.answer("none"));
    onPress(byId("undo"), () => this.undo());
    onPress(byId("zoom"), () => this.zoom());
    onPress(byId("like"), () => this.like());
  }

  async fill() {
    if (this.filling || this.queue.length >= AHEAD) return;
    this.filling = true;
    let more = false;
    try {
      // The first image is not to wait for others.
      const count = this.current ? AHEAD - this.queue.length : 1;
      const { items } = await post("/api/next", { tab, have: this.held(), count });
      const held = new Set(this.held());
      for (const item of items) {
        if (!held.has(item.number)) this.queue.splice(this.placeOf(item), 0, this.loaded(item));
      }
      more = items.length > 0;
      this.asked = !more;
    } catch (error) {
      say(error.message);
    } finally {
      this.filling = false;
    }
    if (!this.current) await this.show(this.queue.shift() ?? null);
    if (more) this.fill();
  }

  // Labels that are looked at again come before other images.
  placeOf(item) {
    const at = item.again ? this.queue.findIndex((other) => !other.again) : -1;
    return at < 0 ? this.queue.length : at;
  }

  held() {
    const held = [...this.pending, ...this.queue.map((item) => item.number)];
    if (this.current) held.push(this.current.number);
    return held;
  }

  loaded(item) {
    return { ...item, image: picture(item.number, VIEW, `Image to label: ${item.name}`) };
  }

  async show(item) {
    this.current = item;
    const frame = byId("frame");
    frame.classList.remove("zoomed");
    byId("zoom").setAttribute("aria-pressed", "false");
    this.mark();
    if (!item) {
      frame.replaceChildren(make("p", { id: "waiting" }, this.why()));
      byId("caption").textContent = "";
      byId("suggestion").hidden = true;
      return;
    }
    if (!item.image.complete) await item.image.ready;
    if (this.current !== item) return;
    if (!item.image.naturalWidth && !(await item.image.ready)) {
      say(`${item.name} cannot be read, and is left out`);
      return this.advance();
    }
    frame.replaceChildren(item.image);
    byId("caption").textContent = item.name;
    const note = byId("reopened");
    note.hidden = !(item.was || item.again);
    note.textContent = item.was ? `Opened again. Your answer was: ${item.was}. Give another, or Enter to keep it.`
      : item.again ? `Looked at again, as its label may be wrong. Its label is: ${item.again}. Give another, or Enter to confirm it.` : "";
    const button = byId("suggestion");
    button.hidden = !(item.suggestion || item.again);
    if (item.again) button.replaceChildren(make("kbd", {}, "Enter"), ` Confirm “${item.again}”`);
    else if (item.suggestion) {
      button.replaceChildren(make("kbd", {}, "Enter"), ` ${item.suggestion} (${percent(item.confidence)})`);
    }
    if (this.pressed !== null) {
      const start = this.pressed;
      this.pressed = null;
      requestAnimationFrame(() => performance.measure("key-to-image", { start, end: performance.now() }));
    }
  }

  // Why there is no image.
  why() {
    const left = this.app.state?.left;
    if (left === 0) return this.app.state.by_folder ? "No image is left to label." : "Every image is looked through.";
    return left && this.asked ? "No image is free now: another tab holds the last ones." : "Loading…";
  }

  // Without an image: say why, and ask for one, which another tab may have given back.
  waits(state) {
    if (this.current) return;
    const waiting = byId("waiting");
    if (waiting) waiting.textContent = this.why();
    if (state.left) this.fill();
  }

  advance() {
    const next = this.queue.shift() ?? null;
    const shown = this.show(next);
    this.fill();
    return shown;
  }

  answer(kind, label = null) {
    const item = this.current;
    if (!item) return;
    const seen = item.seen ?? (item.suggestion ? "suggested" : "blind");
    this.history.push(item);
    this.taken.set(item.number, item.image);
    this.pending.add(item.number);
    this.advance();
    send("/api/answer", { items: [{ number: item.number, kind, label, seen }] })
      .then((state) => this.app.counted(state), (error) => this.refused(item, error))
      .finally(() => this.pending.delete(item.number));
  }

  refused(item, error) {
    say(error.message);
    this.history = this.history.filter((other) => other !== item);
    this.back(item);
  }

  accept() {
    if (this.current?.was) return this.advance();
    if (this.current?.again) return this.answer("label", this.current.again);
    if (this.current?.suggestion) this.answer("label", this.current.suggestion);
    else if (this.current) say("No suggestion for this one: what you see for yourself counts for the estimate.");
  }

  back(item) {
    if (this.current && !this.current.was) this.queue.unshift(this.current);
    this.show(item);
  }

  // The images that were answered last, the latest at the right; each can be opened again.
  strip(recent) {
    this.recent = recent;
    byId("recent").hidden = !recent.length;
    const wanted = JSON.stringify(recent);
    const list = byId("recent-list");
    if (list.dataset.shown === wanted) return this.mark();
    list.dataset.shown = wanted;
    const old = new Map(Array.from(list.children, (item) => [item.dataset.number, item.querySelector("img")]));
    list.replaceChildren(...recent.toReversed().map((item) => {
      const image = old.get(String(item.number)) ?? this.picture(item.number);
      const button = make("button", { type: "button", title: item.name, "aria-label": `Open ${item.name} again: ${answered(item)}` },
        image, make("span", {}, answered(item)));
      onPress(button, () => this.reopen(item));
      return make("li", { "data-number": String(item.number) }, button);
    }));
    for (const { number } of recent) this.taken.delete(number);
    list.scrollLeft = list.scrollWidth;
    this.mark();
  }

  // A picture that was shown large already is not asked for once more.
  picture(number) {
    const image = this.taken.get(number);
    return image && !image.isConnected ? image : picture(number, TILE, "");
  }

  mark() {
    for (const item of byId("recent-list").children) {
      const open = this.current?.was && item.dataset.number === String(this.current.number);
      item.firstChild.setAttribute("aria-pressed", String(Boolean(open)));
    }
  }

  // No suggestion: what was answered blind stays blind.
  reopen(item) {
    this.back({ ...this.loaded(item), suggestion: null, was: answered(item) });
  }

  step(by) {
    const at = this.current?.was ? this.recent.findIndex((item) => item.number === this.current.number) : -1;
    const to = at + by;
    if (to < 0) return this.current?.was ? this.advance() : undefined;
    if (to < this.recent.length) this.reopen(this.recent[to]);
  }

  undo() {
    const item = this.history.pop();
    if (item) this.back(item);
    send("/api/undo", {}).then((state) => {
      this.app.counted(state);
      if (!item && state.shown.length) this.back(this.loaded(state.shown[0]));
      if (!state.undone) say("Nothing is left to undo.");
    }, (error) => say(error.message));
  }

  async zoom() {
    const frame = byId("frame");
    const item = this.current;
    if (!item) return;
    const zoomed = frame.classList.toggle("zoomed");
    byId("zoom").setAttribute("aria-pressed", String(zoomed));
    if (zoomed && !item.large) {
      item.large = picture(item.number, ZOOM, item.image.alt);
      await item.large.ready;
    }
    if (this.current === item) frame.replaceChildren(zoomed ? item.large : item.image);
  }

  like() {
    const item = this.current ?? this.history.at(-1);
    if (!item) return;
    this.app.chooseClass(`Images like ${item.name} are all:`, (label) => this.app.tiles.like(item.number, label));
  }

  drop(numbers) {
    const gone = new Set(numbers);
    this.queue = this.queue.filter((item) => !gone.has(item.number));
    if (this.current && gone.has(this.current.number)) this.advance();
  }

  // What waits was chosen before; the images that were just taken out come first.
  refresh() {
    this.queue = [];
    this.fill();
  }

  // Labels that may be wrong come at once; the image that is shown waits until they are through.
  async lookAgain() {
    while (this.filling) await new Promise((done) => setTimeout(done, 20));
    const again = this.queue.filter((item) => item.again);
    const others = this.queue.filter((item) => !item.again);
    if (this.current && !this.current.was && !this.current.again) others.unshift(this.current);
    this.queue = [...again, ...others.slice(0, 1)];
    if (this.current?.again) return this.fill();
    this.current = null;
    if (again.length) this.advance();
    else this.fill();
  }

  classes(names, keys) {
    const box = byId("classes");
    const wanted = JSON.stringify(names);
    if (box.dataset.names === wanted) return;
    box.dataset.names = wanted;
    this.names = names;
    this.keys = keys;
    byId("naming").hidden = names.length !== 1;
    byId("naming-known").replaceChildren(make("kbd", {}, keys[0]), ` is “${names[0]}” again.`);
    box.replaceChildren(...names.map((name, at) => {
      const key = keys[at];
      const button = make("button", { type: "button", "aria-keyshortcuts": key ?? null, title: name });
      if (key) button.append(make("kbd", {}, key), " ");
      button.append(name);
      onPress(button, () => this.answer("label", name));
      return button;
    }));
  }

  key(event) {
    const key = event.key;
    this.pressed = performance.now();
    const at = this.keys.indexOf(key.toLowerCase());
    const isClass = key.length === 1 && at >= 0 && at < this.names.length;
    if (!isClass && isLetter(key) && this.names.length < TWO) return this.name(key);
    if (event.shiftKey && key.toLowerCase() === "p") return this.app.go("tiles");
    if (event.shiftKey && key.toLowerCase() === "l") return this.like();
    if (event.shiftKey && key.toLowerCase() === "u") return this.app.tiles.unsure();
    if (key === "Enter") return this.accept();
    if (key === " ") return this.answer("unsure");
    if (key === "Backspace") return this.undo();
    if (byId("frame").classList.contains("zoomed") && key.startsWith("Arrow")) return false;
    if (key === "ArrowLeft") return this.step(1);
    if (key === "ArrowRight" || key === "Escape") return this.step(key === "Escape" ? -Infinity : -1);
    if (key === "/") return this.name("");
    if (key === "-") return this.answer("none");
    if (key === "+" || key === "=") return this.zoom();
    if (isClass) return this.answer("label", this.names[at]);
    if (isLetter(key)) return this.name(key);
    this.pressed = null;
    return false;
  }

  // Ask for a class; a letter that is no key is the first one of its name.
  name(start) {
    this.pressed = null;
    this.app.chooseClass("", (label) => this.answer("label", label), start);
  }
}
