// The table of edges: sorted, filtered, one row chosen.
const MOST_ROWS = 60;

const COLUMNS = [
  ["rank", "#", (edge) => edge.rank],
  ["source", "queries", (edge) => X.fullName(edge.source), "left"],
  ["head", "head", (edge) => X.headName(edge)],
  ["to", "key", (edge) => X.keyName(edge), "left"],
  ["weight", "weight", (edge) => X.signed(edge.weight, 2)],
  ["contrast", "contrast", (edge) => X.signed(edge.contrast, 2)],
  ["z", "z", (edge) => (edge.z === null ? "" : X.signed(edge.z, 1))],
  ["q", "q", (edge) => (edge.q === null ? "not testable" : X.probability(edge.q))],
  ["effect", "for the objective", (edge) => (edge.effect === null ? "" : X.signed(edge.effect, 4))],
  ["live", "live effect", (edge) => (edge.live === null ? "" : edge.live.toExponential(1))],
  ["liveQ", "live q", (edge) => X.probability(edge.liveQ)],
  ["survival", "survives", (edge) => (edge.survival === null ? "" : X.percent(edge.survival, 0))],
  ["cover", "cover", (edge) => (edge.cover > 0 && edge.cover < 1e-5 ? "< 0.001%" : X.percent(edge.cover, 3))],
];

X.headName = (edge) => (X.data.layers.length > 1 ? `${edge.next}.${edge.head}` : `${edge.head}`);
X.keyName = (edge) => (edge.targetId ? X.fullName(edge.targetId) : edge.to);
X.edgeText = (edge) => `queries of ${X.fullName(edge.source)} → head ${X.headName(edge)} → key ${X.keyName(edge)}`;

X.startEdges = () => {
  const table = X.byId("edge-table");
  const state = { by: "rank", down: false, all: false, chosen: null };
  const used = COLUMNS.filter(([key]) => X.data.edges.some((edge) => edge[key] !== null && edge[key] !== undefined));
  const layers = [...new Set(X.data.edges.map((edge) => edge.layer))];
  const heads = [...new Set(X.data.edges.map((edge) => edge.head))].sort((a, b) => a - b);
  X.options(X.byId("edge-layer"), [["", "all"], ...layers.map((layer) => [layer, layer])]);
  X.options(X.byId("edge-head"), [["", "all"], ...heads.map((head) => [head, head])]);

  const header = X.el("tr");
  for (const [key, title, , side] of used) {
    const button = X.el("button", { type: "button", onclick: () => sortBy(key) }, title);
    header.append(X.el("th", { scope: "col", class: side, "data-key": key, "aria-sort": "none" }, button));
  }
  table.tHead.append(header);

  const sortBy = (key) => {
    // Numbers start with the largest, names and q-values with the smallest.
    const down = !["rank", "source", "head", "to", "q", "liveQ"].includes(key);
    state.down = state.by === key ? !state.down : down;
    state.by = key;
    draw();
  };

  const kept = () => {
    const wanted = X.byId("edge-search").value.trim().toLowerCase();
    const layer = X.byId("edge-layer").value;
    const head = X.byId("edge-head").value;
    return X.data.edges.filter((edge) => (!layer || edge.layer === Number(layer))
      && (!head || edge.head === Number(head))
      && (!X.byId("edge-significant").checked || (edge.q !== null && edge.q <= 0.05))
      && (!X.byId("edge-live").checked || edge.live !== null)
      && (!wanted || `${X.edgeText(edge)} ${X.plainName(edge.source)}`.toLowerCase().includes(wanted)));
  };

  const value = (edge, key) => (key === "source" || key === "to" ? COLUMNS.find(([name]) => name === key)[2](edge) : edge[key]);
  const compare = (a, b) => {
    const [x, y] = [value(a, state.by), value(b, state.by)];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return state.down ? -order : order;
  };

  const row = (edge) => {
    const line = X.el("tr", { tabindex: 0, "data-edge": edge.id, "aria-selected": edge.id === state.chosen });
    for (const [key, , show, side] of used) {
      const cell = X.el(key === "rank" ? "th" : "td", { class: side, scope: key === "rank" ? "row" : null });
      const thumb = key === "source" ? X.thumb(edge.source) : key === "to" && edge.targetId ? X.thumb(edge.targetId) : null;
      if (thumb) cell.append(X.el("img", { class: "thumb", src: thumb, alt: "" }));
      cell.append(String(show(edge)));
      line.append(cell);
    }
    const choose = () => X.chooseEdge(edge.id);
    line.addEventListener("click", choose);
    line.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); }
    });
    return line;
  };

  const draw = () => {
    const found = kept().sort(compare);
    const shown = state.all ? found : found.slice(0, MOST_ROWS);
    table.tBodies[0].replaceChildren(...shown.map(row));
    for (const cell of header.children) {
      const own = cell.dataset.key === state.by;
      cell.setAttribute("aria-sort", own ? (state.down ? "descending" : "ascending") : "none");
      cell.firstChild.textContent = used.find(([key]) => key === cell.dataset.key)[1] + (own ? (state.down ? " ↓" : " ↑") : "");
    }
    X.byId("edge-count").textContent = `${found.length} of ${X.data.edges.length} edges`;
    X.byId("edge-more").hidden = shown.length === found.length;
    X.byId("edge-more").textContent = `Show all ${found.length}`;
  };

  X.chooseEdge = (id) => {
    state.chosen = id;
    table.querySelectorAll("tbody tr").forEach((line) => line.setAttribute("aria-selected", Number(line.dataset.edge) === id));
    X.showEdge(X.data.edges.find((edge) => edge.id === id));
  };

  for (const id of ["edge-search", "edge-layer", "edge-head", "edge-significant", "edge-live"]) X.byId(id).addEventListener("input", draw);
  X.byId("edge-more").addEventListener("click", () => { state.all = true; draw(); });
  X.onChange(draw);
};
