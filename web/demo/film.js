// An animated film on a canvas: hills that pass under a slow sun.

/** The films. colours are [upper sky, lower sky, light, far hills, near hills]. */
export const films = [
  { id: "metropolis", title: "Metropolis", colours: ["#1d2b3a", "#c98d5b", "#f7dfb0", "#3c4a57", "#141c24"], stars: true },
  { id: "nosferatu", title: "Nosferatu", colours: ["#0f1c2e", "#476a86", "#dbe6e6", "#22384d", "#0a121c"], stars: true },
  { id: "the-general", title: "The General", colours: ["#7fb0b8", "#f1e3bd", "#fff7dd", "#6d9279", "#2c4a3e"] },
  { id: "sunrise", title: "Sunrise", colours: ["#45395c", "#eba17a", "#ffe6b8", "#7b5266", "#2d2238"] },
  { id: "safety-last", title: "Safety Last!", colours: ["#375a7f", "#d8d7c4", "#fdf6e0", "#69809a", "#27384d"] },
];

const STILL = matchMedia("(prefers-reduced-motion: reduce)");

/** A Film is an animation that can be run and stopped. */
export class Film {
  #canvas;
  #pen;
  #film = films[0];
  #running = false;
  #played = 0; // milliseconds
  #last = 0; // time of the last change of #played, by performance.now()
  #drawn = 0;
  #stars = [];

  constructor(canvas) {
    this.#canvas = canvas;
    this.#pen = canvas.getContext("2d");
    for (let i = 0; i < 70; i++) this.#stars.push([noise(i * 3.1), noise(i * 7.7) * 0.5, 0.4 + noise(i * 1.3)]);
    this.#draw();
  }

  get running() { return this.#running; }
  /** The playing time in milliseconds. */
  get played() { return this.#played + (this.#running ? performance.now() - this.#last : 0); }

  show(film) {
    this.#film = film;
    this.#played = 0;
    this.#last = performance.now();
    this.#draw();
  }

  run(wanted) {
    if (wanted === this.#running) return;
    this.#played = this.played;
    this.#last = performance.now();
    this.#running = wanted;
    if (wanted) requestAnimationFrame((now) => this.#frame(now));
    else this.#draw();
  }

  #frame(now) {
    if (!this.#running) return;
    // 30 frames per second, or one if the user prefers reduced motion.
    if (now - this.#drawn > (STILL.matches ? 1000 : 30)) {
      this.#drawn = now;
      this.#draw();
    }
    requestAnimationFrame((next) => this.#frame(next));
  }

  #draw() {
    const { width: w, height: h } = this.#canvas;
    const t = this.played / 1000;
    const [above, below, light, far, near] = this.#film.colours;
    const sky = this.#pen.createLinearGradient(0, 0, 0, h * 0.8);
    sky.addColorStop(0, above);
    sky.addColorStop(1, below);
    this.#fill(sky, 0, 0, w, h);
    if (this.#film.stars) this.#drawStars(w, h, light, t);
    this.#drawSun(w, h, light, t);
    for (let i = 0; i < 4; i++) this.#drawHills(w, h, i, mix(far, near, i / 3), t);
    this.#drawTrain(w, h, near, light, t);
  }

  #fill(style, ...box) {
    this.#pen.fillStyle = style;
    this.#pen.fillRect(...box);
  }

  #drawStars(w, h, light, t) {
    this.#pen.fillStyle = light;
    for (const [x, y, size] of this.#stars) {
      this.#pen.globalAlpha = 0.25 + 0.2 * Math.sin(t * 0.7 + x * 40);
      this.#pen.fillRect(((x * w - t * 2) % w + w) % w, y * h, size * 2.4, size * 2.4);
    }
    this.#pen.globalAlpha = 1;
  }

  #drawSun(w, h, light, t) {
    const x = w * (0.72 - 0.08 * Math.sin(t / 40));
    const y = h * (0.42 + 0.06 * Math.sin(t / 25));
    const glow = this.#pen.createRadialGradient(x, y, h * 0.08, x, y, h * 0.5);
    glow.addColorStop(0, `${light}88`);
    glow.addColorStop(1, `${light}00`);
    this.#fill(glow, 0, 0, w, h);
    this.#pen.fillStyle = light;
    this.#pen.beginPath();
    this.#pen.arc(x, y, h * 0.09, 0, Math.PI * 2);
    this.#pen.fill();
  }

  #drawHills(w, h, layer, colour, t) {
    const pen = this.#pen;
    const base = h * (0.56 + layer * 0.1);
    const shift = t * (6 + layer * layer * 9);
    pen.fillStyle = colour;
    pen.beginPath();
    pen.moveTo(0, h);
    for (let x = 0; x <= w; x += 8) pen.lineTo(x, base - ridge((x + shift) / w, layer) * h * (0.16 - layer * 0.04));
    pen.lineTo(w, h);
    pen.fill();
  }

  /** Draws the train that crosses the foreground at intervals. */
  #drawTrain(w, h, body, light, t) {
    const y = h * 0.91;
    const x = ((t * 90) % (w * 1.7)) - w * 0.35;
    const dark = mix(body, "#000000", 0.35);
    this.#fill(dark, 0, y + h * 0.035, w, h * 0.006);
    for (let car = 0; car < 5; car++) {
      const left = x - car * w * 0.066;
      this.#fill(dark, left, y, w * 0.062, h * 0.033);
      for (let window = 0; window < 4; window++) {
        this.#fill(light, left + w * (0.007 + window * 0.0135), y + h * 0.008, w * 0.008, h * 0.011);
      }
    }
  }
}

/** Returns a pseudo-random number between 0 and 1 that depends on n only. */
function noise(n) {
  const x = Math.sin(n * 127.1 + 311.7) * 43758.5453;
  return x - Math.floor(x);
}

function ridge(x, layer) {
  const f = 2.2 + layer * 1.3;
  return 0.55 * Math.sin(x * f + layer * 2) + 0.3 * Math.sin(x * f * 2.3 + layer) + 0.15 * Math.sin(x * f * 5.1);
}

function mix(a, b, share) {
  const part = (c, i) => parseInt(c.slice(1 + i * 2, 3 + i * 2), 16);
  return `rgb(${[0, 1, 2].map((i) => Math.round(part(a, i) * (1 - share) + part(b, i) * share)).join(" ")})`;
}
