"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "\u2212" : "") + Math.abs(value).toFixed(2);

  /* One example: tokens shaded by activation, a mark below each by its change in likelihood. Arrow keys read the values. */
  const example = (item) => {
    const figure = make("figure", "example");
    const line = make("p", "tokens" + (item.w ? " spaced" : ""));
    line.tabIndex = 0;
    line.setAttribute("role", "group");
    line.setAttribute("aria-label", "Example. Left and right arrow keys read the tokens.");
    const readout = make("p", "readout");
    readout.setAttribute("aria-live", "polite");
    let strongest = 0;
    item.a.forEach((value, i) => { if (value > item.a[strongest]) strongest = i; });
    const spans = item.t.map((number, i) => {
      const span = make("span", "token", data.vocab[number].replace(/\n/g, "\u23ce\n"));
      const change = item.l[i] / 100;
      span.style.setProperty("--a", (item.a[i] / 99).toFixed(2));
      span.style.setProperty("--l", Math.min(Math.abs(change) / 3, 1).toFixed(2));
      if (change < -0.05) span.classList.add("down");
      if (change > 0.05) span.classList.add("up");
      if (item.a[i] > 59) span.classList.add("hot");
      span.dataset.i = i;
      return span;
    });
    line.append(...spans.flatMap((span) => (item.w ? [span, " "] : [span])));
    const choose = (i) => {
      spans.forEach((span) => span.classList.remove("at"));
      spans[i].classList.add("at");
      line.dataset.at = i;
      const change = item.l[i] / 100;
      readout.replaceChildren(make("code", "", data.vocab[item.t[i]]),
        ` activation ${(item.a[i] / 99 * item.m).toFixed(2)}, log-likelihood ${signed(change)} nats (tuned \u2212 base)`);
    };
    line.addEventListener("click", (event) => {
      const span = event.target.closest(".token");
      if (span) choose(Number(span.dataset.i));
    });
    line.addEventListener("mouseover", (event) => {
      const span = event.target.closest(".token");
      if (span) choose(Number(span.dataset.i));
    });
    line.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move || !spans.length) return;
      event.preventDefault();
      choose(Math.max(0, Math.min(spans.length - 1, Number(line.dataset.at) + move)));
    });
    figure.append(line);
    if (spans.length) {
      choose(strongest);
      const both = make("p", "both");
      both.append("After ", make("code", "", data.vocab[item.t[strongest]]), " base says ", make("code", "base", item.b),
        item.b === item.u ? ", and so does tuned" : ", tuned says ");
      if (item.b !== item.u) both.append(make("code", "tuned", item.u));
      figure.append(both);
    }
    figure.append(readout);
    return figure;
  };
  const fill = (within, opening) => within.querySelectorAll(".examples:not([data-done])").forEach((place) => {
    const closed = place.closest("details:not([open])");
    if ((closed && closed !== opening) || place.closest("[hidden]")) return;
    place.dataset.done = "1";
    const items = data.latents[place.dataset.latent] || [];
    place.replaceChildren(make("h4", "", "On text"), legend(), ...items.map(example));
  });
  const legend = () => {
    const line = make("p", "legend");
    const key = (name, text) => { const k = make("span", "key"); k.append(make("i", name), text); return k; };
    line.append(key("fires", "where it fires"), key("down", "less likely under tuned"), key("up", "likelier under tuned"));
    return line;
  };

  /* "toggle" comes a task late: filling on the click puts the examples in place before a quick Tab looks for them. */
  document.querySelectorAll("details").forEach((d) => {
    d.addEventListener("toggle", () => { if (d.open) fill(d); });
    d.querySelector("summary").addEventListener("click", () => fill(d, d));
  });
  document.querySelectorAll("button.open").forEach((button) => {
    const row = document.getElementById(button.getAttribute("aria-controls"));
    const set = (open) => { button.setAttribute("aria-expanded", open); row.hidden = !open; };
    set(false);
    button.addEventListener("click", () => { set(row.hidden); if (!row.hidden) fill(row); });
  });
  document.querySelectorAll("button.sort").forEach((button) => button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table"), column = head.cellIndex;
    const numeric = button.dataset.numeric === "1";
    const down = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : numeric;
    table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (body) => { const v = body.rows[0].cells[column].dataset.value; return numeric ? Number(v) : v; };
    const order = (a, b) => (numeric ? key(a) - key(b) : key(a).localeCompare(key(b))) * (down ? -1 : 1);
    table.append(...[...table.tBodies].sort(order));
  }));
})();
