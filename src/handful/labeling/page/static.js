const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const kept = (() => { try { return JSON.parse(localStorage.getItem(data.key)) ?? []; } catch { return []; } })();
const given = new Map(kept); // file -> class, or "" for unsure
const classes = [...new Set([...data.classes, ...[...given.values()].filter(Boolean)])];
const order = kept.map(([file]) => file);

function show() {
  const item = data.images.find((one) => !given.has(one.file));
  byId("frame").replaceChildren();
  byId("caption").textContent = item ? item.shown : "Every image is looked through: download the labels.";
  if (item) {
    const image = new Image();
    image.src = item.picture;
    image.alt = `Image to label: ${item.shown}`;
    byId("frame").append(image);
  }
  byId("classes").replaceChildren(...classes.map((name, at) => {
    const button = document.createElement("button");
    button.type = "button";
    if (data.keys[at]) {
      const key = document.createElement("kbd");
      key.textContent = data.keys[at];
      button.append(key, " ");
    }
    button.append(name);
    button.addEventListener("click", () => { button.blur(); give(name); });
    return button;
  }));
  byId("saving").textContent = `${given.size} of ${data.images.length}`;
}

function give(label) {
  const item = data.images.find((one) => !given.has(one.file));
  if (!item) return;
  given.set(item.file, label);
  order.push(item.file);
  keep();
}

function undo() {
  const file = order.pop();
  if (file !== undefined) given.delete(file);
  keep();
}

function keep() {
  try { localStorage.setItem(data.key, JSON.stringify([...given])); } catch { /* only the download keeps them */ }
  show();
}

// As handful's own tables: what a spreadsheet could run gets an apostrophe, a file name ./
const runs = (part) => /^['" ]*[=+\-@＝＋－＠]/.test(part) && !/^['" ]*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$/.test(part);
const starts = (text) => /^'*[\t\r\n]/.test(text);
const quoted = (text) => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
function safe(text, file) {
  const [first, ...rest] = text.split(/([;\t\r\n])/);
  const tail = rest.map((part) => (runs(part) ? `'${part}` : part)).join("");
  const odd = runs(first) || starts(text);
  if (file && (odd || text.startsWith("./"))) return quoted(`./${first}${tail}`);
  return quoted((odd ? "'" : "") + first + tail);
}

byId("download").addEventListener("click", () => {
  const rows = data.images.filter((one) => given.has(one.file)).map((one) => {
    const label = given.get(one.file);
    return [safe(one.file, true), safe(label, false), "random", "blind", label ? "" : "unsure"].join(",");
  });
  const text = ["file,label,origin,seen,mark", ...rows, ""].join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "labels.csv";
  link.click();
});
byId("unsure").addEventListener("click", () => { byId("unsure").blur(); give(""); });
byId("undo").addEventListener("click", () => { byId("undo").blur(); undo(); });
byId("add").addEventListener("click", () => {
  const name = byId("new").value.trim().replace(/\s+/g, " ").normalize("NFC");
  if (name && !classes.includes(name)) classes.push(name);
  byId("new").value = "";
  byId("new").blur();
  show();
});
byId("new").addEventListener("keydown", (event) => { if (event.key === "Enter") byId("add").click(); });
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  if ((event.key === "Enter" || event.key === " ") && event.target.closest("button")) return;
  const at = data.keys.indexOf(event.key.toLowerCase());
  if (event.key === " ") give("");
  else if (event.key === "Backspace") undo();
  else if (event.key.length === 1 && at >= 0 && at < classes.length) give(classes[at]);
  else return;
  event.preventDefault();
});
show();
