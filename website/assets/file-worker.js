"use strict";
// A page opened from a folder (file://) may not start a worker, in which the search runs. There a
// hidden frame takes its place: it loads the same script and passes the same messages.
if (location.protocol === "file:") {
  window.Worker = class {
    onmessage = null;
    #waiting = [];
    #frame = document.createElement("iframe");

    constructor(url) {
      this.#frame.hidden = true;
      this.#frame.title = "Search";
      this.#frame.addEventListener("load", () => this.#start(String(url)), { once: true });
      document.body.append(this.#frame);
    }

    #start(url) {
      const inside = this.#frame.contentWindow;
      inside.postMessage = (data) => this.#later(data, (event) => this.onmessage?.(event));
      const script = inside.document.createElement("script");
      script.src = new URL(url, location.href).href;
      script.addEventListener("load", () => {
        const waiting = this.#waiting;
        this.#waiting = null;
        waiting.forEach((data) => this.postMessage(data));
      });
      inside.document.head.append(script);
    }

    postMessage(data) {
      if (this.#waiting) this.#waiting.push(data);
      else this.#later(data, (event) => this.#frame.contentWindow?.dispatchEvent(event));
    }

    // As between a page and a worker: a copy, delivered after the sender has returned.
    #later(data, deliver) {
      const copy = structuredClone(data);
      setTimeout(() => deliver(new MessageEvent("message", { data: copy })));
    }

    terminate() {
      this.#frame.remove();
    }
  };
}
