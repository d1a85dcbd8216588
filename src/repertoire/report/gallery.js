"use strict";
// Sliders uncover the image under its maps. Without this script the maps are shown whole, beside the image.
(() => {
  const all = document.getElementById("all");
  const sliders = [...document.querySelectorAll(".slide input")];
  const cut = (slider) => slider.closest(".card").style.setProperty("--cut", slider.value);
  for (const slider of sliders) slider.addEventListener("input", () => cut(slider));
  function follow() {
    for (const slider of sliders) {
      slider.value = all.value;
      cut(slider);
    }
  }
  all.addEventListener("input", follow);
  // A browser may remember where the sliders were.
  for (const slider of sliders) cut(slider);
  for (const row of document.querySelectorAll(".all, .slide")) row.hidden = false;
})();
