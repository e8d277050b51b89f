"use strict";
// Without this script the page is still a list of events with links; it adds the navigation.
(() => {
  const links = [...document.querySelectorAll(".entry > a")];
  const panes = [...document.querySelectorAll(".source")];
  const segments = [...document.querySelectorAll(".timeline a")];
  const list = document.getElementById("events");
  const search = document.getElementById("search");
  const found = document.getElementById("found");
  const place = document.getElementById("place");
  const count = document.getElementById("count");
  const previous = document.getElementById("previous");
  const next = document.getElementById("next");
  const words = new Map(links.map((link) => [link, searchable(link)]));
  const order = new Map(links.map((link, index) => [link, index]));
  const events = links.filter((link) => link.hash.startsWith("#e")).length;
  let current = links[0];
  let stepping = false; // whether the last move was one step, so that "back" leaves the whole sequence

  function searchable(link) {
    return link.parentElement.textContent.toLowerCase();
  }

  function shown() {
    return links.filter((link) => !link.parentElement.hidden);
  }

  function before(among) {
    return among.findLast((link) => order.get(link) < order.get(current));
  }

  function after(among) {
    return among.find((link) => order.get(link) > order.get(current));
  }

  function choose(link) {
    current.removeAttribute("aria-current");
    current = link;
    link.setAttribute("aria-current", "true");
    bring(list, link.parentElement, list.querySelector("h2").offsetHeight);
    for (const pane of panes) turnTo(pane, link);
    tellPlace();
  }

  function turnTo(pane, link) {
    const side = pane.dataset.side;
    const line = document.getElementById(link.dataset[side]);
    pane.querySelector("li[aria-current]")?.removeAttribute("aria-current");
    if (!line) return tellNone(pane);
    line.setAttribute("aria-current", "true");
    const file = line.closest("[data-file]");
    const turned = file.hidden;
    for (const other of pane.querySelectorAll("[data-file]")) other.hidden = other !== file;
    tellLine(pane, file.dataset.file, line, link.dataset[`${side}Stack`]);
    bring(pane.querySelector(".scroll"), line, 0, turned);
  }

  // An entry that has no line on this side.
  function tellNone(pane) {
    pane.querySelector("summary").textContent = "no such line";
    for (const other of pane.querySelectorAll("details ol")) other.hidden = true;
    pane.querySelector("details").classList.add("bare");
  }

  // File, line and function; opened, also the calls that led there.
  function tellLine(pane, file, line, stack) {
    const number = line.querySelector("a").textContent;
    const name = document.createElement("strong");
    name.textContent = line.dataset.function;
    pane.querySelector("summary").replaceChildren(`${file}:${number} `, name);
    for (const other of pane.querySelectorAll("details ol")) other.hidden = other.id !== stack;
    const calls = document.getElementById(stack).children.length;
    pane.querySelector("details").classList.toggle("bare", calls === 0);
  }

  // Scrolls the box, never the page, and only if the element is not well in sight already: a line
  // that moves down a still text is easier to follow than a text that moves under a still line.
  function bring(box, element, covered, turned = false) {
    const top = element.getBoundingClientRect().top - box.getBoundingClientRect().top;
    const margin = Math.min(48, box.clientHeight / 5);
    const high = top < covered + margin;
    const low = top + element.offsetHeight > box.clientHeight - margin;
    if (!turned && !high && !low) return;
    box.scrollTo({ top: box.scrollTop + top - (box.clientHeight - element.offsetHeight) * 0.4 });
  }

  function tellPlace() {
    const segment = current.closest(".segment");
    const number = current.hash.slice(2);
    const kind = current.hash.startsWith("#d") ? "argument" : "event";
    const total = kind === "event" ? events : links.length - events;
    place.textContent = segment.dataset.place;
    count.textContent = `${kind} ${number} of ${total}`;
    const first = segment.querySelector(".entry > a").hash;
    let past = true;
    for (const link of segments) {
      const here = link.hash === first;
      if (here) past = false;
      link.classList.toggle("past", past);
      if (here) link.setAttribute("aria-current", "step");
      else link.removeAttribute("aria-current");
    }
    const visible = shown();
    previous.disabled = !before(visible);
    next.disabled = !after(visible);
  }

  // A jump is a new entry in the browser's history; the steps of one sequence share an entry.
  function jump(link) {
    if (!link || link === current) return;
    history.pushState(null, "", link.hash);
    arrive(link);
  }

  function step(link) {
    if (!link || link === current) return;
    if (stepping) history.replaceState(null, "", link.hash);
    else history.pushState(null, "", link.hash);
    stepping = true;
    choose(link);
  }

  function follow() {
    const link = links.find((candidate) => candidate.hash === location.hash);
    if (link) arrive(link);
  }

  function arrive(link) {
    stepping = false;
    if (link.parentElement.hidden) narrow("");
    choose(link);
  }

  // The first event of the next batch; of this batch; if that is where we are, of the one before.
  function batch(forward) {
    const starts = shown().filter((link, index, all) => {
      return index === 0 || link.closest(".segment") !== all[index - 1].closest(".segment");
    });
    return forward ? after(starts) : before(starts);
  }

  function narrow(text) {
    if (search.value !== text) search.value = text;
    const terms = text.toLowerCase().split(/\s+/).filter(Boolean);
    for (const link of links) {
      link.parentElement.hidden = !terms.every((term) => words.get(link).includes(term));
    }
    for (const group of list.querySelectorAll(".segment, .chapter")) {
      group.hidden = !group.querySelector(".entry:not([hidden])");
    }
    const visible = shown();
    found.textContent = terms.length ? `${visible.length} of ${links.length}` : "";
    if (visible.length && !visible.includes(current)) step(after(visible) ?? visible.at(-1));
    else tellPlace();
  }

  // The events at a line of source: the next one after the current, or again the first.
  function atLine(line) {
    const side = line.closest(".source").dataset.side;
    const there = shown().filter((link) => link.dataset[side] === line.id);
    return after(there) ?? there[0];
  }

  document.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    const line = event.target.closest(".source .stop");
    const link = event.target.closest('a[href^="#"]');
    if (line && String(getSelection())) return;
    if (!line && !link) return;
    event.preventDefault();
    jump(line ? atLine(line) : links.find((candidate) => candidate.hash === link.hash));
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target === search;
    const reading = event.target.matches?.(".source .scroll");
    const moves = {
      ArrowDown: () => !reading && step(after(shown())),
      ArrowUp: () => !reading && step(before(shown())),
      ArrowRight: () => !typing && step(batch(true)),
      ArrowLeft: () => !typing && step(batch(false)),
      j: () => !typing && step(after(shown())),
      k: () => !typing && step(before(shown())),
      "/": () => !typing && (search.focus(), search.select()),
      Escape: () => (narrow(""), current.focus({ preventScroll: true })),
      Enter: () => typing && step(after(shown())),
    };
    if (!Object.hasOwn(moves, event.key) || moves[event.key]() === false) return;
    event.preventDefault();
    if (links.includes(document.activeElement)) current.focus({ preventScroll: true });
  });

  previous.addEventListener("click", () => step(before(shown())));
  next.addEventListener("click", () => step(after(shown())));
  search.addEventListener("input", () => narrow(search.value));
  window.addEventListener("popstate", follow);

  const tools = document.querySelectorAll(".keys, .here, .search, details");
  for (const tool of tools) tool.hidden = false;
  for (const pane of panes) pane.classList.add("walking");
  if (links.length) choose(links.find((link) => link.hash === location.hash) ?? links[0]);
})();
