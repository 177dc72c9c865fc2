// Polling while the page is visible.

const polls = new Set();

/** A Poll calls a function every few seconds while the page is visible. Its calls do not overlap. */
export class Poll {
  #run;
  #seconds;
  #timer = 0;
  #busy = false;
  #again = false;

  /** run must not throw. */
  constructor(seconds, run) {
    this.#seconds = seconds;
    this.#run = run;
    polls.add(this);
  }

  /** Calls the function now, or after the call in progress. */
  async now() {
    clearTimeout(this.#timer);
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    try {
      await this.#run();
    } finally {
      this.#busy = false;
    }
    if (this.#again) {
      this.#again = false;
      this.now();
    } else if (!document.hidden) {
      this.#timer = setTimeout(() => this.now(), this.#seconds * 1000);
    }
  }
}

/** Runs all polls now. */
export const pollAll = () => polls.forEach((p) => p.now());

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) pollAll();
});
