"use strict";

const MOST = 5; // classes that are shown
const said = document.getElementById("said");
const answers = document.getElementById("answers");
const drop = document.getElementById("drop");
const video = document.getElementById("video");

ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
ort.env.wasm.numThreads = 1;

const ready = (async () => {
  const about = await (await fetch("about.json")).json();
  const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  said.textContent = "";
  document.getElementById("about").textContent =
    `Pictures stay on this machine. Classes: ${about.classes.join(", ")}.`;
  return { about, session };
})();
ready.catch((error) => { said.textContent = `the model cannot be loaded: ${error.message}`; });

function rgba(source, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  return context.getImageData(0, 0, width, height);
}

async function answered(pixels, isJpeg) {
  const { about, session } = await ready;
  const { size, channels } = about.input;
  const bytes = prepared(pixels, about.input, isJpeg);
  const images = new ort.Tensor("uint8", bytes, [1, channels, size, size]);
  const found = await session.run({ images });
  const strange = about.none_of_these !== null
    && found.distances.data[0] > about.none_of_these.distance;
  const shares = [...found.probabilities.data].map((share, n) => [about.classes[n], share]);
  return { shares: shares.sort((a, b) => b[1] - a[1]), strange };
}

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

function shown(found, name) {
  const list = element("div");
  list.className = "shares";
  list.append(element("strong", found.shares[0][0]), element("small", name));
  if (found.strange) list.append(element("em", "unlike all pictures that it learned from"));
  for (const [label, share] of found.shares.slice(0, MOST)) {
    const line = element("div"), bar = element("meter");
    bar.value = share;
    const text = share >= 0.9995 ? "over 99.9 %" : (100 * share).toFixed(1) + " %";
    const percent = element("span", text);
    percent.dataset.share = share;
    line.append(element("span", label), bar, percent);
    list.append(line);
  }
  return list;
}

async function classify(files) {
  for (const file of files) {
    const row = element("li");
    try {
      const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
      const bitmap = await createImageBitmap(file, options);
      const pixels = rgba(bitmap, bitmap.width, bitmap.height);
      const picture = element("img");
      picture.alt = "";
      picture.src = URL.createObjectURL(file);
      picture.onload = () => URL.revokeObjectURL(picture.src);
      row.append(picture, shown(await answered(pixels, file.type === "image/jpeg"), file.name));
    } catch (error) {
      row.append(element("span", `${file.name} cannot be read: ${error.message}`));
    }
    answers.prepend(row);
  }
}

async function watch() {
  const row = element("li");
  answers.prepend(row);
  while (video.srcObject) {
    if (video.videoWidth) {
      const pixels = rgba(video, video.videoWidth, video.videoHeight);
      row.replaceChildren(shown(await answered(pixels, false), "camera"));
    }
    await new Promise(requestAnimationFrame);
  }
}

document.getElementById("camera").addEventListener("click", async () => {
  if (video.srcObject) {
    video.srcObject.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  } else {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      await video.play();
      watch();
    } catch (error) {
      said.textContent = `no camera: ${error.message}`;
    }
  }
  video.hidden = !video.srcObject;
  document.getElementById("camera").textContent = video.srcObject ? "Stop the camera" : "Use the camera";
});
document.getElementById("files").addEventListener("change", async (event) => {
  const files = [...event.target.files];
  await classify(files);
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
