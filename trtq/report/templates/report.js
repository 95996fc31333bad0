"use strict";
(() => {
  const LIMITS = [0.05, 4];
  const fitted = (viewer) => Math.min(1, viewer.clientWidth / viewer.firstElementChild.viewBox.baseVal.width);

  function zoom(viewer, scale, anchor) {
    const svg = viewer.firstElementChild;
    const box = svg.viewBox.baseVal;
    const before = svg.clientWidth / box.width || 1;
    const after = Math.min(LIMITS[1], Math.max(LIMITS[0], scale));
    const at = anchor || { x: viewer.clientWidth / 2, y: viewer.clientHeight / 2 };
    const x = (viewer.scrollLeft + at.x) * (after / before) - at.x;
    const y = (viewer.scrollTop + at.y) * (after / before) - at.y;
    svg.style.width = box.width * after + "px";
    svg.style.height = box.height * after + "px";
    viewer.scrollTo(x, y);
  }

  function scaleOf(viewer) {
    const svg = viewer.firstElementChild;
    return svg.clientWidth / svg.viewBox.baseVal.width || 1;
  }

  const actions = {
    "in": (viewer) => zoom(viewer, scaleOf(viewer) * 1.25),
    "out": (viewer) => zoom(viewer, scaleOf(viewer) / 1.25),
    "fit": (viewer) => zoom(viewer, fitted(viewer)),
    "whole": (viewer) => zoom(viewer, Math.min(fitted(viewer), viewer.clientHeight / viewer.firstElementChild.viewBox.baseVal.height)),
    "full": (viewer) => zoom(viewer, 1),
  };
  const keys = { "+": "in", "=": "in", "-": "out", "0": "full", "f": "fit", "w": "whole" };

  function drag(viewer) {
    let from = null;
    viewer.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.pointerType === "touch" || event.offsetX > viewer.scrollLeft + viewer.clientWidth) return;
      from = { x: event.clientX + viewer.scrollLeft, y: event.clientY + viewer.scrollTop };
    });
    window.addEventListener("pointermove", (event) => {
      if (!from) return;
      viewer.classList.add("held");
      viewer.scrollTo(from.x - event.clientX, from.y - event.clientY);
    });
    window.addEventListener("pointerup", () => { from = null; viewer.classList.remove("held"); });
  }

  for (const viewer of document.querySelectorAll(".viewer")) {
    const tools = viewer.previousElementSibling;
    tools.hidden = false;
    tools.addEventListener("click", (event) => {
      const action = actions[event.target.dataset.zoom];
      if (action) action(viewer);
    });
    viewer.addEventListener("keydown", (event) => {
      const action = event.ctrlKey || event.metaKey || event.altKey ? null : actions[keys[event.key]];
      if (action) { action(viewer); event.preventDefault(); }
    });
    viewer.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      const frame = viewer.getBoundingClientRect();
      zoom(viewer, scaleOf(viewer) * Math.exp(-event.deltaY / 300), { x: event.clientX - frame.left, y: event.clientY - frame.top });
    }, { passive: false });
    drag(viewer);
    let fresh = true;
    const first = () => { if (fresh && viewer.clientWidth) { fresh = false; actions.fit(viewer); } };
    viewer.closest("details").addEventListener("toggle", first);
    first();
  }

  function show(link) {
    const picture = document.getElementById(link.hash.slice(1));
    const viewer = picture.querySelector(".viewer");
    picture.open = true;
    for (const lit of viewer.querySelectorAll(".lit")) lit.classList.remove("lit");
    const cards = link.dataset.layers.split(" ").map((index) => viewer.querySelector('[data-layer="' + index + '"]'));
    for (const card of cards) if (card) card.classList.add("lit");
    if (scaleOf(viewer) < 0.7) zoom(viewer, 1);
    picture.scrollIntoView({ block: "start" });
    if (!cards[0]) return;
    const frame = viewer.getBoundingClientRect();
    const card = cards[0].getBoundingClientRect();
    viewer.scrollBy(card.left + card.width / 2 - frame.left - frame.width / 2, card.top + card.height / 2 - frame.top - frame.height / 2);
    viewer.focus({ preventScroll: true });
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-layers]");
    if (link) { event.preventDefault(); show(link); }
  });
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not(.long)")) part.open = true;
  });
})();
