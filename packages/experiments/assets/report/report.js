// The page of a sweep's report: tooltips of the charts' marks, tables sorted by a column, and the choice of a rank.
"use strict";
(() => {
  /** Shows the numbers of the mark that the pointer is at, or that was touched. */
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  document.body.append(tip);

  function show(event) {
    const mark = event.target.closest?.("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    mark.querySelector("title")?.remove(); // or the browser shows its own, too
    tip.textContent = mark.dataset.tip;
    const { left, top, width } = mark.getBoundingClientRect();
    const middle = left + width / 2 - tip.offsetWidth / 2;
    const most = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${scrollX + Math.max(8, Math.min(most, middle))}px`;
    tip.style.top = `${scrollY + top - tip.offsetHeight - 8}px`;
  }
  addEventListener("pointerover", show);
  addEventListener("pointerdown", show);

  /** The number that a cell begins with; text without one is sorted as text, after all numbers. */
  function keyOf(cell) {
    const text = cell.textContent.trim();
    const number = Number.parseFloat(text.replaceAll(",", ""));
    return { text, number: Number.isNaN(number) ? Infinity : number };
  }

  function sort(table, column, descending) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, key: keyOf(row.cells[column]) }));
    const order = descending ? -1 : 1;
    rows.sort(
      (a, b) => order * (a.key.number - b.key.number || a.key.text.localeCompare(b.key.text)) || 0,
    );
    body.append(...rows.map(({ row }) => row));
  }

  for (const table of document.querySelectorAll("table")) {
    if (table.tBodies[0].rows.length < 2) continue;
    for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
      const button = document.createElement("button");
      button.textContent = head.textContent;
      button.title = "Sort by this column";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const descending = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, column, descending);
      });
    }
  }

  const select = document.getElementById("rank");
  function choose() {
    for (const figure of document.querySelectorAll('[data-section="curves"] .chart'))
      figure.hidden = figure.dataset.rank !== select.value;
  }
  select.addEventListener("change", choose);
  choose();
})();
