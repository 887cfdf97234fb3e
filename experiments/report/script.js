// What the figures cannot do by themselves: follow the page's colours, and show or hide a method in all of them.
(() => {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const PAPER = 680; // pixels between the margins of an upright page
  let printing = false;

  const models = (tag) =>
    (window.Bokeh ? Bokeh.documents : []).flatMap((one) => [...one.all_models]).filter((m) => m.tags.includes(tag));

  function colour(place, index, asDark) {
    const chip = document.querySelector(`.chip.s${place}.m${index}`);
    return getComputedStyle(chip).getPropertyValue(asDark ? "--dark" : "--light").trim();
  }

  function paint() {
    const asDark = dark.matches && !printing;
    const [ink, soft, line, shade] = asDark ? ["#e4e8ed", "#9aa4b0", "#333a43", "#ffffff"] : ["#22262b", "#5d6670", "#d9dde3", "#22262b"];
    for (const plot of models("themed")) {
      for (const axis of [...plot.below, ...plot.left]) {
        if (axis.major_label_text_color === undefined) continue;
        axis.setv({axis_label_text_color: soft, major_label_text_color: ink, axis_line_color: line, major_tick_line_color: line});
      }
      for (const grid of plot.center) if (grid.grid_line_color !== undefined) grid.setv({grid_line_color: line});
    }
    for (const mark of models("mark")) mark.line_color = soft;
    for (const area of models("shade")) area.setv({fill_color: shade, fill_alpha: asDark ? 0.05 : 0.04});
    for (const renderer of models("method")) {
      const own = colour(renderer.tags[1], renderer.tags[2], asDark), glyph = renderer.glyph;
      for (const name of ["line_color", "fill_color"]) if (name in glyph) glyph[name] = {value: own};
    }
  }

  function toggle(chip) {
    const section = chip.closest("section"), on = chip.getAttribute("aria-pressed") !== "true";
    chip.setAttribute("aria-pressed", String(on));
    for (const renderer of models("method")) {
      if (String(renderer.tags[1]) === section.dataset.place && String(renderer.tags[2]) === chip.dataset.index) renderer.visible = on;
    }
    for (const row of section.querySelectorAll(`tr[data-index="${chip.dataset.index}"]`)) row.classList.toggle("off", !on);
  }

  function reset(place) {
    for (const plot of models("themed")) if (plot.id === place.dataset.root) plot.reset.emit();
  }

  // On paper: light colours, all measures, and figures made to fit, as they are not laid out anew for the page's width.
  const folded = new Set();
  function prepare(print) {
    printing = print;
    paint();
    for (const one of document.querySelectorAll("details.measure")) {
      if (print && !one.open) folded.add(one);
      if (folded.has(one)) one.open = print;
    }
    if (!print) folded.clear();
    for (const place of document.querySelectorAll(".plot")) {
      const inner = place.firstElementChild, wide = place.closest(".wide") !== null;
      const [width, height] = [place.clientWidth, place.clientHeight], target = wide ? PAPER : PAPER / 3 - 16;
      const scale = Math.min(1, target / width);
      inner.style.cssText = print ? `position: absolute; width: ${width}px; transform: scale(${scale}); transform-origin: 0 0;` : "";
      place.style.cssText = print ? `contain: strict; width: ${width * scale}px; height: ${height * scale}px; min-height: 0;` : "";
    }
    if (print) for (const view of views()) view.paint?.();
  }

  function views() {
    const found = [];
    const visit = (view) => { found.push(view); for (const child of view.child_views ?? []) visit(child); };
    if (window.Bokeh) for (const view of Bokeh.index) visit(view);
    return found;
  }

  // A table that is wider than its place says so above it, and fades on the side where columns are out of sight.
  function edges(scroll) {
    const hidden = scroll.scrollWidth - scroll.clientWidth;
    scroll.classList.toggle("more", scroll.scrollLeft < hidden - 1);
    scroll.classList.toggle("past", scroll.scrollLeft > 1);
    scroll.previousElementSibling.hidden = hidden <= 1;
  }

  function watch(scroll) {
    const hint = document.createElement("p");
    hint.className = "sideways";
    hint.textContent = "scroll the table sideways to see all columns ↔";
    hint.hidden = true;
    scroll.before(hint);
    scroll.addEventListener("scroll", () => edges(scroll), {passive: true});
    const sizes = new ResizeObserver(() => edges(scroll));
    for (const one of [scroll, ...scroll.children]) sizes.observe(one);
  }

  function start(tries) {
    const wanted = document.querySelectorAll(".plot").length;
    if (models("themed").length < wanted && tries > 0) return void setTimeout(start, 30, tries - 1);
    paint();
    if (window.matchMedia("(pointer: coarse)").matches) {
      // a finger that moves over a figure scrolls the page; zooming is still in the toolbar
      for (const plot of models("themed")) plot.toolbar.gestures.pan.active = null;
    }
    document.documentElement.dataset.drawn = String(models("themed").length);
  }

  for (const scroll of document.querySelectorAll(".scroll")) watch(scroll);
  for (const chip of document.querySelectorAll(".chip")) chip.addEventListener("click", () => toggle(chip));
  for (const plot of document.querySelectorAll(".plot [data-root-id]")) {
    plot.parentElement.addEventListener("dblclick", () => reset({dataset: {root: plot.dataset.rootId}}));
  }
  dark.addEventListener("change", paint);
  window.addEventListener("beforeprint", () => prepare(true));
  window.addEventListener("afterprint", () => prepare(false));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => start(400));
  else start(400);
})();
