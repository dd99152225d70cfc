"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
const boxes = [...document.querySelectorAll("[data-condition]")];
const DASHES = ["solid", "dash", "dot", "dashdot"];

const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
const line = () => getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
const isDark = () => document.documentElement.dataset.theme === "dark";
const ON_DARK = { black: "#e8e8e8", blue: "#7a96ff", "#0072B2": "#3fa9f5", "#4D4D4D": "#b0b0b0" };
const ON_LIGHT = { black: "#000000", blue: "#0000ff", magenta: "#ff00ff" };
const colour = (i) => (isDark() ? { ...ON_LIGHT, ...ON_DARK } : ON_LIGHT)[data.conditions[i].colour] || data.conditions[i].colour;
const chosen = () => boxes.flatMap((box, i) => (box.checked ? [i] : []));

function option(select, value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  select.append(element);
}

function faded(hex, alpha) {
  const parts = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return `rgba(${parts.join(",")},${alpha})`;
}

const LEGEND = 16;

function layout(yTitle, logX, logY, extra, named) {
  const axis = { gridcolor: line(), zerolinecolor: line(), linecolor: line(), color: ink() };
  const narrow = window.innerWidth < 600;
  return {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { color: ink(), size: 12 },
    margin: { l: narrow ? 48 : 64, r: 12, t: 12, b: 48 }, hovermode: "closest",
    showlegend: named <= LEGEND, legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0, font: { size: narrow ? 10 : 12 } },
    xaxis: { ...axis, title: { text: "training examples" }, type: logX ? "log" : "linear" },
    yaxis: { ...axis, title: { text: yTitle }, type: logY ? "log" : "linear", ...extra },
  };
}

const settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

/* The traces of one curve: its band, its seeds, its mean. */
function traces(i, metric, name, shade, dash, withBand, withSeeds) {
  const condition = data.conditions[i];
  const curve = condition.metrics[metric];
  if (!curve) return [];
  const x = condition.examples, traced = [];
  const hover = `${name}<br>%{x} examples: %{y}<extra></extra>`;
  if (withBand && curve.low) {
    const inside = x.map((_, k) => k).filter((k) => curve.low[k] !== null && curve.high[k] !== null);
    traced.push({
      x: [...inside.map((k) => x[k]), ...inside.map((k) => x[k]).reverse()],
      y: [...inside.map((k) => curve.high[k]), ...inside.map((k) => curve.low[k]).reverse()],
      fill: "toself", fillcolor: faded(shade, 0.18), line: { width: 0 }, hoverinfo: "skip", mode: "lines", showlegend: false,
    });
  }
  if (withSeeds && curve.seeds) {
    for (const [seed, y] of curve.seeds.entries()) {
      traced.push({
        x, y, mode: "lines", showlegend: false, line: { width: 0.8, color: faded(shade, 0.55), dash },
        hovertemplate: `${name}, seed ${condition.seeds[seed]}<br>%{x} examples: %{y}<extra></extra>`,
      });
    }
  }
  traced.push({ x, y: curve.mean, mode: "lines", line: { width: 2, color: shade, dash }, name, hovertemplate: hover });
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
  Plotly.react("curve-plot", shown, layout(data.axes[metric], by("log-x").checked, by("log-y").checked, range(metric), chosen().length), settings);
}

function drawAngles() {
  if (!by("angle")) return;
  const kind = by("angle").value, [what, which] = by("angle-of").value.split(":");
  const layers = data.angles[kind];
  let shown;
  if (what === "layer") {
    shown = chosen().flatMap((i) =>
      traces(i, `${kind}_${which}`, data.conditions[i].name, colour(i), data.conditions[i].dash, true, false));
  } else {
    shown = layers.flatMap((layer, k) => {
      const hue = Math.round(255 * (layers.length > 1 ? k / (layers.length - 1) : 0));
      const shade = `#${[hue, 110, 255 - hue].map((v) => v.toString(16).padStart(2, "0")).join("")}`;
      return traces(Number(which), `${kind}_${layer}`, `layer ${layer}`, shade, DASHES[layers.length > 4 ? 0 : k], true, false);
    });
  }
  Plotly.react("angle-plot", shown, layout("degrees", by("log-x").checked, false, { rangemode: "tozero" }, what === "layer" ? chosen().length : layers.length), settings);
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
  drawCurves();
  drawAngles();
}

function pickMetric() {
  by("log-y").checked = data.logarithmic.includes(by("metric").value);
  drawCurves();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  by("theme").textContent = isDark() ? "light" : "dark";
  draw();
}

function choose(which) {
  boxes.forEach((box, i) => (box.checked = which === "all" || (which === "best" && data.best.includes(i))));
  draw();
}

for (const metric of data.metrics) option(by("metric"), metric, metric);
by("metric").value = data.main;
by("log-x").checked = data.log_x;
by("log-y").checked = data.logarithmic.includes(data.main);
if (by("angle")) {
  for (const kind of Object.keys(data.angles)) option(by("angle"), kind, kind.replace("_", " "));
  fillAngles();
  by("angle").addEventListener("change", () => { fillAngles(); drawAngles(); });
  by("angle-of").addEventListener("change", drawAngles);
}
by("metric").addEventListener("change", pickMetric);
for (const id of ["log-x", "log-y", "bands", "seeds"]) by(id).addEventListener("change", () => { drawCurves(); drawAngles(); });
boxes.forEach((box) => box.addEventListener("change", draw));
document.querySelectorAll("[data-choose]").forEach((one) => one.addEventListener("click", () => choose(one.dataset.choose)));
by("theme").addEventListener("click", () => theme(isDark() ? "light" : "dark"));
boxes.forEach((box, i) => (box.checked = data.best.includes(i)));
theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
