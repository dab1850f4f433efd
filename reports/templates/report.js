"use strict";
/* The filter over the table of findings. */
(() => {
  const filter = document.getElementById("filter");
  if (!filter) return;
  filter.hidden = false;
  filter.addEventListener("change", () => {
    const shown = new Set([...filter.querySelectorAll("input:checked")].map(box => box.value));
    document.querySelectorAll("#findings-table tbody tr").forEach(row => { row.hidden = !shown.has(row.dataset.outcome); });
  });
})();
