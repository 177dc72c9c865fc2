// The page's player: streamcount.js holds the slot, and the film plays while it does.
const $ = (css) => document.querySelector(css);
const viewer = () => fetch("/viewer").then((answer) => (answer.ok ? answer.json() : null));
const say = (text) => { $("#say").textContent = text; };

async function player({ user, server, token }) {
  const { Stream } = await import(`${server}/streamcount.js`);
  const stream = new Stream({
    user, server,
    media: $("video"), // a pause of 20 minutes frees the slot until playback resumes
    token: async ({ refused }) => (refused ? (await viewer())?.token : token),
    device: { name: `Browser, opened ${new Date().toLocaleTimeString()}`, type: "browser" },
    content: { id: "film", title: "Test film" },
  });
  const film = new Film($("video"), () => stream.info?.id);

  stream.addEventListener("started", () => { $("#others").replaceChildren(); say("Playing."); film.play(); });
  // Neither an outage nor a request that the service rejects is the viewer's fault: the film continues.
  stream.addEventListener("waiting", () => film.play());
  stream.addEventListener("problem", ({ detail }) => {
    console.warn("streamcount:", detail.status, detail.title, detail.detail, detail.members);
    if (stream.mayPlay) film.play();
  });
  stream.addEventListener("ended", ({ detail: { reason, by } }) => {
    film.pause();
    say(`Ended (${reason})${by?.device?.name ? ` by ${by.device.name}` : ""}.`);
  });
  stream.addEventListener("refused", ({ detail: { active, limit } }) => {
    film.pause();
    say(`You are watching ${limit === 1 ? "a film" : `${limit} films`} already. Play here instead of:`);
    $("#others").replaceChildren(...active.map(({ id, device, startedAt }) => {
      const button = document.createElement("button");
      button.textContent = `${device?.name ?? "A device"}, since ${new Date(startedAt).toLocaleTimeString()}`;
      button.onclick = () => stream.start({ replaces: id }); // one transaction, so no other start can take the slot in between
      const item = document.createElement("li");
      item.append(button);
      return item;
    }));
  });

  $("#play").onclick = () => stream.start();
  $("#stop").onclick = () => { film.pause(); stream.stop(); say("Stopped."); };
  $("video").onended = () => { stream.stop(); say("The end."); };
}

// A Film is an HLS film of fMP4 segments at /watch/{stream}/film.m3u8. Its segments
// are fetched under the id that the stream has then, because a stream that expired continues
// under a new id. (In a real player a library does the rest.)
class Film {
  #video;
  #id;
  #last = "-"; // not the id of a stream that exists, so the site accepts it only during an outage
  #loading = null;

  constructor(video, id) { this.#video = video; this.#id = id; }

  play() {
    this.#loading ??= this.#load().catch((err) => { this.#loading = null; say(`No film: ${err.message}`); });
    this.#video.play().catch(() => {}); // no data yet, or the browser requires the viewer to press play
  }

  pause() { this.#video.pause(); }

  async #fetch(file) {
    this.#last = this.#id() ?? this.#last;
    const answer = await fetch(`/watch/${this.#last}/${file}`);
    if (!answer.ok) throw new Error(`${file}: ${await answer.text()}`);
    return answer;
  }

  async #load() {
    const playlist = await (await this.#fetch("film.m3u8")).text();
    const init = /#EXT-X-MAP:URI="([^"]+)"/.exec(playlist)?.[1];
    const segments = playlist.split("\n").filter((line) => line && !line.startsWith("#"));
    const source = new MediaSource();
    this.#video.src = URL.createObjectURL(source);
    await event(source, "sourceopen");
    const buffer = source.addSourceBuffer('video/mp4; codecs="avc1.42c01e"');
    for (const file of [init, ...segments].filter(Boolean)) {
      while (this.#ahead(buffer) > 10) await event(this.#video, "timeupdate"); // at most 10 s are buffered ahead
      buffer.appendBuffer(await (await this.#fetch(file)).arrayBuffer());
      await event(buffer, "updateend");
    }
    source.endOfStream();
  }

  #ahead(buffer) {
    const { length } = buffer.buffered;
    return length ? buffer.buffered.end(length - 1) - this.#video.currentTime : 0;
  }
}

function event(target, name) {
  return new Promise((resolve) => { target.addEventListener(name, resolve, { once: true }); });
}

const me = await viewer();
$("#login").hidden = Boolean(me);
if (me) await player(me);
$("#player").hidden = !me; // only after its buttons have handlers
