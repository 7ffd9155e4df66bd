// What a run adds to the page of one image: its clusters, and its own circuit beside the common.
const run = { layer: 0, edge: null, list: "own", image: null };

const runLayer = () => X.data.own.layers[run.layer];
const tokensOf = (labels, wanted) => labels.map((label, token) => (wanted(label, token) ? token : -1)).filter((token) => token >= 0);

const endsOf = (edge) => {
  const { labels } = X.data.own.layers.find((each) => each.layer === edge.layer);
  return {
    queries: tokensOf(labels, (label) => label === edge.cluster),
    keys: tokensOf(labels, (label, token) => (edge.target === null ? token === edge.token : label === edge.target)),
  };
};

const edgeWords = (edge) => `queries of ${edge.queries} → layer ${edge.next}, head ${edge.head} → key ${edge.keys}`;

const drawRun = () => {
  const { labels } = runLayer();
  const marks = [];
  let says = "Tinted by cluster. Point at a patch to read its cluster; choose an edge below to see its patches.";
  if (run.edge) {
    const { queries, keys } = endsOf(run.edge);
    marks.push([queries, QUERY, 2], [keys, KEYS, 2, 3]);
    says = `${edgeWords(run.edge)}: ${queries.length} query tokens (blue), ${keys.length} key tokens (orange).`;
  }
  const tint = (token) => `rgba(${X.rgb(X.colour(labels[token])).join(", ")}, ${run.edge ? 0.12 : 0.5})`;
  X.paint(X.byId("run-image"), run.image, X.data, null, marks, tint);
  X.byId("run-says").textContent = says;
};

const listClusters = () => {
  X.byId("run-clusters").replaceChildren(...runLayer().clusters.map((cluster) => {
    const swatch = X.el("span", { class: "swatch" });
    swatch.style.background = X.colour(cluster.cluster);
    const tiles = cluster.tiles.map((tile) => X.el("span", { class: `tile${tile.framed ? " framed" : ""}` }, X.el("img", { src: tile.src, alt: tile.alt, title: tile.alt })));
    return X.el("li", {}, X.el("p", {}, swatch, ` ${cluster.name}: ${cluster.count} token${cluster.count === 1 ? "" : "s"}`), X.el("div", { class: "tiles four" }, tiles));
  }));
};

const COLUMNS_OF_EDGES = [
  ["#", (edge, at) => at + 1], ["queries", (edge) => edge.queries], ["layer.head", (edge) => `${edge.next}.${edge.head}`], ["key", (edge) => edge.keys],
  ["contrast", (edge) => X.signed(edge.contrast, 2)], ["score", (edge) => edge.score.toExponential(1)],
  ["live effect", (edge) => (edge.live === null ? "" : edge.live.toExponential(1))], ["live q", (edge) => X.probability(edge.liveQ)],
  ["pushes", (edge) => edge.side || ""], ["in both lists", (edge) => (edge.both ? "yes" : "")],
];

const IN_WORDS = new Set(["queries", "key"]);

// Only edges of a direction have sides.
const columnsOfEdges = () => COLUMNS_OF_EDGES.filter(([title]) => title !== "pushes" || X.data.own.own.some((edge) => edge.side));

const chooseEdge = (edge) => {
  run.edge = edge;
  run.layer = X.data.own.layers.findIndex((each) => each.layer === edge.layer);
  X.byId("run-layer").value = run.layer;
  listClusters();
  drawRun();
  X.show({ layer: edge.next, head: edge.head });
};

const listEdges = () => {
  const table = X.byId("run-edges");
  table.tHead.replaceChildren(X.el("tr", {}, columnsOfEdges().map(([title]) => X.el("th", { scope: "col", class: IN_WORDS.has(title) ? "left" : "" }, title))));
  table.tBodies[0].replaceChildren(...X.data.own[run.list].map((edge, place) => {
    const line = X.el("tr", {
      tabindex: 0, onclick: () => chooseEdge(edge),
      onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); chooseEdge(edge); } },
    });
    columnsOfEdges().forEach(([title, show], at) => line.append(X.el(at ? "td" : "th", at ? { class: IN_WORDS.has(title) ? "left" : "" } : { scope: "row" }, show(edge, place))));
    return line;
  }));
};

const drawCurves = () => {
  const { curves, random } = X.data.own.measured;
  const metric = X.byId("run-metric").value;
  const names = ["own", "common"];
  const chosen = (mode) => curves.filter((curve) => curve.mode === mode && curve.metric === metric).map((curve) => ({ ...curve, colour: names.indexOf(curve.name) }));
  X.byId("run-curves").replaceChildren(...Object.keys(MODES).filter((mode) => chosen(mode).length)
    .map((mode) => X.chart(mode, chosen(mode), random.find((band) => band.mode === mode && band.metric === metric))));
  X.tableOf(X.data.own.measured, metric);
};

X.startRun = (image) => {
  if (!X.data.own) return;
  run.image = image;
  X.options(X.byId("run-layer"), X.data.own.layers.map((each, at) => [at, each.layer]));
  X.byId("run-layer").addEventListener("change", (event) => { run.layer = Number(event.target.value); run.edge = null; listClusters(); drawRun(); });
  X.options(X.byId("run-list"), [["own", "this image's own"], ["common", "the run's common"]]);
  X.byId("run-list").addEventListener("change", (event) => { run.list = event.target.value; listEdges(); });
  X.options(X.byId("run-metric"), Object.entries(X.data.own.measured.metrics));
  X.byId("run-metric").addEventListener("change", drawCurves);
  X.byId("run-image").addEventListener("pointermove", (event) => {
    const token = X.tokenAt(X.byId("run-image"), event);
    if (token === null) return;
    const cluster = runLayer().clusters.find((each) => each.cluster === runLayer().labels[token]);
    X.byId("run-says").textContent = `${X.tokenText(token)}: ${cluster.name}, with ${cluster.count - 1} other tokens of this image.`;
  });
  X.byId("run-image").addEventListener("pointerleave", drawRun);
  listClusters();
  listEdges();
  drawCurves();
  drawRun();
};
