"use strict";
// The map's points say who they are under the pointer, and its legend picks out classes. Without this script the
// browser shows each point's title instead, and everything else works.
(() => {
  const map = document.querySelector("svg.map");
  if (!map) return;
  const card = map.closest("figure");
  const tooltip = card.querySelector(".tooltip");
  const hints = new WeakMap();
  const points = [...map.querySelectorAll(".point")];
  for (const point of points) {
    const title = point.querySelector("title");
    hints.set(point, title.textContent);
    title.remove();
  }

  let shown = null;
  function show(point) {
    if (point === shown) return;
    if (shown) shown.classList.remove("near");
    shown = point;
    tooltip.hidden = !point;
    if (!point) return;
    point.classList.add("near");
    tooltip.textContent = hints.get(point);
    const frame = card.getBoundingClientRect();
    const spot = point.getBoundingClientRect();
    const left = spot.left - frame.left + 14;
    const most = Math.max(0, frame.width - tooltip.offsetWidth - 8);
    tooltip.style.left = `${Math.min(left, most)}px`;
    tooltip.style.top = `${spot.bottom - frame.top + 6}px`;
  }

  function nearest(event) {
    const box = map.getBoundingClientRect();
    const scale = map.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale;
    const y = (event.clientY - box.top) * scale;
    let best = null;
    let least = (14 * Math.max(scale, 1)) ** 2;
    for (const point of points) {
      if (point.parentNode.classList.contains("faded")) continue;
      const { e, f } = point.transform.baseVal[0].matrix;
      const distance = (e - x) ** 2 + (f - y) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }

  map.addEventListener("pointermove", (event) => show(nearest(event)));
  map.addEventListener("pointerdown", (event) => show(nearest(event)));
  map.addEventListener("pointerleave", () => show(null));
  document.addEventListener("keydown", (event) => event.key === "Escape" && show(null));

  const buttons = [...card.querySelectorAll(".legend button")];
  const chosen = new Set();
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const name = button.dataset.class;
      if (!chosen.delete(name)) chosen.add(name);
      button.setAttribute("aria-pressed", String(chosen.has(name)));
      for (const part of map.querySelectorAll("[data-class]")) {
        part.classList.toggle("faded", chosen.size > 0 && !chosen.has(part.dataset.class));
      }
    });
  }
})();
