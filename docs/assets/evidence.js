/* Filters over the table of evidence. The rows are the data; without this script the whole table is shown. */
(function () {
  "use strict";
  const form = document.getElementById("evidence-filters");
  const rows = Array.from(document.querySelectorAll("#evidence-table tbody tr"));
  const names = Array.from(form.querySelectorAll("select"), (select) => select.name);

  function apply() {
    for (const row of rows) row.hidden = names.some((name) => form[name].value && row.dataset[name] !== form[name].value);
  }

  /* The address holds the choice, so that it can be linked to: #verdict=holds&tier=toy */
  function read() {
    const chosen = new URLSearchParams(location.hash.slice(1));
    for (const name of names) form[name].value = chosen.get(name) || "";
    apply();
  }

  function write() {
    const chosen = new URLSearchParams();
    for (const name of names) if (form[name].value) chosen.set(name, form[name].value);
    const hash = chosen.toString();
    history.replaceState(null, "", hash ? "#" + hash : location.pathname);
    apply();
  }

  form.addEventListener("input", write);
  form.addEventListener("reset", () => setTimeout(write));
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", read);
  form.hidden = false;
  read();
})();
