// Curves with bands on a logarithmic axis, and bars, as plain SVG.
const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8a6d00"];
const FRAME = { wide: 520, high: 300, left: 54, right: 12, top: 26, bottom: 42 };
const MODES = { remove: ["Removed", "share of attention entries edited"], keep: ["Only these kept", "share of attention entries left alone"] };

const shareText = (share) => `${Number((100 * share).toPrecision(2))}%`;

// What ablating everything does to a direction may be nothing, so its curves are no shares of it.
const IN_NUMBERS = "toward";
X.effectText = (value, metric) => {
  if (metric !== IN_NUMBERS) return X.percent(value);
  return `${value >= 0 ? "+" : "−"}${Number(Math.abs(value).toPrecision(3))}`;
};

// A fall in words: below zero it is a rise.
X.moved = (fall, what, several = false) => `${fall < 0 ? "raise" : "lower"}${several ? "" : "s"} ${what} by ${Number(Math.abs(fall).toPrecision(3))}`;

const movedName = (name, value) => (value < 0 ? name.replace(/^fall of/, "rise of").replace(/^loss of/, "gain of") : name);

const niceStep = (span) => {
  const power = 10 ** Math.floor(Math.log10(span / 4));
  return [1, 2, 5, 10].find((part) => part * power >= span / 4) * power;
};

const axes = (low, high, shares, title, under, metric) => {
  const { wide, high: tall, left, right, top, bottom } = FRAME;
  const start = Math.log10(Math.min(...shares));
  const x = (share) => left + ((Math.log10(share) - start) / (0 - start || 1)) * (wide - left - right);
  const y = (value) => tall - bottom - ((value - low) / (high - low)) * (tall - top - bottom);
  const parts = [X.svg("text", { class: "chart-text", x: left, y: 16 }, title)];
  const share = high - low > 2.5 ? 1 : high - low > 1.2 ? 0.5 : 0.25;
  const step = metric === IN_NUMBERS ? niceStep(high - low) : share;
  for (let value = Math.ceil(low / step) * step; value <= high + 1e-9; value += step) {
    parts.push(X.svg("line", { class: "chart-grid", x1: left, x2: wide - right, y1: y(value), y2: y(value) }),
      X.svg("text", { class: "chart-soft", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, metric === IN_NUMBERS ? Number(value.toPrecision(2)) : `${Math.round(100 * value)}%`));
  }
  for (let power = Math.ceil(start - 1e-9); power <= 0; power++) {
    parts.push(X.svg("text", { class: "chart-soft", x: x(10 ** power), y: tall - bottom + 16, "text-anchor": power === 0 ? "end" : "middle" }, shareText(10 ** power)));
  }
  parts.push(X.svg("text", { class: "chart-soft", x: (left + wide - right) / 2, y: tall - 6, "text-anchor": "middle" }, under));
  return { x, y, parts };
};

X.atShare = (curve, share) => {
  const { shares, fractions } = curve;
  if (share <= shares[0]) return (fractions[0] * share) / shares[0];
  for (let at = 1; at < shares.length; at++) {
    if (share > shares[at]) continue;
    const part = Math.log(share / shares[at - 1]) / Math.log(shares[at] / shares[at - 1]);
    return fractions[at - 1] + part * (fractions[at] - fractions[at - 1]);
  }
  return fractions[fractions.length - 1];
};

X.chart = (mode, curves, band) => {
  const every = [...curves.flatMap((curve) => curve.fractions), ...(band ? [...band.low, ...band.high] : [])];
  const shares = curves.concat(band || []).flatMap((curve) => curve.shares);
  const { metric } = curves[0];
  const span = 1.05 * (Math.max(0, ...every) - Math.min(0, ...every)) || 1;
  const [low, high] = metric === IN_NUMBERS ? [Math.max(0, ...every) - span, Math.min(0, ...every) + span]
    : [Math.max(-3, Math.min(0, ...every)), Math.min(4, Math.max(1.03, ...every))];
  const { x, y, parts } = axes(low, high, shares, MODES[mode][0], MODES[mode][1], metric);
  const line = (curve) => curve.shares.map((share, at) => `${at ? "L" : "M"}${x(share).toFixed(1)},${y(curve.fractions[at]).toFixed(1)}`).join("");
  if (band) {
    const up = band.shares.map((share, at) => `${at ? "L" : "M"}${x(share)},${y(band.high[at])}`);
    const down = band.shares.map((share, at) => `L${x(share)},${y(band.low[at])}`).reverse();
    parts.push(X.svg("path", { class: "chart-band", d: `${[...up, ...down].join("")}Z` }), X.svg("path", { class: "chart-random", d: line(band) }));
  }
  // Past the title, which a narrow page draws larger.
  let legend = FRAME.left + 128;
  curves.forEach((curve) => {
    const colour = COLOURS[curve.colour % COLOURS.length];
    parts.push(X.svg("path", { d: line(curve), fill: "none", stroke: colour, "stroke-width": 2 }));
    curve.shares.forEach((share, point) => parts.push(X.svg("circle", { cx: x(share), cy: y(curve.fractions[point]), r: 3.5, fill: colour },
      X.svg("title", {}, `${curve.name}: ${X.effectText(curve.fractions[point], metric)} at ${shareText(share)} (${curve.edges?.[point] ?? "?"} edges)`))));
    parts.push(X.svg("rect", { x: legend, y: 7, width: 10, height: 10, rx: 2, fill: colour }),
      X.svg("text", { class: "chart-soft", x: legend + 14, y: 16 }, curve.name));
    legend += 26 + 6 * curve.name.length;
  });
  return X.svg("svg", { viewBox: `0 0 ${FRAME.wide} ${FRAME.high}`, role: "img", "aria-label": `${MODES[mode][0]}: curves of ${curves.map((c) => c.name).join(", ")}; the table below has the numbers` }, parts);
};

const figures = [["area_log", "area, log"], ["area_linear", "area, linear"], ["cpr", "CPR"], ["cmd", "CMD"], ["cpr_log", "CPR, log"], ["cmd_log", "CMD, log"]];

X.tableOf = (measured, metric) => {
  const rows = [...measured.curves, ...measured.random.map((band) => ({ ...band, name: "random" }))].filter((curve) => curve.metric === metric);
  const used = figures.filter(([key]) => rows.some((row) => row[key] !== undefined));
  const head = ["ranking", "mode", "at 1%", "at 10%", ...used.map(([, title]) => title)];
  const table = X.byId("curve-table");
  table.tHead.replaceChildren(X.el("tr", {}, head.map((title) => X.el("th", { scope: "col" }, title))));
  table.tBodies[0].replaceChildren(...rows.map((row) => X.el("tr", {}, X.el("th", { scope: "row" }, row.name),
    [row.mode, ...[0.01, 0.1].map((share) => X.effectText(X.atShare(row, share), metric)), ...used.map(([key]) => (row[key] === undefined ? "" : metric === IN_NUMBERS ? row[key].toPrecision(2) : row[key].toFixed(3)))].map((cell) => X.el("td", {}, cell)))));
};

const wholeSaid = ({ completeness: whole, objective, full }) => {
  if (!whole) return "";
  const all = full[IN_NUMBERS];
  const does = objective ? X.moved(whole.removed * all, objective) : `does ${X.percent(whole.removed)} of the full effect`;
  // Edges for and against a direction undo one another: their sum has no test.
  const others = objective ? X.moved(whole.random_mean * all, "it", true) : `${X.percent(whole.random_mean)} (p = ${X.probability(whole.pvalue)})`;
  const random = whole.random_mean === null ? "" : `, random edges ${others}`;
  return ` The circuit's ${whole.edges} edges cover ${X.percent(whole.share, 2)} of the entries: removing them ${does}${random}.`;
};

X.startCurves = () => {
  X.calibration();
  const [pickRun, pickMetric] = [X.byId("curve-run"), X.byId("curve-metric")];
  if (!pickRun) return;
  X.options(pickRun, X.data.measured.map((measured, at) => [at, measured.title]));
  const draw = () => {
    const measured = X.data.measured[Number(pickRun.value)];
    const metric = pickMetric.value;
    const rankings = [...new Set(measured.curves.map((curve) => curve.name))];
    const charts = Object.keys(MODES).map((mode) => {
      const curves = measured.curves.filter((curve) => curve.mode === mode && curve.metric === metric).map((curve) => ({ ...curve, colour: rankings.indexOf(curve.name) }));
      const band = measured.random.find((each) => each.mode === mode && each.metric === metric);
      return curves.length ? X.chart(mode, curves, band) : null;
    }).filter(Boolean);
    X.byId("curves").replaceChildren(...charts);
    X.tableOf(measured, metric);
    const whole = measured.completeness;
    X.byId("curve-says").textContent = `${measured.images} ${measured.heldout ? "held-out images" : "images, none held out"}, ${measured.ablation} ablation; `
      + `everything ablated: ${Object.entries(measured.full).map(([name, value]) => `${movedName(measured.metrics[name] || name, value)} ${X.small(Math.abs(value))}`).join(", ")}.`
      + wholeSaid(measured);
  };
  const fill = () => X.options(pickMetric, Object.entries(X.data.measured[Number(pickRun.value)].metrics));
  pickRun.addEventListener("change", () => { fill(); draw(); });
  pickMetric.addEventListener("change", draw);
  fill();
  draw();
};

X.calibration = () => {
  const { wide, left, right } = FRAME;
  X.byId("calibration").replaceChildren(...X.data.layers.map((layer) => {
    const bars = layer.pvalues;
    const total = bars.reduce((a, b) => a + b, 0);
    const title = `layer ${layer.layer} → ${layer.next}: ${total.toLocaleString("en-US")} edges with a test`;
    const [tall, base] = [170, 130];
    const top = Math.max(...bars, 1);
    const each = (wide - left - right) / bars.length;
    const parts = [X.svg("text", { class: "chart-text", x: left, y: 16 }, title)];
    bars.forEach((count, at) => parts.push(X.svg("rect", {
      class: "chart-bar", x: left + at * each + 1, width: each - 2, y: base - (100 * count) / top, height: (100 * count) / top,
    }, X.svg("title", {}, `p ${(at / 20).toFixed(2)} to ${((at + 1) / 20).toFixed(2)}: ${count.toLocaleString("en-US")}`))));
    if (total) {
      const level = base - (100 * (total / bars.length)) / top;
      parts.push(X.svg("line", { class: "chart-random", x1: left, x2: wide - right, y1: level, y2: level }, X.svg("title", {}, "level without any effect")));
    }
    for (const value of [0, 0.25, 0.5, 0.75, 1]) parts.push(X.svg("text", { class: "chart-soft", x: left + value * (wide - left - right), y: base + 16, "text-anchor": "middle" }, value));
    parts.push(X.svg("text", { class: "chart-soft", x: wide / 2, y: base + 34, "text-anchor": "middle" }, "p-value"));
    return X.svg("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": `${title}, ${bars[0]} of them with p below 0.05` }, parts);
  }));
};
