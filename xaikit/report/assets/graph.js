// The circuit as a graph: nodes are clusters (or key tokens), links are edges of heads.
X.directed = () => X.data.edges.some((edge) => edge.side);
X.isFor = (edge) => (edge.side ? edge.side === "for" : edge.contrast >= 0);

const columnTitle = (column) => {
  if (X.oneColumn()) return `layer ${X.data.layers[column].layer}`;
  const layer = X.data.layers[Math.floor(column / 2)];
  return column % 2 ? `keys, attention of layer ${layer.next}` : `queries, clusters of layer ${layer.layer}`;
};

const widest = () => Math.max(...X.data.edges.map((edge) => Math.abs(edge.contrast)), 1e-9);

const path = (a, b, bend) => {
  const y = (node, part) => node.y + X.NODE.high * part;
  if (a.x === b.x) {
    const x = a.x + X.NODE.wide;
    const reach = 24 + 0.16 * Math.abs(a.y - b.y) + 7 * bend;
    return `M${x},${y(a, 0.35)} C${x + reach},${y(a, 0.35)} ${x + reach},${y(b, 0.65)} ${x},${y(b, 0.65)}`;
  }
  const [from, to] = a.x < b.x ? [a, b] : [b, a];
  const [x1, x2] = [from.x + X.NODE.wide, to.x];
  const half = (x2 - x1) / 2;
  const lift = 5 * bend;
  return `M${x1},${y(from, 0.5)} C${x1 + half},${y(from, 0.5) - lift} ${x2 - half},${y(to, 0.5) - lift} ${x2},${y(to, 0.5)}`;
};

const drawLink = (link, nodes, bend, top, chosen) => {
  const { edge } = link;
  const touched = chosen.size === 0 || chosen.has(link.query) || chosen.has(link.key);
  const line = X.svg("path", {
    class: `link ${X.isFor(edge) ? "for" : "against"} ${chosen.size ? (touched ? "strong" : "faint") : ""}`,
    d: path(nodes.get(link.query), nodes.get(link.key), bend),
    "stroke-width": (1 + 5 * (Math.abs(edge.contrast) / top)).toFixed(2),
    "data-edge": edge.id,
  }, X.svg("title", {}, `${X.edgeText(edge)}: contrast ${X.signed(edge.contrast, 2)}`));
  line.addEventListener("click", () => { X.chooseEdge(edge.id); X.byId("edge-detail").scrollIntoView({ block: "center" }); });
  return line;
};

const toggle = (key, add) => X.change((store) => {
  const has = store.selected.includes(key);
  if (add) store.selected = has ? store.selected.filter((other) => other !== key) : [...store.selected, key];
  else store.selected = has && store.selected.length === 1 ? [] : [key];
});

const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// Where a key token sits in the image; a prefix token sits beside it.
const tokenMap = (node) => {
  const layer = X.layer(node.layer);
  const [rows, columns] = layer.grid;
  const patch = node.token - layer.prefix;
  const frame = X.svg("rect", { class: "map", x: 7, y: 7, width: 28, height: 28 });
  if (patch < 0) return [frame];
  const [wide, high] = [28 / columns, 28 / rows];
  return [frame, X.svg("rect", { class: "spot", x: 7 + wide * (patch % columns), y: 7 + high * Math.floor(patch / columns), width: Math.max(2, wide), height: Math.max(2, high) })];
};

const drawNode = (node, search) => {
  const selected = X.store.selected.includes(node.key);
  const found = search && `${node.label} ${node.tag || ""}`.toLowerCase().includes(search);
  const box = X.svg("g", {
    class: `node${selected ? " selected" : ""}${node.pinned ? " pinned" : ""}${found ? " found" : ""}`,
    transform: `translate(${node.x},${node.y})`, tabindex: 0, role: "button", "aria-pressed": selected,
    "data-node": node.key,
  }, X.svg("rect", { width: X.NODE.wide, height: X.NODE.high, rx: 8 }));
  // Its name for those who cannot see it, and in full for those who see it shortened.
  const tag = node.tag ? `, ${node.tag}` : "";
  box.append(X.svg("title", {}, `${node.label}${tag}, ${node.role}${node.pinned ? ", pinned" : ""}`));
  const thumbs = node.members.map(X.thumb).filter(Boolean).slice(0, 2);
  thumbs.forEach((src, at) => box.append(X.svg("image", {
    href: src, x: 5 + 6 * at, y: 5 + 3 * at, width: 32, height: 32, preserveAspectRatio: "xMidYMid slice",
  })));
  if (node.members.length) {
    box.append(X.svg("rect", { class: "colour", x: 0, y: 8, width: 4, height: X.NODE.high - 16, rx: 2, fill: "none" }));
    box.lastChild.style.fill = X.colour(X.clusters.get(node.members[0]).cluster);
  }
  if (node.token !== undefined) box.append(...tokenMap(node));
  const left = thumbs.length || node.token !== undefined ? 44 : 12;
  const most = left > 12 ? 18 : 22;
  box.append(X.svg("text", { x: left, y: X.NODE.high / 2 + (node.tag ? -3 : 4) }, shorten(node.label, most)));
  if (node.tag) box.append(X.svg("text", { class: "word", x: left, y: X.NODE.high / 2 + 12 }, shorten(node.tag, most + 2)));
  if (node.pinned) box.append(X.svg("circle", { class: "pin", cx: X.NODE.wide - 9, cy: 9, r: 4 }));
  box.addEventListener("click", (event) => toggle(node.key, event.shiftKey || event.ctrlKey || event.metaKey));
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    toggle(node.key, event.shiftKey);
    document.querySelector(`[data-node="${CSS.escape(node.key)}"]`)?.focus();
  });
  return box;
};

X.drawGraph = () => {
  const parts = X.graphParts();
  const { columns, pitch, wide, high } = X.place(parts);
  const svg = X.byId("circuit");
  svg.setAttribute("viewBox", `0 0 ${Math.max(wide, 60)} ${Math.max(high, 60)}`);
  svg.setAttribute("width", Math.max(wide, 60));
  svg.setAttribute("height", Math.max(high, 60));
  const search = X.byId("node-search").value.trim().toLowerCase();
  const chosen = new Set(X.store.selected.filter((key) => parts.nodes.has(key)));
  const titles = columns.map((column, at) => X.svg("text", { class: "column-title", x: X.NODE.left + at * pitch, y: 20 }, columnTitle(column)));
  const flows = parts.flows.map((flow) => X.svg("path", {
    class: "link flow", d: path(parts.nodes.get(flow.source), parts.nodes.get(flow.target), 0), "stroke-width": (1 + 5 * flow.share).toFixed(2),
  }, X.svg("title", {}, `${X.percent(flow.share, 0)} of the tokens go on there (${flow.tokens})`)));
  const top = widest();
  const seen = new Map();
  const links = parts.links.map((link) => {
    const pair = `${link.query}>${link.key}`;
    seen.set(pair, (seen.get(pair) ?? -1) + 1);
    return drawLink(link, parts.nodes, seen.get(pair), top, chosen);
  });
  svg.replaceChildren(...titles, ...flows, ...links, ...[...parts.nodes.values()].map((node) => drawNode(node, search)));
  X.shownParts = parts;
  return parts;
};

// What the visible part does, from the removal curve that was measured with this ranking.
X.effectOf = (share) => {
  const measured = X.data.measured[0];
  if (!measured || (X.data.layers.length > 1 && !X.data.joint)) return null;
  const { rank } = X.data;
  const [metric] = Object.keys(measured.metrics);
  const curve = measured.curves.find((each) => each.mode === "remove" && each.metric === metric && each.name === rank);
  if (!curve) return null;
  const band = measured.random.find((each) => each.mode === "remove" && each.metric === curve.metric);
  const { objective } = measured;
  const show = (found, several) => {
    const value = X.atShare(found, share);
    return objective ? X.moved(value, several ? "it" : objective, several) : X.percent(value);
  };
  return { rank, does: objective ? show(curve, false) : `does about ${show(curve)} of the full effect`, random: band ? show(band, true) : null };
};

X.saysPruned = () => {
  // Without what is hidden, and with what is pinned beyond the slider.
  const edges = X.graphParts().links.map((link) => link.edge);
  const share = edges.reduce((total, edge) => total + edge.cover, 0);
  // A curve is of the first edges alone, and none of those past the ranking of all layers together.
  const first = edges.every((edge, at) => edge === X.data.edges[at]);
  const effect = !first || (X.data.ranked !== null && edges.length > X.data.ranked) ? null : X.effectOf(share);
  const covered = share > 0 && share < 1e-4 ? "less than 0.01%" : X.percent(share, 2);
  const words = `${edges.length} of ${X.data.edges.length} edges, ${covered} of the attention entries`;
  if (!effect) return `${words}; no removal curve was measured in this order of edges`;
  const random = effect.random === null ? "" : ` (random entries: ${effect.random})`;
  return `${words}: removing them ${effect.does}, by the measured curve of “${effect.rank}”${random}`;
};
