"use strict";
// What the reader chooses: the order of the table, the measure and the pair that are shown.

/** Sort the rows of a table by one column; those without a value stay last. */
function sortBy(table, column, direction) {
  const body = table.tBodies[0];
  const value = (row) => row.cells[column].dataset.value;
  const compared = (one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = column ? Number(a) - Number(b) : a.localeCompare(b);
    return direction === "ascending" ? order : -order;
  };
  body.append(...[...body.rows].sort(compared));
}

function startSorting(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      headings.forEach((each) => each.setAttribute("aria-sort", each === heading ? direction : "none"));
      sortBy(table, column, direction);
    });
  });
}

/** Show what belongs to the chosen measure and pair alone. */
function showChosen() {
  const [metric, pair] = ["metric", "pair"].map((id) => document.getElementById(id)?.value);
  for (const element of document.querySelectorAll("[data-metric]"))
    element.hidden = element.dataset.metric !== metric || (pair !== undefined && (element.dataset.pair ?? pair) !== pair);
}

document.querySelectorAll("table.sortable").forEach(startSorting);
for (const id of ["metric", "pair"]) document.getElementById(id)?.addEventListener("change", showChosen);
showChosen();
startBodies(JSON.parse(document.getElementById("bodies").textContent));
document.documentElement.dataset.ready = "yes";
