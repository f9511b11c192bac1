// The glue of the page: hand declarations to DataTables and Vega, and follow the reader's colours. `DataTable` and
// `set_or_remove_dark_class` are imported above.
const colours = matchMedia("(prefers-color-scheme: dark)");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const json = (element) => JSON.parse(element.querySelector("script[type='application/json']").textContent);

set_or_remove_dark_class();

// Every table: pages, order and search; the box that scrolls sideways can be reached by keyboard.
function asDataTable(element, options) {
  const search = { search: { placeholder: "any word", text: "Search" } };
  const made = new DataTable(element, {
    autoWidth: false, deferRender: true, order: [], pageLength: 25, lengthMenu: [10, 25, 100, { label: "all", value: -1 }],
    layout: { topStart: search, topEnd: null, bottomStart: ["info", "pageLength"], bottomEnd: "paging" }, ...options,
  });
  const box = made.table().container().querySelector(".dt-layout-table .dt-layout-cell");
  Object.assign(box, { tabIndex: 0, role: "region", ariaLabel: element.dataset.label });
  return made;
}

// The claims: a list box filters the column that it names; a cell may hold several values, separated by commas.
for (const element of document.querySelectorAll("table[data-filtered]")) {
  const made = asDataTable(element, { columnDefs: [{ targets: "hidden", visible: false }] });
  const boxes = document.querySelectorAll(`select[data-filters="${element.id}"]`);
  const filter = () => {
    for (const box of boxes) {
      const chosen = box.value;
      made.column(`${box.name}:name`).search(chosen ? (cell) => cell.split(", ").includes(chosen) : "");
    }
    made.draw();
  };
  boxes.forEach((box) => box.addEventListener("change", filter));
}

// Numbered tables are built when they are opened, for they are long.
for (const box of document.querySelectorAll("details[data-table]")) {
  box.addEventListener("toggle", () => {
    const { columns, numeric, wide, rows } = json(box);
    asDataTable(box.querySelector("table"), {
      data: rows,
      columns: columns.map((title, i) => ({ title, type: numeric[i] ? "num" : "string", className: wide[i] ? "wide" : "narrow" })),
    });
  }, { once: true });
}

// One of several blocks, such as plans, is shown: the one that the list boxes name.
for (const group of document.querySelectorAll("[data-chooser]")) {
  const boxes = [...group.querySelectorAll("select")];
  const show = () => {
    const chosen = boxes.map((box) => box.value).join("|");
    group.querySelectorAll("[data-choice]").forEach((each) => { each.hidden = each.dataset.choice !== chosen; });
  };
  boxes.forEach((box) => box.addEventListener("change", show));
  show();
}

// The charts, in the colours of the page.
async function draw() {
  const [text, line] = [colour("--text"), colour("--line")];
  const config = {
    background: "transparent", font: "system-ui, sans-serif", view: { stroke: null }, text: { color: text },
    axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line, titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 13 },
    legend: { labelColor: text, labelFontSize: 12, symbolSize: 90 }, title: { color: text, fontSize: 13 }, aria: true,
  };
  for (const box of document.querySelectorAll("[data-chart]")) {
    const bind = box.querySelector(".pickers");
    bind.replaceChildren();
    const theme = colours.matches ? "dark" : "light";
    await vegaEmbed(box.querySelector(".drawing"), json(box), { actions: false, ast: true, bind, config, logLevel: 1, renderer: "svg", tooltip: { theme } });
  }
  document.documentElement.dataset.drawn = colours.matches ? "dark" : "light";
}
colours.addEventListener("change", draw);
draw();

// A link to what lies in a closed block opens it.
const open = () => document.getElementById(decodeURIComponent(location.hash.slice(1)))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", open);
open();
