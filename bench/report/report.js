"use strict";
(() => {
  const table = document.querySelector("table.results");
  const body = table && table.tBodies[0];

  // Sorting: the baseline stays on top, failed variants and missing figures at the end.
  const number = (row, column) => {
    const cell = row.cells[column];
    return cell && cell.dataset.sort !== undefined ? Number(cell.dataset.sort) : null;
  };
  const compare = (column, sign) => (one, other) => {
    const a = number(one, column), b = number(other, column);
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (a - b);
  };
  const sort = (heading) => {
    const column = Number(heading.dataset.column);
    const first = heading.dataset.best === "high" ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const order = heading.getAttribute("aria-sort") === first ? second : first;
    table.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", order);
    const rows = [...body.rows];
    const pinned = (row) => (row.dataset.pin === "top" ? -1 : row.dataset.pin === "bottom" ? 1 : 0);
    const by = compare(column, order === "ascending" ? 1 : -1);
    rows.sort((one, other) => pinned(one) - pinned(other) || by(one, other));
    body.append(...rows);
  };
  if (table) {
    table.querySelectorAll("th[data-column]").forEach((heading) => {
      heading.addEventListener("click", () => sort(heading));  // the word in it is a button, for keys
    });
  }

  // Pointing at a variant anywhere lights it up in every picture.
  const light = (name) => {
    document.body.classList.toggle("focus", Boolean(name));
    document.querySelectorAll(".plot [data-variant]").forEach((part) => {
      part.classList.toggle("lit", part.dataset.variant === name);
    });
  };
  document.querySelectorAll("[data-variant]").forEach((part) => {
    part.addEventListener("mouseenter", () => light(part.dataset.variant));
    part.addEventListener("mouseleave", () => light(null));
  });
})();
