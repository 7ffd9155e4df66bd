// The graph's controls, and the lists of what a selected node reads and what reads it.
const listed = (title, links, end) => {
  if (!links.length) return [];
  const items = links.map((link) => X.el("li", {}, X.el("button", {
    type: "button", title: "select", onclick: () => X.change((store) => { store.selected = [link[end]]; }),
  }, X.el("span", {}, `${X.shownParts.nodes.get(link[end]).label} · head ${X.headName(link.edge)}`),
  X.el("span", {}, X.signed(link.edge.contrast, 2)))));
  return [X.el("h3", {}, `${title} (${links.length})`), X.el("ul", {}, items)];
};

const panelOf = (node, parts) => {
  const strong = (a, b) => Math.abs(b.edge.contrast) - Math.abs(a.edge.contrast);
  const reads = parts.links.filter((link) => link.query === node.key).sort(strong);
  const read = parts.links.filter((link) => link.key === node.key).sort(strong);
  const cards = node.members.map((id) => X.el("button", { type: "button", class: "quiet", onclick: () => X.goToCluster(id) }, `card of ${X.plainName(id)}`));
  return [X.el("h3", {}, node.label), X.el("p", {}, cards),
    ...listed("Reads from (its queries, these keys)", reads, "key"),
    ...listed("Is read by (its keys, these queries)", read, "query")];
};

const fillPanel = (parts) => {
  const nodes = X.store.selected.map((key) => parts.nodes.get(key)).filter(Boolean);
  if (!nodes.length) {
    X.byId("node-panel").replaceChildren(X.el("p", { class: "muted" },
      "Select a node (click, or Tab and Enter; Shift adds) to see what it reads from and what reads it. Numbers are contrasts."));
    return;
  }
  X.byId("node-panel").replaceChildren(...nodes.flatMap((node) => panelOf(node, parts)));
};

const selectedIds = () => [...new Set(X.store.selected.flatMap((key) => X.shownParts.nodes.get(key)?.members || []))];

const note = (text) => { X.byId("view-note").textContent = text; };

X.startGraph = () => {
  const prune = X.byId("prune");
  prune.max = Math.max(1, X.data.edges.length);
  prune.addEventListener("input", () => X.change((store) => {
    store.shown = Number(prune.value);
  }));
  X.byId("node-search").addEventListener("input", () => X.drawGraph());
  X.byId("pin").addEventListener("click", () => X.change((store) => {
    const all = store.selected.every((key) => store.pinned.includes(key));
    store.pinned = all ? store.pinned.filter((key) => !store.selected.includes(key)) : [...new Set([...store.pinned, ...store.selected])];
  }));
  X.byId("hide").addEventListener("click", () => X.change((store) => {
    store.hidden = [...new Set([...store.hidden, ...store.selected])];
    store.selected = [];
  }));
  X.byId("show-all").addEventListener("click", () => X.change((store) => { store.hidden = []; store.shown = null; }));
  X.byId("clear").addEventListener("click", () => X.change((store) => { store.selected = []; }));
  X.byId("group").addEventListener("click", () => {
    const ids = selectedIds();
    if (ids.length < 2) note("Select two or more clusters to group (Shift and click adds one).");
    else X.merge(ids);
  });
  X.byId("ungroup").addEventListener("click", () => {
    const groups = new Set(X.store.selected.map((key) => X.shownParts.nodes.get(key)?.group?.id).filter(Boolean));
    if (!groups.size) note("Select a grouped node to ungroup it.");
    else [...groups].sort().reverse().forEach(X.split);
  });
  X.byId("legend-for").textContent = X.directed() ? `pushes for ${X.data.objective || "the objective"}` : "attends more than the average row";
  X.byId("legend-against").textContent = X.directed() ? "pushes against it" : "attends less than it";
  const flows = X.oneColumn() && X.data.flows.length > 0;
  X.byId("legend-flow-key").hidden = !flows;
  X.byId("legend-flow").textContent = flows ? "the same tokens, in the next column" : "";
  X.byId("graph-words").textContent = X.oneColumn()
    ? "A column a layer. Coloured arcs are edges: queries of one cluster attend to keys of another in the attention after that layer. Grey lines follow the tokens to their clusters in the next column."
    : "Queries left, keys right; a line is a head in which queries of that cluster attend to that key.";
  X.onChange(() => {
    prune.value = X.shown();
    X.byId("prune-says").textContent = X.saysPruned();
    for (const id of ["pin", "hide", "group", "ungroup", "clear"]) X.byId(id).disabled = X.store.selected.length === 0;
    fillPanel(X.drawGraph());
  });
  X.startExports(note);
};
