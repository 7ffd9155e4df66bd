// All edges of a head: a row for each query cluster (largest first), a column for each key.
X.diverging = (part) => {
  // Blue for more than average, orange for less, white between; steady lightness on both sides.
  const strength = Math.min(1, Math.abs(part));
  const end = part >= 0 ? [10, 94, 168] : [190, 84, 8];
  return end.map((value) => Math.round(247 + (value - 247) * strength));
};

// A light line below a dark one: on any cell and in either theme one of them stands out.
X.OUTLINE = [["#ffffff", 4], ["#000000", 2]];

X.startHeatmap = () => {
  const canvas = X.byId("heat");
  const pick = { layer: X.byId("heat-layer"), head: X.byId("heat-head"), what: X.byId("heat-what") };
  X.options(pick.layer, X.data.layers.map((layer) => [layer.layer, layer.layer]));
  let view = null;

  const heads = () => X.options(pick.head, [...Array(X.layer(Number(pick.layer.value)).heads).keys()].map((head) => [head, head]));

  const draw = () => {
    const layer = X.layer(Number(pick.layer.value));
    const head = Number(pick.head.value);
    const what = pick.what.value;
    const order = [...layer.counts.keys()].filter((k) => layer.counts[k]).sort((a, b) => layer.counts[b] - layer.counts[a]);
    const width = layer.destinations.length;
    const columns = layer.destination === "cluster" ? order : [...Array(width).keys()];
    const values = X.values(layer.layer, what, head);
    const sorted = [...values].map(Math.abs).sort((a, b) => a - b);
    const limit = sorted[Math.floor(0.99 * (sorted.length - 1))] || 1;
    const cell = { wide: Math.max(4, Math.min(28, Math.floor(1100 / columns.length))), high: 20, left: 150, top: layer.destination === "cluster" ? 18 : 4 };
    canvas.width = cell.left + columns.length * cell.wide;
    canvas.height = cell.top + order.length * cell.high + 4;
    canvas.style.width = `${canvas.width}px`;
    const context = canvas.getContext("2d");
    const ink = getComputedStyle(canvas).color;
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    order.forEach((cluster, row) => {
      const y = cell.top + row * cell.high;
      context.fillStyle = X.colour(cluster);
      context.fillRect(2, y + 4, 11, 11);
      context.fillStyle = ink;
      context.fillText(X.nameOf(`${layer.layer}.${cluster}`).slice(0, 21), 18, y + cell.high / 2, cell.left - 22);
      columns.forEach((key, column) => {
        const [red, green, blue] = X.diverging(values[cluster * width + key] / limit);
        context.fillStyle = `rgb(${red}, ${green}, ${blue})`;
        context.fillRect(cell.left + column * cell.wide, y, Math.max(1, cell.wide - (cell.wide > 5)), cell.high - 1);
      });
    });
    // Clusters as keys have their colours above; what lies between is read by pointing.
    if (layer.destination === "cluster") {
      columns.forEach((key, column) => {
        context.fillStyle = X.colour(key);
        context.fillRect(cell.left + column * cell.wide + (cell.wide - 11) / 2, 3, 11, 11);
      });
    }
    for (const edge of X.data.edges) {
      if (edge.layer !== layer.layer || edge.head !== head) continue;
      const row = order.indexOf(edge.cluster);
      const column = columns.indexOf(edge.target === null ? edge.token : edge.target);
      if (row < 0 || column < 0) continue;
      // A key of many is a few pixels wide, and its outline wider than it is.
      const wide = Math.max(cell.wide - 1, 9);
      const left = cell.left + column * cell.wide + (cell.wide - 1 - wide) / 2;
      for (const [colour, line] of X.OUTLINE) {
        context.strokeStyle = colour;
        context.lineWidth = line;
        context.strokeRect(left + 1, cell.top + row * cell.high + 1, wide - 2, cell.high - 3);
      }
    }
    view = { layer, head, what, order, columns, values, width, cell, limit };
    X.byId("heat-read").textContent = `Blue: above zero, orange: below; full colour at ±${limit.toFixed(2)}. `
      + "Outlined: edges of the circuit. Point at a cell to read it.";
  };

  canvas.addEventListener("pointermove", (event) => {
    const bounds = canvas.getBoundingClientRect();
    const x = (event.clientX - bounds.left) * (canvas.width / bounds.width) - view.cell.left;
    const y = (event.clientY - bounds.top) * (canvas.height / bounds.height) - view.cell.top;
    const cluster = view.order[Math.floor(y / view.cell.high)];
    const key = view.columns[Math.floor(x / view.cell.wide)];
    if (cluster === undefined || key === undefined || x < 0) return;
    const at = (cluster * view.layer.heads + view.head) * view.width + key;
    const tested = X.untested(view.layer.layer)[at] < 0.5;
    const to = view.layer.destination === "cluster" ? X.nameOf(`${view.layer.layer}.${key}`) : view.layer.destinations[key];
    X.byId("heat-read").textContent = `queries of ${X.nameOf(`${view.layer.layer}.${cluster}`)} → head ${view.head} → key ${to}: `
      + `${view.what} ${X.signed(view.values[cluster * view.width + key], 2)}${tested ? "" : ", not testable"}`;
  });
  pick.layer.addEventListener("change", () => { heads(); draw(); });
  pick.head.addEventListener("change", draw);
  pick.what.addEventListener("change", draw);
  heads();
  X.onChange(draw);
};
