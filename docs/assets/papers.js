/* Search and filters over the table of papers. The rows are the data; without this script the whole table is shown. */
(function () {
  "use strict";
  const form = document.getElementById("paper-filters");
  const count = document.getElementById("paper-count");
  const rows = Array.from(document.querySelectorAll("#paper-table tbody tr"));
  const texts = rows.map((row) => (row.textContent + " " + row.dataset.words).toLowerCase());

  function apply() {
    const family = form.family.value;
    const status = form.status.value;
    const words = form.text.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      const fits =
        (!family || row.dataset.family === family) &&
        (!status || row.dataset.status === status) &&
        words.every((word) => texts[i].includes(word));
      row.hidden = !fits;
      if (fits) shown += 1;
    });
    count.textContent = shown === rows.length ? shown + " papers" : shown + " of " + rows.length + " papers";
  }

  /* The address holds the choice, so that it can be linked to: #family=ssl&status=built&text=few+labels */
  function read() {
    const chosen = new URLSearchParams(location.hash.slice(1));
    for (const name of ["text", "family", "status"]) form[name].value = chosen.get(name) || "";
    apply();
  }

  function write() {
    const chosen = new URLSearchParams();
    for (const name of ["text", "family", "status"]) if (form[name].value) chosen.set(name, form[name].value);
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
