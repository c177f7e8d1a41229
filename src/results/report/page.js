// Sorting, and what a variant is wherever it is pointed at. Nothing is needed from it to read the page.
const tip = document.getElementById("tip");

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const column = heading.cellIndex;
    const up = heading.getAttribute("aria-sort") !== "ascending";
    const body = heading.closest("table").tBodies[0];
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what has no value stays last
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, "en", { numeric: true }) : x - y;
      return up ? order : -order;
    };
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...[...body.rows].sort(compare));
  });
}

function point(element, x, y) {
  const scope = element.closest("[data-training]");
  const name = element.dataset.variant;
  const same = [...scope.querySelectorAll("[data-variant]")].filter((other) => other.dataset.variant === name);
  scope.classList.add("pointing");
  same.forEach((other) => other.classList.add("here"));
  const row = same.find((other) => other.dataset.tip);
  if (!row || element === row) return;
  tip.textContent = row.dataset.tip;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? Math.max(4, y - height - 12) : y + 18}px`;
}

function leave() {
  tip.hidden = true;
  document.querySelectorAll(".pointing").forEach((scope) => scope.classList.remove("pointing"));
  document.querySelectorAll(".here").forEach((element) => element.classList.remove("here"));
}

addEventListener("pointerover", (event) => {
  leave();
  const element = event.target.closest?.("[data-variant]");
  if (element) point(element, event.clientX, event.clientY);
});
addEventListener("scroll", leave, { passive: true });
