// What leaves the page: the view as a small file, the graph as SVG, PNG, JSON and GraphML.
const STYLED = ["fill", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "font-size", "font-family"];

// A copy of the graph that carries its colours with it.
X.svgText = () => {
  const svg = X.byId("circuit");
  const copy = svg.cloneNode(true);
  const [own, copied] = [svg.querySelectorAll("*"), copy.querySelectorAll("*")];
  own.forEach((node, at) => {
    const style = getComputedStyle(node);
    for (const name of STYLED) copied[at].setAttribute(name, style.getPropertyValue(name));
    copied[at].removeAttribute("style");
    copied[at].removeAttribute("tabindex");
  });
  const box = svg.viewBox.baseVal;
  const ground = X.svg("rect", { width: box.width, height: box.height, fill: getComputedStyle(document.body).backgroundColor });
  copy.prepend(ground);
  copy.setAttribute("xmlns", X.SVG);
  return new XMLSerializer().serializeToString(copy);
};

const png = () => new Promise((resolve, reject) => {
  const box = X.byId("circuit").viewBox.baseVal;
  const scale = Math.max(1, Math.min(2, 8000 / Math.max(box.width, box.height)));
  const image = new Image();
  image.onload = () => {
    const canvas = X.el("canvas", { width: Math.round(box.width * scale), height: Math.round(box.height * scale) });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture is too large"))), "image/png");
  };
  image.onerror = () => reject(new Error("the picture could not be drawn"));
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(X.svgText())}`;
});

// Node-link JSON, as networkx reads it.
X.graphJson = () => {
  const { nodes, links, flows } = X.shownParts;
  return {
    directed: true,
    multigraph: true,
    graph: { title: X.data.title, run: X.data.run, says: X.saysPruned(), ...(X.data.objective ? { objective: X.data.objective } : {}) },
    nodes: [...nodes.values()].map((node) => ({ id: node.key, label: node.label, role: node.role, layer: node.layer, members: node.members })),
    edges: [
      ...links.map(({ query, key, edge }) => ({
        source: query, target: key, key: `edge ${edge.id}`, kind: "head", head: edge.head, attention_layer: edge.next, weight: edge.weight,
        contrast: edge.contrast, zscore: edge.z, qvalue: edge.q, live_effect: edge.live, rank: edge.rank,
        ...(edge.side ? { effect: edge.effect, side: edge.side } : {}),
      })),
      ...flows.map((flow, at) => ({ source: flow.source, target: flow.target, key: `flow ${at}`, kind: "flow", share: flow.share, tokens: flow.tokens })),
    ],
  };
};

X.graphMl = () => {
  const space = "http://graphml.graphdrawing.org/xmlns";
  const doc = document.implementation.createDocument(space, "graphml");
  const add = (parent, tag, attributes, content = null) => {
    const node = doc.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
    // XML has no place for most control characters, in any form.
    if (content !== null) node.textContent = String(content).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd");
    parent.append(node);
    return node;
  };
  const root = doc.documentElement;
  const found = X.graphJson();
  const keys = { node: ["label", "role", "layer"], edge: ["kind", "head", "attention_layer", "weight", "contrast", "zscore", "qvalue", "live_effect", "effect", "side", "rank", "share", "tokens"] };
  const textual = new Set(["label", "role", "kind", "side"]);
  for (const [kind, names] of Object.entries(keys)) {
    for (const name of names) add(root, "key", { id: `${kind}_${name}`, for: kind, "attr.name": name, "attr.type": textual.has(name) ? "string" : "double" });
  }
  const graph = add(root, "graph", { edgedefault: "directed" });
  const fill = (node, kind, record) => {
    for (const name of keys[kind]) if (record[name] !== null && record[name] !== undefined) add(node, "data", { key: `${kind}_${name}` }, record[name]);
  };
  for (const node of found.nodes) fill(add(graph, "node", { id: node.id }), "node", node);
  for (const edge of found.edges) fill(add(graph, "edge", { id: edge.key, source: edge.source, target: edge.target }), "edge", edge);
  return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(doc)}`;
};

X.startExports = (note) => {
  const json = (value) => new Blob([JSON.stringify(value, null, 1)], { type: "application/json" });
  const makers = {
    svg: () => new Blob([X.svgText()], { type: "image/svg+xml" }),
    png,
    json: () => json(X.graphJson()),
    graphml: () => new Blob([X.graphMl()], { type: "application/xml" }),
  };
  document.querySelectorAll("[data-export]").forEach((button) => button.addEventListener("click", async () => {
    try {
      X.save(`circuit.${button.dataset.export}`, await makers[button.dataset.export]());
      note(`circuit.${button.dataset.export} written.`);
    } catch (error) {
      note(error.message);
    }
  }));
  X.byId("save-view").addEventListener("click", () => {
    X.save("view.json", json({ format: "xaikit-view", version: 1, run: X.data.run, view: X.store }));
    note("view.json written.");
  });
  X.byId("load-view").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    try {
      const found = JSON.parse(await file.text());
      if (found?.format !== "xaikit-view") throw new Error("this is no view saved by this page");
      X.store = X.clean(found.view);
      X.change(null);
      note(found.run === X.data.run ? "View loaded." : "View loaded, though it was saved from another run.");
    } catch (error) {
      note(`Not loaded: ${error instanceof SyntaxError ? "not a JSON file" : error.message}.`);
    }
    event.target.value = "";
  });
};
