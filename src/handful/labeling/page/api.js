// Requests, and an outbox that sends answers one after the other until each is on disk.

import { byId } from "/dom.js";

export const tab = (() => {
  const kept = sessionStorage.getItem("tab") ?? identity();
  sessionStorage.setItem("tab", kept);
  return kept;
})();

export function identity() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Refused extends Error {}

export async function post(path, body = {}) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (answer.ok) return answer.json();
  const text = await answer.text();
  let message = text;
  try { message = JSON.parse(text).error ?? text; } catch { /* plain text */ }
  if (answer.status === 400) throw new Refused(message);
  throw new Error(message);
}

const waiting = [];
let sending = false;
export const acknowledged = { count: 0 };

// Until every answer is on disk, so that what is asked for next knows of them.
export async function settled() {
  while (waiting.length) await new Promise((done) => setTimeout(done, 20));
}

// The promise is fulfilled with the answer once it is on disk, or rejected if it was refused.
export function send(path, body) {
  return new Promise((resolve, reject) => {
    waiting.push({ path, body: { id: identity(), ...body }, resolve, reject });
    pump();
  });
}

async function pump() {
  if (sending) return;
  sending = true;
  let pause = 250;
  while (waiting.length) {
    const act = waiting[0];
    try {
      const found = await post(act.path, act.body);
      waiting.shift();
      acknowledged.count += 1;
      pause = 250;
      act.resolve(found);
    } catch (error) {
      if (error instanceof Refused) {
        waiting.shift();
        act.reject(error);
      } else {
        const why = error instanceof TypeError ? "handful does not answer; is the command still running?" : error.message;
        byId("saving").textContent = `${waiting.length} not saved yet: ${why}`;
        await new Promise((done) => setTimeout(done, pause));
        pause = Math.min(2 * pause, 4000);
        continue;
      }
    }
    byId("saving").textContent = waiting.length > 8 ? `${waiting.length} being saved` : "";
  }
  byId("saving").textContent = "";
  sending = false;
}

addEventListener("beforeunload", (event) => { if (waiting.length) event.preventDefault(); });
