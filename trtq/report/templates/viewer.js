"use strict";
// A viewer: a picture in a frame that scrolls; zooming sets the picture's size, so that keys, touch and wheel pan it.
const LIMITS = [0.05, 4];
const READABLE = 0.55;
const LEGIBLE = 0.85;

const picture = (viewer) => viewer.firstElementChild;
const fitted = (viewer) => Math.min(1, viewer.clientWidth / picture(viewer).viewBox.baseVal.width);
const scaleOf = (viewer) => picture(viewer).clientWidth / picture(viewer).viewBox.baseVal.width || 1;

function zoom(viewer, scale, anchor) {
  const svg = picture(viewer);
  const box = svg.viewBox.baseVal;
  const before = scaleOf(viewer);
  const after = Math.min(LIMITS[1], Math.max(LIMITS[0], scale));
  const at = anchor || { x: viewer.clientWidth / 2, y: viewer.clientHeight / 2 };
  const x = (viewer.scrollLeft + at.x) * (after / before) - at.x;
  const y = (viewer.scrollTop + at.y) * (after / before) - at.y;
  svg.style.width = box.width * after + "px";
  svg.style.height = box.height * after + "px";
  viewer.scrollTo(x, y);
}

function whole(viewer) {
  return Math.min(fitted(viewer), viewer.clientHeight / picture(viewer).viewBox.baseVal.height);
}

const ZOOMS = {
  "in": (viewer) => zoom(viewer, scaleOf(viewer) * 1.25),
  "out": (viewer) => zoom(viewer, scaleOf(viewer) / 1.25),
  "fit": (viewer) => zoom(viewer, fitted(viewer)),
  "whole": (viewer) => zoom(viewer, whole(viewer)),
  "full": (viewer) => zoom(viewer, 1),
};
const ZOOM_KEYS = { "+": "in", "=": "in", "-": "out", "0": "full", "f": "fit", "w": "whole" };

// What a picture opens with: its width, unless that made its words too small to read.
function open(viewer) {
  if (viewer.dataset.opened || !viewer.clientWidth) return;
  viewer.dataset.opened = "yes";
  zoom(viewer, Math.max(READABLE, fitted(viewer)), { x: 0, y: 0 });
  viewer.scrollTo((viewer.scrollWidth - viewer.clientWidth) / 2, 0);
}

function centre(viewer, card, legibly) {
  if (legibly && scaleOf(viewer) < LEGIBLE) zoom(viewer, LEGIBLE);
  const frame = viewer.getBoundingClientRect();
  const box = card.getBoundingClientRect();
  viewer.scrollBy(box.left + box.width / 2 - frame.left - frame.width / 2, box.top + box.height / 2 - frame.top - frame.height / 2);
}

function drag(viewer) {
  let from = null;
  viewer.addEventListener("pointerdown", (event) => {
    const frame = viewer.getBoundingClientRect();
    const onBar = event.clientX - frame.left > viewer.clientWidth || event.clientY - frame.top > viewer.clientHeight;
    if (event.button !== 0 || event.pointerType === "touch" || onBar) return;
    from = { x: event.clientX + viewer.scrollLeft, y: event.clientY + viewer.scrollTop, moved: false };
  });
  window.addEventListener("pointermove", (event) => {
    if (!from) return;
    const x = from.x - event.clientX;
    const y = from.y - event.clientY;
    if (!from.moved && Math.hypot(x - viewer.scrollLeft, y - viewer.scrollTop) < 4) return;
    from.moved = true;
    viewer.classList.add("held");
    viewer.scrollTo(x, y);
  });
  window.addEventListener("pointerup", () => { from = null; });
  // A click that ends a drag chooses no layer.
  viewer.addEventListener("click", (event) => {
    if (viewer.classList.contains("held")) { viewer.classList.remove("held"); event.stopImmediatePropagation(); }
  }, true);
}

function wheel(viewer) {
  let waiting = null;
  viewer.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const frame = viewer.getBoundingClientRect();
    const at = { x: event.clientX - frame.left, y: event.clientY - frame.top };
    // One zoom a frame, however fast the wheel turns.
    if (waiting) { waiting.turned += event.deltaY; waiting.at = at; return; }
    waiting = { turned: event.deltaY, at };
    requestAnimationFrame(() => {
      zoom(viewer, scaleOf(viewer) * Math.exp(-waiting.turned / 300), waiting.at);
      waiting = null;
    });
  }, { passive: false });
}

function equip(viewer) {
  const tools = viewer.closest(".pane").querySelector(".tools");
  tools.hidden = false;
  tools.addEventListener("click", (event) => {
    const action = ZOOMS[event.target.dataset.zoom];
    if (action) action(viewer);
  });
  viewer.addEventListener("keydown", (event) => {
    const action = event.ctrlKey || event.metaKey || event.altKey ? null : ZOOMS[ZOOM_KEYS[event.key]];
    if (action) { action(viewer); event.preventDefault(); }
  });
  wheel(viewer);
  drag(viewer);
}
