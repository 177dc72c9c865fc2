// Asking again and again, while somebody looks.

const polls = new Set();

/** A Poll calls a function every few seconds, never twice at once, and not while the page is hidden. */
export class Poll {
  #run;
  #seconds;
  #timer = 0;
  #busy = false;
  #again = false;

  /** The function's own errors are its own business: it must not throw. */
  constructor(seconds, run) {
    this.#seconds = seconds;
    this.#run = run;
    polls.add(this);
  }

  /** Calls the function now; if it is running, once more after that. */
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

/** Makes all polls call at once. */
export const pollAll = () => polls.forEach((p) => p.now());

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) pollAll();
});
