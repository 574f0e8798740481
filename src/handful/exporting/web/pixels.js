"use strict";
// Pixels as the model saw them in training. The resize is Pillow's: antialiased bicubic in two
// passes, each rounded to bytes. The browser decodes JPEG, so values may differ by a little.

const LARGE = 4000000; // pixels; larger pictures are reduced before they are resized
const ONE = 2 ** 22; // Pillow's weights are whole numbers, in parts of this

// An image here is {width, height, channels, data}, data being channels interleaved.
function emptyImage(width, height, channels) {
  return { width, height, channels, data: new Uint8ClampedArray(width * height * channels) };
}

// RGBA of a canvas → RGB on white, or on black where there is no contrast on white.
function opaque(pixels) {
  const { width, height, data } = pixels;
  let least = 255, most = 0;
  for (let at = 3; at < data.length; at += 4) {
    least = Math.min(least, data[at]);
    most = Math.max(most, data[at]);
  }
  const ignored = least === 255 || most === 0;
  const on = (paper) => {
    const image = emptyImage(width, height, 3);
    const low = [255, 255, 255], high = [0, 0, 0];
    for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
      const share = ignored ? 1 : data[from + 3] / 255;
      for (let band = 0; band < 3; band++) {
        const value = Math.round(data[from + band] * share + paper * (1 - share));
        image.data[to + band] = value;
        low[band] = Math.min(low[band], value);
        high[band] = Math.max(high[band], value);
      }
    }
    return [image, Math.max(...high.map((top, band) => top - low[band]))];
  };
  const [white, onWhite] = on(255);
  if (ignored || onWhite >= 16) return white;
  const [black, onBlack] = on(0);
  return onBlack > onWhite ? black : white;
}

// The mean of squares of `factor` pixels; at the end those that are there.
function reduced(image, factor) {
  if (factor < 2) return image;
  const { width, height, channels, data } = image;
  const made = emptyImage(Math.ceil(width / factor), Math.ceil(height / factor), channels);
  for (let row = 0, to = 0; row < made.height; row++) {
    const bottom = Math.min(height, (row + 1) * factor);
    for (let column = 0; column < made.width; column++) {
      const right = Math.min(width, (column + 1) * factor);
      const count = (bottom - row * factor) * (right - column * factor);
      for (let band = 0; band < channels; band++, to++) {
        let sum = 0;
        for (let y = row * factor; y < bottom; y++) {
          for (let x = column * factor; x < right; x++) sum += data[(y * width + x) * channels + band];
        }
        made.data[to] = Math.round(sum / count);
      }
    }
  }
  return made;
}

function grey(image) {
  const made = emptyImage(image.width, image.height, 1);
  for (let from = 0, to = 0; to < made.data.length; from += 3, to++) {
    const [red, green, blue] = image.data.subarray(from, from + 3);
    made.data[to] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
  }
  return made;
}

function bicubic(x) {
  const a = Math.abs(x);
  if (a < 1) return (1.5 * a - 2.5) * a * a + 1;
  return a < 2 ? ((-0.5 * a + 2.5) * a - 4) * a + 2 : 0;
}

// For each of `size` places: the first source and the weights of the sources from there on, which add
// up to ONE but for rounding. Whole numbers: the sums of the browser are those of Pillow.
function weights(length, size) {
  const scale = length / size, filter = Math.max(scale, 1), support = 2 * filter;
  return Array.from({ length: size }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(0, Math.floor(center - support + 0.5));
    const last = Math.min(length, Math.floor(center + support + 0.5));
    const found = [];
    for (let at = first; at < last; at++) found.push(bicubic((at - center + 0.5) / filter));
    const sum = found.reduce((total, one) => total + one, 0);
    return [first, found.map((one) => Math.sign(one) * Math.round(Math.abs(one / sum) * ONE))];
  });
}

function resized(image, width, height) {
  let made = image;
  if (width !== made.width) {
    const from = made, across = weights(from.width, width);
    made = emptyImage(width, from.height, from.channels);
    for (let row = 0, to = 0; row < from.height; row++) {
      for (const [first, shares] of across) {
        for (let band = 0; band < from.channels; band++, to++) {
          let sum = 0, at = (row * from.width + first) * from.channels + band;
          for (let n = 0; n < shares.length; n++, at += from.channels) sum += shares[n] * from.data[at];
          made.data[to] = Math.floor(sum / ONE + 0.5);
        }
      }
    }
  }
  if (height !== made.height) {
    const from = made, down = weights(from.height, height), row = from.width * from.channels;
    made = emptyImage(from.width, height, from.channels);
    down.forEach(([first, shares], place) => {
      for (let column = 0; column < row; column++) {
        let sum = 0, at = first * row + column;
        for (let n = 0; n < shares.length; n++, at += row) sum += shares[n] * from.data[at];
        made.data[place * row + column] = Math.floor(sum / ONE + 0.5);
      }
    });
  }
  return made;
}

function cropped(image, left, top, side) {
  const { width, channels, data } = image;
  const made = emptyImage(side, side, channels);
  for (let row = 0; row < side; row++) {
    const from = ((top + row) * width + left) * channels;
    made.data.set(data.subarray(from, from + side * channels), row * side * channels);
  }
  return made;
}

// Python rounds halves to even.
function rounded(value) {
  const down = Math.floor(value);
  if (value - down !== 0.5) return Math.round(value);
  return down % 2 ? down + 1 : down;
}

function square(image, size, aspect) {
  const { width, height } = image;
  if (width === height || aspect === "stretch") return resized(image, size, size);
  if (aspect === "crop") {
    const side = Math.min(width, height);
    const left = Math.floor((width - side) / 2), top = Math.floor((height - side) / 2);
    return resized(cropped(image, left, top, side), size, size);
  }
  const scale = size / Math.max(width, height);
  const inner = [width, height].map((side) => Math.max(1, rounded(side * scale)));
  const small = resized(image, inner[0], inner[1]);
  const made = emptyImage(size, size, image.channels);
  const left = Math.floor((size - inner[0]) / 2), top = Math.floor((size - inner[1]) / 2);
  for (let row = 0; row < inner[1]; row++) {
    const line = small.data.subarray(row * inner[0] * image.channels, (row + 1) * inner[0] * image.channels);
    made.data.set(line, ((top + row) * size + left) * image.channels);
  }
  return made;
}

// RGBA pixels of a picture → a tensor's bytes, (C, S, S).
function prepared(pixels, input, isJpeg) {
  const { size, channels, aspect } = input;
  let image = opaque(pixels);
  const ratio = Math.min(Math.floor(image.width / (2 * size)), Math.floor(image.height / (2 * size)));
  if (isJpeg) image = reduced(image, [8, 4, 2, 1].find((factor) => ratio >= factor) ?? 1);
  if (image.width * image.height > LARGE) {
    image = reduced(image, Math.floor(Math.min(image.width, image.height) / (2 * size)));
  }
  image = square(channels === 1 ? grey(image) : image, size, aspect);
  const bytes = new Uint8Array(channels * size * size);
  for (let at = 0; at < size * size; at++) {
    for (let band = 0; band < channels; band++) bytes[band * size * size + at] = image.data[at * channels + band];
  }
  return bytes;
}
