// Small helpers. Text is only ever set as text: nothing here makes markup of a string.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function say(text) {
  byId("says").textContent = text;
  clearTimeout(say.timer);
  if (text) say.timer = setTimeout(() => { byId("says").textContent = ""; }, 6000);
}

// "1 label" or "12 labels".
export const counted = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;

// A share that was typed: 80 %, not 80.0 %.
export const round = (share) => `${+(100 * share).toFixed(1)} %`;

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

// A picture that is loaded and decoded before it is shown.
export function picture(number, side, alt) {
  const image = new Image();
  image.alt = alt;
  image.draggable = false;
  image.src = `/image/${number}/${side}`;
  image.ready = image.decode().then(
    () => { if (Math.max(image.naturalWidth, image.naturalHeight) <= 128) image.className = "small"; return true; },
    () => false,
  );
  return image;
}

// After a click with the mouse the keys belong to the page again.
export function onPress(element, act) {
  element.addEventListener("click", (event) => {
    if (event.detail > 0) element.blur();
    act(event);
  });
}

export const typing = (target) => /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
