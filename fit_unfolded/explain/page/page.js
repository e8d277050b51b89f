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
  const about = document.getElementById("about");
  const header = document.querySelector("header");
  const oneColumn = matchMedia("(max-width: 43.99rem)");
  const framed = location.protocol === "about:"; // in a notebook's cell: no address, no history
  const words = new Map(links.map((link) => [link, searchable(link)]));
  const order = new Map(links.map((link, index) => [link, index]));
  const events = links.filter((link) => link.hash.startsWith("#e")).length;
  let current = links[0];
  let stepping = false; // whether the last move was one step, so that "back" leaves the whole sequence

  function searchable(link) {
    return link.parentElement.textContent.toLowerCase();
  }

  // What a step can stop at: of a folded run, the first; a folded batch unfolds on arrival.
  function shown() {
    const folds = !list.classList.contains("searching");
    return links.filter(({ parentElement: entry }) => {
      return !entry.hidden && !(folds && entry.classList.contains("folded"));
    });
  }

  function before(among) {
    return among.findLast((link) => order.get(link) < order.get(current));
  }

  function after(among) {
    return among.find((link) => order.get(link) > order.get(current));
  }

  function choose(link) {
    current.removeAttribute("aria-current");
    tabbable(current, false);
    current = link;
    link.setAttribute("aria-current", "true");
    tabbable(link, true);
    if (link.parentElement.classList.contains("folded")) fold(runOf(link), false);
    fold(link.closest(".segment"), false);
    about.innerHTML = document.getElementById(link.dataset.about).innerHTML;
    bring(list, link.parentElement, list.querySelector("h2").offsetHeight);
    for (const pane of panes) turnTo(pane, link);
    tellPlace();
  }

  // Of many links only the current one is a stop of the Tab key; arrow keys lead to the others.
  function tabbable(link, can) {
    link.tabIndex = can ? 0 : -1;
    const { parentElement: entry } = link;
    for (const owner of [entry, entry.closest(".segment").querySelector("h3")]) {
      const button = owner?.querySelector(":scope > .fold");
      if (button) button.tabIndex = link.tabIndex;
    }
  }

  // Folding: a run of entries at the same lines, or a batch that repeats an earlier one.

  function runOf(link) {
    const run = [link.parentElement];
    while (run[0].classList.contains("in-run")) run.unshift(run[0].previousElementSibling);
    while (run.at(-1).nextElementSibling?.classList.contains("in-run")) {
      run.push(run.at(-1).nextElementSibling);
    }
    return run;
  }

  function fold(what, folded) {
    const isRun = Array.isArray(what);
    const button = isRun
      ? what[0].querySelector(":scope > .fold")
      : what.querySelector(":scope > h3 > .fold");
    if (!button) return;
    for (const element of isRun ? what.slice(1) : [what]) {
      element.classList.toggle("folded", folded);
    }
    button.setAttribute("aria-expanded", String(!folded));
  }

  function toggle(button) {
    const entry = button.closest(".entry");
    const folded = button.getAttribute("aria-expanded") === "true";
    const what = entry ? runOf(entry.querySelector("a")) : button.closest(".segment");
    fold(what, folded);
    if (!shown().includes(current)) step(what[0].querySelector("a"));
    tellPlace();
  }

  // Of the current run if there is one, else of the current batch.
  function toggleHere() {
    const button =
      runOf(current)[0].querySelector(":scope > .fold") ??
      current.closest(".segment").querySelector(":scope > h3 > .fold");
    if (button) toggle(button);
  }

  function turnTo(pane, link) {
    const side = pane.dataset.side;
    const line = document.getElementById(link.dataset[side]);
    const before = pane.querySelector("li[aria-current]");
    before?.removeAttribute("aria-current");
    if (before) before.querySelector("a").tabIndex = -1;
    for (const row of pane.querySelectorAll(".chosen")) row.classList.remove("chosen");
    if (!line) return tellNone(pane);
    const rows = [line, ...pane.querySelectorAll(`[data-part-of="${line.id}"]`)];
    for (const row of rows) row.classList.add("chosen");
    line.setAttribute("aria-current", "true");
    line.querySelector("a").tabIndex = 0;
    const file = line.closest("[data-file]");
    const turned = file.hidden;
    for (const other of pane.querySelectorAll("[data-file]")) other.hidden = other !== file;
    tellLine(pane, file.dataset.file, line, link.dataset[`${side}Stack`]);
    bring(pane.querySelector(".scroll"), rows.at(-1), 0, turned);
    bring(pane.querySelector(".scroll"), line, 0);
  }

  // An entry that has no line on this side.
  function tellNone(pane) {
    pane.querySelector("summary").textContent = "no such line";
    linkTo(pane, "", 0);
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
    linkTo(pane, file, number);
  }

  // The line on the web, where its file is there.
  function linkTo(pane, file, number) {
    const link = pane.querySelector(":scope > .web");
    if (!link) return;
    link.hidden = !file.startsWith("keras/");
    link.dataset.web ??= link.href;
    link.href = `${link.dataset.web}${file}#L${number}`;
    link.setAttribute("aria-label", `${file}, line ${number}, on GitHub`);
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
      link.tabIndex = here ? 0 : -1;
    }
    const visible = shown();
    previous.disabled = !before(visible);
    next.disabled = !after(visible);
  }

  // A jump is a new entry in the browser's history; the steps of one sequence share an entry.
  function jump(link) {
    if (!link || link === current) return;
    if (!framed) history.pushState(null, "", link.hash);
    arrive(link);
    present();
  }

  function step(link) {
    if (!link || link === current) return;
    if (framed) stepping = true;
    else if (stepping) history.replaceState(null, "", link.hash);
    else history.pushState(null, "", link.hash);
    stepping = true;
    choose(link);
    present();
  }

  // In one column the panes fill the screen below the header: leave it, so that all are in sight.
  function present() {
    const top = header.offsetTop + header.offsetHeight;
    if (oneColumn.matches && !framed && scrollY < top) scrollTo({ top });
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
    list.classList.toggle("searching", terms.length > 0);
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
    const button = event.target.closest(".fold");
    if (button) return toggle(button);
    if (event.target.closest(".skip")) {
      event.preventDefault();
      return current.focus();
    }
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
      o: () => !typing && toggleHere(),
      "/": () => !typing && (search.focus(), search.select()),
      Escape: () => (narrow(""), current.focus({ preventScroll: true })),
      Enter: () => typing && step(after(shown())),
    };
    if (!Object.hasOwn(moves, event.key) || moves[event.key]() === false) return;
    event.preventDefault();
    if (links.includes(document.activeElement)) current.focus({ preventScroll: true });
    if (segments.includes(document.activeElement)) {
      segments.find((link) => link.ariaCurrent).focus({ preventScroll: true });
    }
  });

  previous.addEventListener("click", () => step(before(shown())));
  next.addEventListener("click", () => step(after(shown())));
  search.addEventListener("input", () => narrow(search.value));
  window.addEventListener("popstate", follow);

  const tools = document.querySelectorAll(".keys, .live, .here, .about, .search, details");
  for (const tool of tools) tool.hidden = false;
  for (const pane of panes) pane.classList.add("walking");
  document.body.classList.add("walking");
  for (const line of document.querySelectorAll(".source .stop > a")) line.tabIndex = -1;
  for (const link of links) {
    tabbable(link, false);
    if (link.parentElement.querySelector(":scope > .fold")) fold(runOf(link), true);
  }
  for (const segment of list.querySelectorAll(".repeats")) fold(segment, true);
  if (links.length) choose(links.find((link) => link.hash === location.hash) ?? links[0]);
})();
