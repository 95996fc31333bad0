// Layers: two graphs side by side, what corresponds, what is searched for.
const LAYERS = JSON.parse(document.getElementById("layers").textContent);
const [OPERATION, NAME, KIND, READS, WRITES, WEIGHT, ONNX, BADGES] = [0, 1, 2, 3, 4, 5, 6, 7];
const SHOWN_NAMES = 8;
const panes = [...document.querySelectorAll(".pane")];
const row = document.querySelector(".panes");
const detail = document.getElementById("detail");
let slots = row ? row.dataset.first.split(" ").filter(Boolean).map(Number) : [];
let current = null;

const viewerOf = (number) => panes[number].querySelector(".viewer");

// A card is one layer, or a folded chain of them.
const layersOf = (one) => one.dataset.layer.split(" ").map(Number);
const cardsOf = panes.map(() => null);
function card(number, index) {
  cardsOf[number] ??= new Map([...panes[number].querySelectorAll("[data-layer]")].flatMap((one) => layersOf(one).map((layer) => [layer, one])));
  return cardsOf[number].get(index);
}

// Which layers of graph `to` compute what a layer of graph `from` does.
const tables = new Map();
function table(from, to) {
  const key = from + " " + to;
  if (!tables.has(key)) {
    const found = new Map();
    for (const [a, b, groups] of LAYERS.matches) {
      if ((a !== from || b !== to) && (a !== to || b !== from)) continue;
      for (const [left, right] of groups) {
        const [own, theirs] = a === from ? [left, right] : [right, left];
        for (const index of own) found.set(index, theirs);
      }
    }
    tables.set(key, found);
  }
  return tables.get(key);
}

function partners(from, indices, to) {
  return [...new Set(indices.flatMap((index) => table(from, to).get(index) || []))];
}

const marked = { lit: [], near: [], found: [] };
function mark(word, cards) {
  for (const one of marked[word]) one.classList.remove(word);
  marked[word] = cards.filter(Boolean);
  for (const one of marked[word]) one.classList.add(word);
}

const cards = (number, indices) => indices.map((index) => card(number, index));
const beside = (number) => slots.find((slot) => slot !== number);

function arrange() {
  panes.forEach((pane, number) => {
    const place = slots.indexOf(number);
    pane.hidden = place < 0;
    pane.style.order = place;
    pane.querySelector("select").value = number;
    if (place >= 0 && viewerOf(number)) open(viewerOf(number));
  });
}

function lay(numbers) {
  const wanted = numbers.filter((number) => !slots.includes(number));
  if (!wanted.length) return;
  const kept = slots.filter((slot) => numbers.includes(slot));
  slots = numbers.length > 1 ? numbers : [...(kept.length ? kept : slots.slice(0, panes.length > 1 ? 1 : 0)), ...wanted];
  arrange();
}

function bring(number, indices, legibly) {
  const first = indices.length ? card(number, indices[0]) : null;
  if (first && viewerOf(number)) centre(viewerOf(number), first, legibly);
}

// Keep layers, and what corresponds to them on the other side, in sight.
function choose(number, indices, { stay = false, theirs = null } = {}) {
  lay([number]);
  const other = beside(number);
  const others = other === undefined ? [] : theirs || partners(number, indices, other);
  mark("near", []);
  hint(number, []);
  mark("lit", [...cards(number, indices), ...(other === undefined ? [] : cards(other, others))]);
  if (!stay) bring(number, indices, true);
  if (other !== undefined) bring(other, others, !stay);
  current = { number, index: indices[0] };
  const sides = [[number, indices], ...(other === undefined ? [] : [[other, others]])];
  tell(sides.sort((one, two) => slots.indexOf(one[0]) - slots.indexOf(two[0])));
}

function clear() {
  mark("lit", []);
  mark("near", []);
  current = null;
  detail.hidden = true;
}

function element(tag, classes, words) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (words !== undefined) made.textContent = words;
  return made;
}

// What a tensor is, without its name: the compiler numbers names anew in every engine.
const kindOf = (tensor) => tensor.slice(0, tensor.indexOf(") ") + 1);

function list(term, items, into, others = null) {
  if (!items.length) return;
  into.append(element("dt", "", term));
  for (const item of items.slice(0, SHOWN_NAMES)) {
    const line = element("dd", "name", item);
    if (others && !others.has(kindOf(item))) {
      line.classList.add("differs");
      line.append(element("span", "unseen", " not on the other side"));
    }
    into.append(line);
  }
  if (items.length > SHOWN_NAMES) into.append(element("dd", "soft", "and " + (items.length - SHOWN_NAMES) + " more"));
}

function tensors([number, indices] = [0, []]) {
  const layers = indices.map((index) => LAYERS.modes[number].layers[index]);
  return [READS, WRITES].map((side) => (layers.length ? new Set(layers.flatMap((layer) => layer[side]).map(kindOf)) : null));
}

function described(number, index, [read, written]) {
  const layer = LAYERS.modes[number].layers[index];
  const box = element("div", "layer-facts");
  const title = element("p", "", layer[OPERATION] + " ");
  title.append(element("span", "soft", layer[WEIGHT]));
  for (const badge of layer[BADGES]) title.append(" ", element("span", "tag dear", badge));
  const facts = element("dl");
  list("layer", [layer[NAME]], facts);
  list("kind", [layer[KIND]], facts);
  list("reads", layer[READS], facts, read);
  list("writes", layer[WRITES], facts, written);
  list("ONNX", layer[ONNX], facts);
  box.append(title, facts);
  return box;
}

function tell(sides) {
  detail.replaceChildren(...sides.map(([number, indices], place) => {
    const others = tensors(sides[1 - place]);
    const side = element("section");
    side.tabIndex = 0;
    side.setAttribute("aria-label", "Layers of " + LAYERS.modes[number].mode);
    side.append(element("h3", "", LAYERS.modes[number].mode));
    if (!indices.length) side.append(element("p", "soft", "No layer here computes the same."));
    for (const index of indices.slice(0, SHOWN_NAMES)) side.append(described(number, index, others));
    return side;
  }));
  detail.hidden = false;
}

// `0:3,4 1:5`: layers 3 and 4 of graph 0, layer 5 of graph 1.
function show(link) {
  const parts = link.dataset.show.split(" ").map((part) => part.split(":"));
  const sides = parts.map(([number, indices]) => [Number(number), indices.split(",").map(Number)]);
  lay(link.dataset.panes ? link.dataset.panes.split(" ").map(Number) : [sides[0][0]]);
  document.querySelector(".finder").scrollIntoView({ block: "start" });
  choose(...sides[0], { theirs: sides.length > 1 ? sides[1][1] : null });
  for (const shown of document.querySelectorAll("tr.shown")) shown.classList.remove("shown");
  link.closest("tr").classList.add("shown");
  (viewerOf(sides[0][0]) || detail).focus({ preventScroll: true });
}

function step(number, by) {
  const count = LAYERS.modes[number].layers.length;
  const from = current && current.number === number ? current.index : by > 0 ? -1 : count;
  choose(number, [Math.min(count - 1, Math.max(0, from + by))]);
}

// Say where the counterpart of what is pointed at lies, when it is out of sight or not there at all.
function hint(number, indices) {
  for (const pane of panes) pane.querySelector(".hint").hidden = true;
  const other = beside(number);
  if (other === undefined || !viewerOf(other) || !indices.length) return;
  const found = partners(number, indices, other);
  const told = panes[other].querySelector(".hint");
  const words = found.length ? whereabouts(viewerOf(other), card(other, found[0])) : "no layer here computes the same";
  told.textContent = words;
  told.hidden = !words;
}

function whereabouts(viewer, one) {
  if (!one) return "";
  const frame = viewer.getBoundingClientRect();
  const box = one.getBoundingClientRect();
  if (box.bottom < frame.top) return "↑ the counterpart is further up";
  if (box.top > frame.bottom) return "↓ the counterpart is further down";
  if (box.right < frame.left) return "← the counterpart is further left";
  return box.left > frame.right ? "→ the counterpart is further right" : "";
}

function listen(pane, number) {
  const under = (event) => event.target.closest("[data-layer]");
  pane.addEventListener("click", (event) => {
    const hit = under(event);
    if (hit) choose(number, layersOf(hit), { stay: true });
  });
  pane.addEventListener("pointerover", (event) => {
    const hit = under(event);
    const other = beside(number);
    const own = hit ? layersOf(hit) : [];
    mark("near", hit ? [hit, ...(other === undefined ? [] : cards(other, partners(number, own, other)))] : []);
    hint(number, own);
  });
  pane.addEventListener("pointerleave", () => { mark("near", []); hint(number, []); });
  pane.querySelector("select").addEventListener("change", (event) => {
    const place = slots.indexOf(number);
    const wanted = Number(event.target.value);
    slots = slots.map((slot, at) => (at === place ? wanted : slot === wanted ? number : slot));
    clear();
    arrange();
    panes[wanted].querySelector("select").focus();
  });
  const viewer = viewerOf(number);
  if (!viewer) return;
  equip(viewer);
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "n" || event.key === "p") step(number, event.key === "n" ? 1 : -1);
    else if (event.key === "Escape") clear();
  });
}

const searched = LAYERS.modes.map(() => null);
function words(number) {
  searched[number] ??= LAYERS.modes[number].layers.map((layer) => [layer[OPERATION], layer[NAME], layer[KIND], ...layer[ONNX]].join("\n").toLowerCase());
  return searched[number];
}

function finder() {
  const input = document.getElementById("find");
  const told = document.getElementById("hits");
  let hits = [];
  let at = -1;
  let timer = 0;
  let searchedFor = "";
  function search() {
    searchedFor = input.value;
    const wanted = input.value.trim().toLowerCase();
    at = -1;
    hits = wanted ? slots.flatMap((number) => words(number).flatMap((text, index) => (text.includes(wanted) ? [[number, index]] : []))) : [];
    mark("found", hits.map(([number, index]) => card(number, index)));
    const counts = slots.map((number) => hits.filter((hit) => hit[0] === number).length + " in " + LAYERS.modes[number].mode);
    told.textContent = wanted ? counts.join(", ") : "";
  }
  function go(by) {
    if (!hits.length) return;
    at = (at + by + (at < 0 && by < 0 ? 1 : 0) + hits.length) % hits.length;
    choose(hits[at][0], [hits[at][1]]);
    told.textContent = "hit " + (at + 1) + " of " + hits.length + ", in " + LAYERS.modes[hits[at][0]].mode;
  }
  for (const part of document.querySelectorAll(".finder, .keys")) part.hidden = false;
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 80); });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    clearTimeout(timer);
    if (at < 0 || input.value !== searchedFor) search();
    go(event.shiftKey ? -1 : 1);
  });
  row.addEventListener("change", search);
  document.querySelector(".finder").addEventListener("click", (event) => {
    if (event.target.dataset.hit) go(Number(event.target.dataset.hit));
  });
}

if (row) {
  row.classList.add("beside");
  row.classList.toggle("alone", slots.length < 2);
  panes.forEach((pane, number) => {
    pane.querySelector("select").hidden = panes.length < 2;
    pane.querySelector(".chosen").hidden = panes.length > 1;
    listen(pane, number);
  });
  arrange();
  finder();
}
