"use strict";

const MOST = 5; // classes that are shown
const said = document.getElementById("said");
const answers = document.getElementById("answers");
const drop = document.getElementById("drop");
const token = document.getElementById("token");

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

function percent(share) {
  return share >= 0.9995 ? "over 99.9 %" : (100 * share).toFixed(1) + " %";
}

function shown(file, found) {
  const row = element("li");
  const picture = element("img");
  picture.alt = "";
  picture.src = URL.createObjectURL(file);
  picture.onload = () => URL.revokeObjectURL(picture.src);
  const shares = element("div");
  shares.className = "shares";
  const heading = found.error ? "cannot be read: " + found.error
    : found.label ?? (found.none_of_these ? "none of these" : "no answer");
  shares.append(element("strong", heading), element("small", file.name));
  if (found.none_of_these) shares.append(element("em", "unlike all pictures that it learned from"));
  const sorted = Object.entries(found.probabilities ?? {}).sort((a, b) => b[1] - a[1]);
  for (const [name, share] of sorted.slice(0, MOST)) {
    const line = element("div");
    const bar = element("meter");
    bar.value = share;
    line.append(element("span", name), bar, element("span", percent(share)));
    shares.append(line);
  }
  row.append(picture, shares);
  return row;
}

async function classify(files) {
  for (const file of files) {
    said.textContent = "…";
    const headers = token.value ? { authorization: "Bearer " + token.value } : {};
    headers["content-type"] = "application/octet-stream";
    try {
      const response = await fetch("/predict", { method: "POST", headers, body: file });
      const found = await response.json();
      document.getElementById("ask").hidden = response.status !== 401 && !token.value;
      said.textContent = found.predictions ? "" : found.error;
      for (const one of found.predictions ?? []) answers.prepend(shown(file, one));
    } catch {
      said.textContent = "no answer: does the service still run?";
    }
  }
}

document.getElementById("files").addEventListener("change", (event) => {
  classify([...event.target.files]);
  event.target.value = "";
});
document.addEventListener("paste", (event) => classify([...event.clipboardData.files]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  classify([...event.dataTransfer.files]);
});
