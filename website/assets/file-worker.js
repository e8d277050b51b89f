"use strict";
// A page opened from a folder (file://) may not start a worker, which the search runs in. Here a
// hidden frame takes its place: it loads the same script and passes the same messages.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #frame = document.createElement("iframe");
    #waiting = [];

    constructor(url) {
      super();
      const script = document.createElement("script");
      script.src = new URL(url, location.href);
      this.#frame.hidden = true;
      this.#frame.title = "Search";
      this.#frame.addEventListener("load", () => this.#start(script), { once: true });
      document.body.append(this.#frame);
    }

    #start(script) {
      const inside = this.#frame.contentWindow;
      inside.postMessage = (data) => this.#deliver(this, data, (event) => this.onmessage?.(event));
      inside.importScripts = () => {};
      script.addEventListener("load", () => {
        const waiting = this.#waiting;
        this.#waiting = null;
        for (const data of waiting) this.postMessage(data);
      });
      inside.document.head.append(inside.document.importNode(script));
    }

    #deliver(target, data) {
      const event = new MessageEvent("message", { data });
      target.dispatchEvent(event);
      target.onmessage?.(event);
    }

    postMessage(data) {
      if (this.#waiting) this.#waiting.push(data);
      else this.#deliver(this.#frame.contentWindow, data);
    }

    terminate() {
      this.#frame.remove();
    }
  };
}
