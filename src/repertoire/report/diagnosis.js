"use strict";
// The map of the images: clusters of look-alikes as nested tiles, laid out anew for each cluster that is opened.
(() => {
  const card = document.querySelector(".treemap");
  if (!card) return;
  const data = JSON.parse(document.getElementById("tree").textContent);
  const sheet = card.querySelector(".sheet");
  const canvas = card.querySelector("canvas");
  const crumbs = card.querySelector("ol");
  const status = card.querySelector(".status");
  const key = card.querySelector(".key");
  const colour = card.querySelector("select");
  const tooltip = card.querySelector(".tooltip");
  const context = canvas.getContext("2d");
  const [tileWidth, tileHeight] = data.tile;
  const children = data.start.map(() => []);
  data.parent.forEach((parent, node) => parent >= 0 && children[parent].push(node));
  const wrongBefore = [0];
  data.label.forEach((label, i) => wrongBefore.push(wrongBefore[i] + (label !== data.predicted[i])));
  const size = (node) => data.end[node] - data.start[node];
  const errors = (node) => wrongBefore[data.end[node]] - wrongBefore[data.start[node]];
  const CLUSTERS = 14;
  const HEADER = 17;
  let path = [0]; // the clusters that were opened, each inside the one before
  let at = 0;
  let chosen = 0;
  let boxes = [];

  const style = (name) => getComputedStyle(card).getPropertyValue(name).trim();

  // What a cluster is called: its commonest class.
  function title(node) {
    const counts = new Map();
    for (let i = data.start[node]; i < data.end[node]; i++) counts.set(data.label[i], (counts.get(data.label[i]) || 0) + 1);
    const [label, count] = [...counts].sort((a, b) => b[1] - a[1])[0];
    return { name: data.classes[label], share: count / size(node) };
  }

  function describe(node) {
    const { name, share } = title(node);
    const part = share < 0.995 ? ` (${Math.round(100 * share)}%)` : "";
    const who = share < 0.4 ? "several classes" : `mostly ${name}${part}`;
    const images = `${size(node)} image${size(node) === 1 ? "" : "s"}`;
    return `${who}: ${images}, ${Math.round((100 * errors(node)) / size(node))}% wrong`;
  }

  // The clusters that are shown of an open one: the largest is divided until there are enough.
  function frontier(node) {
    const shown = [node];
    while (shown.length < CLUSTERS) {
      let best = -1;
      for (let k = 0; k < shown.length; k++) {
        if (children[shown[k]].length && (best < 0 || size(shown[k]) > size(shown[best]))) best = k;
      }
      if (best < 0) break;
      shown.splice(best, 1, ...children[shown[best]]);
    }
    return shown;
  }

  // Neighbours in the tree stay neighbours: a run of clusters is cut in two halves of about equal size, and so on.
  function layout(nodes, x, y, width, height, result) {
    if (nodes.length === 1) {
      result.push({ node: nodes[0], x, y, width, height });
      return;
    }
    const weights = nodes.map((node) => Math.sqrt(size(node)));
    const total = weights.reduce((a, b) => a + b, 0);
    let cut = 1;
    let before = weights[0];
    while (cut < nodes.length - 1 && Math.abs(total / 2 - before - weights[cut]) < Math.abs(total / 2 - before)) before += weights[cut++];
    const part = before / total;
    if (width >= height) {
      layout(nodes.slice(0, cut), x, y, width * part, height, result);
      layout(nodes.slice(cut), x + width * part, y, width * (1 - part), height, result);
    } else {
      layout(nodes.slice(0, cut), x, y, width, height * part, result);
      layout(nodes.slice(cut), x, y + height * part, width, height * (1 - part), result);
    }
  }

  function paint(i) {
    if (colour.value === "class") return style(`--k${data.label[i] % 10}`);
    if (colour.value === "error") return data.label[i] === data.predicted[i] ? null : style("--wrong");
    const sure = data.confidence[i];
    return `rgb(${style("--accent-rgb")} / ${(1 - sure).toFixed(2)})`;
  }

  // As many images of a cluster as fit, evenly spaced over it, in tiles no smaller than can be seen.
  function fill(box) {
    const inner = { x: box.x + 4, y: box.y + HEADER + 3, width: box.width - 8, height: box.height - HEADER - 7 };
    box.tiles = [];
    if (inner.width < 12 || inner.height < 12) return;
    const count = size(box.node);
    let side = Math.sqrt((inner.width * inner.height) / count);
    side = Math.min(Math.max(side, 22), 96, inner.width, inner.height);
    let columns = Math.max(1, Math.floor(inner.width / side));
    let rows = Math.max(1, Math.floor(inner.height / side));
    while (columns * rows < count && side > 22) {
      side -= 1;
      columns = Math.max(1, Math.floor(inner.width / side));
      rows = Math.max(1, Math.floor(inner.height / side));
    }
    const shown = Math.min(count, columns * rows);
    for (let k = 0; k < shown; k++) {
      const i = data.start[box.node] + Math.floor((k * count) / shown);
      box.tiles.push({ i, x: inner.x + (k % columns) * side, y: inner.y + Math.floor(k / columns) * side, side });
    }
  }

  function drawTile({ i, x, y, side }) {
    const scale = (side - 3) / Math.max(tileWidth, tileHeight);
    const [width, height] = [tileWidth * scale, tileHeight * scale];
    const column = i % data.columns;
    const row = Math.floor(i / data.columns);
    context.drawImage(sheet, column * tileWidth, row * tileHeight, tileWidth, tileHeight, x + 1, y + 1, width, height);
    const tint = paint(i);
    if (!tint) return;
    context.strokeStyle = tint;
    context.lineWidth = side > 40 ? 3 : 2;
    context.strokeRect(x + 1, y + 1, width, height);
  }

  function draw() {
    const width = canvas.clientWidth;
    const height = Math.round(Math.min(Math.max(width * 0.66, 360), 680));
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.imageSmoothingEnabled = Math.max(tileWidth, tileHeight) > 16;
    boxes = [];
    layout(frontier(at), 0, 0, width, height, boxes);
    context.fillStyle = style("--surface");
    context.fillRect(0, 0, width, height);
    context.font = `600 11px ${getComputedStyle(card).fontFamily}`;
    context.textBaseline = "middle";
    boxes.forEach((box, k) => {
      fill(box);
      const rate = errors(box.node) / size(box.node);
      context.fillStyle = style("--code");
      context.fillRect(box.x + 1, box.y + 1, box.width - 2, box.height - 2);
      context.fillStyle = `rgb(${style("--wrong-rgb")} / ${(0.75 * rate).toFixed(2)})`;
      context.fillRect(box.x + 1, box.y + 1, box.width - 2, HEADER);
      context.fillStyle = style("--ink");
      context.save();
      context.beginPath();
      context.rect(box.x + 4, box.y, box.width - 8, HEADER + 2);
      context.clip();
      context.fillText(`${title(box.node).name} · ${size(box.node)} · ${Math.round(100 * rate)}% wrong`, box.x + 5, box.y + 10);
      context.restore();
      box.tiles.forEach(drawTile);
      context.lineWidth = k === chosen && document.activeElement === canvas ? 3 : 1;
      context.strokeStyle = k === chosen && document.activeElement === canvas ? style("--accent") : style("--line");
      context.strokeRect(box.x + 1, box.y + 1, box.width - 2, box.height - 2);
    });
  }

  function trail() {
    crumbs.replaceChildren(
      ...path.map((node, k) => {
        const item = document.createElement("li");
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = k ? `${title(node).name} (${size(node)})` : `all (${size(node)})`;
        if (k === path.length - 1) button.setAttribute("aria-current", "true");
        else button.addEventListener("click", () => open(path.slice(0, k + 1)));
        item.append(button);
        return item;
      }),
    );
  }

  function legend() {
    const entries = [];
    if (colour.value === "class") {
      data.classes.slice(0, 30).forEach((name, k) => entries.push([style(`--k${k % 10}`), name]));
    } else if (colour.value === "error") {
      entries.push([style("--wrong"), "wrong"]);
    } else {
      entries.push([`rgb(${style("--accent-rgb")} / .9)`, "hardly sure"], [`rgb(${style("--accent-rgb")} / .2)`, "quite sure"]);
    }
    key.replaceChildren(
      ...entries.map(([tint, name]) => {
        const item = document.createElement("li");
        const swatch = document.createElement("span");
        swatch.className = "swatch";
        swatch.style.background = tint;
        item.append(swatch, name);
        return item;
      }),
    );
  }

  function say(node) {
    status.textContent = describe(node);
  }

  function open(way) {
    path = way;
    at = way[way.length - 1];
    chosen = 0;
    tooltip.hidden = true;
    canvas.dataset.node = String(at);
    trail();
    draw();
    say(at);
  }

  function enter(k) {
    if (boxes[k] && boxes[k].node !== at) open([...path, boxes[k].node]);
  }

  function leave() {
    if (path.length > 1) open(path.slice(0, -1));
  }

  function find(event) {
    const frame = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    const k = boxes.findIndex((box) => x >= box.x && x < box.x + box.width && y >= box.y && y < box.y + box.height);
    const tile = k < 0 ? null : boxes[k].tiles.find((t) => x >= t.x && x < t.x + t.side && y >= t.y && y < t.y + t.side);
    return { k, tile, x, y };
  }

  canvas.addEventListener("click", (event) => {
    const { k } = find(event);
    if (k >= 0) enter(k);
  });
  canvas.addEventListener("pointermove", (event) => {
    const { k, tile } = find(event);
    tooltip.hidden = !tile;
    if (k >= 0) say(boxes[k].node);
    if (!tile) return;
    const i = tile.i;
    const right = data.label[i] === data.predicted[i];
    const sure = `${Math.round(100 * data.confidence[i])}% sure`;
    const verdict = right ? data.classes[data.label[i]] : `${data.classes[data.label[i]]}, taken for ${data.classes[data.predicted[i]]}`;
    tooltip.textContent = `${verdict} (${sure})\n${data.name[i]}`;
    const frame = card.getBoundingClientRect();
    tooltip.style.left = `${Math.min(event.clientX - frame.left + 12, Math.max(0, frame.width - tooltip.offsetWidth - 8))}px`;
    tooltip.style.top = `${event.clientY - frame.top + 14}px`;
  });
  canvas.addEventListener("pointerleave", () => (tooltip.hidden = true));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) {
      chosen = (chosen + step + boxes.length) % boxes.length;
      draw();
      say(boxes[chosen].node);
    } else if (event.key === "Enter" || event.key === " ") enter(chosen);
    else if (event.key === "Escape" || event.key === "Backspace") leave();
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("focus", draw);
  canvas.addEventListener("blur", draw);
  colour.addEventListener("change", () => {
    legend();
    draw();
  });
  addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    legend();
    draw();
  });
  for (const link of document.querySelectorAll("[data-open]")) {
    link.addEventListener("click", () => {
      colour.value = "error";
      legend();
      open([0, Number(link.dataset.open)]);
      canvas.scrollIntoView({ block: "center" });
      canvas.focus();
    });
  }

  const start = () => {
    legend();
    open([0]);
  };
  if (sheet.complete) start();
  else sheet.addEventListener("load", start);
})();
