"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
const boxes = [...document.querySelectorAll("[data-condition]")];
const DASHES = ["solid", "dash", "dot", "dashdot"];

const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
const line = () => getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
const isDark = () => document.documentElement.dataset.theme === "dark";
const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
const hex = (parts) => `#${parts.map((v) => Math.round(v).toString(16).padStart(2, "0")).join("")}`;

/* A colour as it is readable on the page: on dark paper, greys are inverted and dark colours lightened. */
function readable(colour) {
  const parts = rgb(colour), [most, least] = [Math.max(...parts), Math.min(...parts)];
  if (!isDark()) return colour;
  if (most - least < 12) return hex(parts.map((v) => 232 - 0.72 * v));
  return most < 215 ? hex(parts.map((v) => v + 0.45 * (255 - v))) : colour;
}
const colour = (i) => readable(data.conditions[i].colour);
const chosen = () => boxes.flatMap((box, i) => (box.checked ? [i] : []));

function option(select, value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  select.append(element);
}

const faded = (shade, alpha) => `rgba(${rgb(shade).join(",")},${alpha})`;

const LEGEND = 24;

/* The legend below a plot: a line for each curve; if there are many, none, since hovering names them. */
function legend(id, entries) {
  const many = entries.length > LEGEND;
  by(id).textContent = many ? `${entries.length} curves; hovering names them, and the table of scores shows their colours.` : "";
  for (const [name, shade, dash] of many ? [] : entries) {
    const entry = document.createElement("span"), sample = document.createElement("i");
    sample.style.borderTop = `3px ${{ solid: "solid", dash: "dashed", dot: "dotted", dashdot: "dashed" }[dash]} ${shade}`;
    entry.append(sample, name);
    by(id).append(entry);
  }
}

function layout(xTitle, yTitle, logX, logY, extra) {
  const axis = { gridcolor: line(), zerolinecolor: line(), linecolor: line(), color: ink() };
  const narrow = window.innerWidth < 600;
  return {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { color: ink(), size: 12 },
    margin: { l: narrow ? 48 : 64, r: 12, t: 12, b: 48 }, hovermode: "closest",
    showlegend: false,
    xaxis: { ...axis, title: { text: xTitle }, type: logX ? "log" : "linear" },
    yaxis: { ...axis, title: { text: yTitle }, type: logY ? "log" : "linear", ...extra },
  };
}

const settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

/* The traces of one curve: its band, its seeds, its mean. */
function traces(i, metric, name, shade, dash, withBand, withSeeds) {
  const condition = data.conditions[i];
  const curve = condition.metrics[metric];
  if (!curve) return [];
  const over = by("axis").value, logX = by("log-x").checked, traced = [];
  /* On a logarithmic axis there is no 0, to the left of which Plotly would go on with a flat line. */
  const points = condition[over].map((_, k) => k).filter((k) => !logX || condition[over][k] > 0);
  const at = (values) => points.map((k) => values[k]), x = at(condition[over]);
  const hover = `${name}<br>%{x} ${over}: %{y}<extra></extra>`;
  if (withBand && curve.low) {
    const inside = points.filter((k) => curve.low[k] !== null && curve.high[k] !== null);
    const places = inside.map((k) => condition[over][k]);
    traced.push({
      x: [...places, ...[...places].reverse()],
      y: [...inside.map((k) => curve.high[k]), ...inside.map((k) => curve.low[k]).reverse()],
      fill: "toself", fillcolor: faded(shade, 0.18), line: { width: 0 }, hoverinfo: "skip", mode: "lines", showlegend: false,
    });
  }
  if ((withSeeds || (withBand && !curve.low)) && curve.seeds) {
    for (const [seed, y] of curve.seeds.entries()) {
      traced.push({
        x, y: at(y), mode: "lines", showlegend: false, line: { width: 0.8, color: faded(shade, 0.45) },
        hovertemplate: `${name}, seed ${condition.seeds[seed]}<br>%{x} ${over}: %{y}<extra></extra>`,
      });
    }
  }
  traced.push({
    x, y: at(curve.mean), mode: "lines+markers", line: { width: 2, color: shade, dash }, name, hovertemplate: hover,
    marker: { symbol: condition.symbol, size: 7, maxdisplayed: 7, color: shade },
  });
  const marked = points.filter((k) => (curve.marked || []).includes(k));
  if (marked.length) traced.push({
    x: marked.map((k) => condition[over][k]), y: marked.map((k) => curve.mean[k]), mode: "markers", showlegend: false,
    marker: { symbol: "x-thin", size: 9, line: { width: 2, color: shade } }, hovertemplate: `${name}, marked<br>%{x} ${over}: %{y}<extra></extra>`,
  });
  return traced;
}

/* The axis range: up to a quarter above the largest mean after the first tenth, within the bounds of the metric. */
function range(metric) {
  if (by("log-y").checked) return {};
  const later = chosen().flatMap((i) => {
    const mean = (data.conditions[i].metrics[metric] || { mean: [] }).mean;
    return mean.slice(Math.floor(mean.length / 10) + 1).filter((v) => v !== null);
  });
  const most = later.reduce((a, b) => Math.max(a, b), 0);
  if (most <= 0 || later.some((v) => v < 0)) return {};
  const bound = data.bounds[metric][1];
  return { range: [0, bound === null ? 1.25 * most : Math.min(bound, 1.25 * most)] };
}

function drawCurves() {
  const metric = by("metric").value;
  const shown = chosen().flatMap((i) =>
    traces(i, metric, data.conditions[i].name, colour(i), data.conditions[i].dash, by("bands").checked, by("seeds").checked));
  Plotly.react("curve-plot", shown, layout(overTitle(), data.axes[metric], by("log-x").checked, by("log-y").checked, range(metric)), settings);
  legend("curve-legend", chosen().filter((i) => data.conditions[i].metrics[metric]).map((i) => [data.conditions[i].name, colour(i), data.conditions[i].dash]));
}

const overTitle = () => by("axis").selectedOptions[0].textContent;

/* The metric at the end against the swept number, of all rules. */
function drawRates() {
  data.rates.forEach((rates, k) => {
    const id = `rate-plot-${k}`;
    if (!by(id)) {
      const [plot, below, title] = [document.createElement("div"), document.createElement("div"), document.createElement("h3")];
      Object.assign(plot, { id, className: "plot" });
      Object.assign(below, { id: `${id}-legend`, className: "legend" });
      title.textContent = rates.title;
      by("rate-plots").append(title, plot, below);
    }
    const shown = rates.lines.flatMap((one) => {
      const shade = readable(one.colour), marker = { symbol: one.symbol, size: 8, color: shade };
      const spread = one.low.length ? { error_y: {
        type: "data", symmetric: false, color: shade, thickness: 1, width: 0,
        array: one.high.map((v, i) => v - one.mean[i]), arrayminus: one.low.map((v, i) => one.mean[i] - v),
      } } : {};
      const traced = [{
        x: one.x, y: one.mean, mode: "lines+markers", name: one.name, marker, line: { width: 2, color: shade, dash: one.dash },
        hovertemplate: `${one.name}<br>%{x}: %{y}<extra></extra>`, ...spread,
      }];
      if (one.chosen !== null) traced.push({
        x: [one.x[one.chosen]], y: [one.mean[one.chosen]], mode: "markers", hoverinfo: "skip",
        marker: { symbol: "circle-open", size: 16, color: shade, line: { width: 2 } },
      });
      return traced;
    });
    const log = data.logarithmic.includes(rates.metric);
    Plotly.react(id, shown, layout(rates.axis, data.axes[rates.metric] || rates.metric, rates.log_x, log, log ? {} : { rangemode: "tozero" }), settings);
    legend(`${id}-legend`, rates.lines.map((one) => [one.name, readable(one.colour), one.dash]));
  });
}

/* Grey bands for random signals, of an example and of the mean, the widest of all curves that are shown. */
function randomBands(curves) {
  const found = curves.filter((curve) => curve && curve.random).map((curve) => curve.random);
  if (!found.length) return {};
  const shapes = [1, 2].map((k) => Math.max(...found.map((random) => random[k]))).map((half) => ({
    type: "rect", xref: "paper", x0: 0, x1: 1, y0: found[0][0] - half, y1: found[0][0] + half,
    fillcolor: "rgba(128,128,128,0.18)", line: { width: 0 }, layer: "below",
  }));
  return { shapes };
}

function drawAngles() {
  if (!by("angle")) return;
  const kind = by("angle").value, [what, which] = by("angle-of").value.split(":");
  const layers = data.angles[kind];
  let shown, compared;
  if (what === "layer") {
    compared = chosen().map((i) => data.conditions[i].metrics[`${kind}_${which}`]);
    shown = chosen().flatMap((i) =>
      traces(i, `${kind}_${which}`, data.conditions[i].name, colour(i), data.conditions[i].dash, true, false));
  } else {
    compared = layers.map((layer) => data.conditions[Number(which)].metrics[`${kind}_${layer}`]);
    shown = layers.flatMap((layer, k) => {
      const hue = Math.round(255 * (layers.length > 1 ? k / (layers.length - 1) : 0));
      const shade = `#${[hue, 110, 255 - hue].map((v) => v.toString(16).padStart(2, "0")).join("")}`;
      return traces(Number(which), `${kind}_${layer}`, `layer ${layer}`, shade, DASHES[layers.length > 4 ? 0 : k], true, false);
    });
  }
  const axes = layout(overTitle(), "degrees", by("log-x").checked, false, { rangemode: "tozero" });
  Plotly.react("angle-plot", shown, { ...axes, ...randomBands(compared) }, settings);
  legend("angle-legend", shown.filter((one) => one.name).map((one) => [one.name, one.line.color, one.line.dash]));
}

function fillAngles() {
  const before = by("angle-of").value, layers = data.angles[by("angle").value];
  by("angle-of").replaceChildren();
  for (const layer of layers) option(by("angle-of"), `layer:${layer}`, `layer ${layer} of all chosen`);
  data.conditions.forEach((one, i) => {
    if (layers.some((layer) => one.metrics[`${by("angle").value}_${layer}`])) option(by("angle-of"), `condition:${i}`, `all layers of ${one.name}`);
  });
  if ([...by("angle-of").options].some((one) => one.value === before)) by("angle-of").value = before;
}

function draw() {
  boxes.forEach((box, i) => {
    box.parentElement.querySelector(".swatch").style.background = box.checked ? colour(i) : "transparent";
  });
  document.querySelectorAll("[data-rule]").forEach((one) => {
    const checked = boxes.filter((_, i) => data.conditions[i].rule === one.dataset.rule).map((box) => box.checked);
    one.setAttribute("aria-pressed", checked.every(Boolean) ? "true" : checked.some(Boolean) ? "mixed" : "false");
  });
  drawCurves();
  drawAngles();
}

/* A button for each rule, which shows or hides all of its conditions. */
function fillRules() {
  const rules = [...new Set(data.conditions.map((one) => one.rule))];
  if (rules.length < 2 || rules.length === data.conditions.length) return;
  for (const rule of rules) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.rule = button.textContent = rule;
    button.addEventListener("click", () => {
      const shows = button.getAttribute("aria-pressed") !== "true";
      data.conditions.forEach((condition, i) => { if (condition.rule === rule) boxes[i].checked = shows; });
      draw();
    });
    by("rules").append(button);
  }
}

/* The number that a cell begins with, or NaN. */
function numberOf(text) {
  const found = text.trim().replace(/−/g, "-").replace(/,/g, "").match(/^[<>+×\s]*(-?\d+\.?\d*(?:e[+-]?\d+)?)/);
  return found ? Number(found[1]) : NaN;
}

function sortBy(table, column) {
  const head = table.tHead.rows[0].cells[column], body = table.tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
  const keyed = [...body.rows].map((row) => [row.cells[column].textContent.trim(), row]);
  const numeric = keyed.some(([text]) => !Number.isNaN(numberOf(text))) && column > 0;
  const order = ([a], [b]) => {
    if (!numeric) return sign * a.localeCompare(b, undefined, { numeric: true });
    const [x, y] = [numberOf(a), numberOf(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? Number.isNaN(x) - Number.isNaN(y) : sign * (x - y);
  };
  body.append(...keyed.sort(order).map(([, row]) => row));
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...cell.childNodes);
    button.addEventListener("click", () => sortBy(table, column));
    cell.replaceChildren(button);
  });
}

/* On a narrow screen each row is a card, whose cells need the headings of their columns. */
function labelCells() {
  if (!narrow.matches) return;
  for (const table of document.querySelectorAll("table.sortable:not(.labelled)")) {
    const headings = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, i) => { cell.dataset.heading = headings[i]; });
    table.classList.add("labelled");
  }
}
const narrow = matchMedia("(max-width: 600px)");

function pickMetric() {
  by("log-y").checked = data.logarithmic.includes(by("metric").value);
  drawCurves();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  by("theme").textContent = isDark() ? "light" : "dark";
  draw();
  drawRates();
}

function choose(which) {
  boxes.forEach((box, i) => (box.checked = which === "all" || (which === "first" && data.first.includes(i))));
  draw();
}

for (const metric of data.metrics) option(by("metric"), metric, metric);
by("metric").value = data.main;
by("axis").value = data.axis;
by("log-x").checked = data.log_x;
by("log-y").checked = data.logarithmic.includes(data.main);
if (by("angle")) {
  for (const kind of Object.keys(data.angles)) option(by("angle"), kind, kind.replace("_", " "));
  fillAngles();
  if (data.layer !== null) by("angle-of").value = `layer:${data.layer}`;
  by("angle").addEventListener("change", () => { fillAngles(); drawAngles(); });
  by("angle-of").addEventListener("change", drawAngles);
}
by("metric").addEventListener("change", pickMetric);
for (const id of ["axis", "log-x", "log-y", "bands", "seeds"]) by(id).addEventListener("change", () => { drawCurves(); drawAngles(); });
boxes.forEach((box) => box.addEventListener("change", draw));
document.querySelectorAll("[data-choose]").forEach((one) => one.addEventListener("click", () => choose(one.dataset.choose)));
by("theme").addEventListener("click", () => theme(isDark() ? "light" : "dark"));
boxes.forEach((box, i) => (box.checked = data.first.includes(i)));
fillRules();
document.querySelectorAll("table.sortable").forEach(makeSortable);
labelCells();
narrow.addEventListener("change", labelCells);
theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
