// One edge on images: which patches ask (queries), which they read (keys), before and after.
const MOST_EXAMPLES = 4;
X.isKey = (edge, labels, token) => (edge.target === null ? token === edge.token : labels[token] === edge.target);

const examples = (edge) => {
  const found = [];
  X.data.images.forEach((record, at) => {
    const labels = X.labelsOf(edge.layer, at);
    const queries = [...labels.keys()].filter((token) => labels[token] === edge.cluster);
    const keys = [...labels.keys()].filter((token) => X.isKey(edge, labels, token));
    if (queries.length && keys.length) found.push({ at, record, labels, queries, keys });
  });
  const known = (each) => (X.logits(edge.layer, each.at, edge.head) ? 1 : 0);
  return found.sort((a, b) => known(b) - known(a) || b.queries.length - a.queries.length).slice(0, MOST_EXAMPLES);
};

// Mean attention of the query rows, with the model's own logits or with the edge's entries at
// the mean for their position (what a mean ablation puts there).
X.attention = (edge, example, edited) => {
  const tokens = X.layer(edge.layer).tokens;
  const logits = X.logits(edge.layer, example.at, edge.head);
  const mean = X.positionMean(edge.layer, edge.head);
  if (!logits || (edited && !mean)) return null;
  const total = new Float32Array(tokens);
  for (const query of example.queries) {
    const row = Float32Array.from(logits.subarray(query * tokens, (query + 1) * tokens));
    if (edited) for (const key of example.keys) row[key] = mean[query * tokens + key];
    X.softmax(row).forEach((part, key) => { total[key] += part / example.queries.length; });
  }
  return total;
};

const sum = (values, tokens) => tokens.reduce((total, token) => total + values[token], 0);

const patches = (title, places) => X.el("figure", {}, X.el("figcaption", {}, title), X.el("div", { class: "tiles four" },
  places.map((place) => X.data.why[place]).map((tile) => X.el("span", { class: `tile ${tile.framed ? "framed" : ""}` },
    X.el("img", { src: tile.src, alt: tile.alt, title: tile.alt })))));

// The directions in which this head's queries and keys meet, and what lies furthest along them.
const whyParts = (edge) => {
  if (!edge.why) {
    const reason = X.data.whyNot || "it is not among the first edges, or the images looked at do not hold both its ends";
    return [X.el("p", { class: "muted" }, `Why this edge is not shown: ${reason}.`)];
  }
  const rows = edge.why.directions.map((each) => X.el("div", { class: "why" },
    X.el("p", {}, `Direction ${each.direction} of the head carries ${X.signed(each.part, 2)} of the edge's ${X.signed(edge.why.total, 2)} logits${each.part < 0 ? ": its queries and keys lie on opposite ends" : ""}.`),
    X.el("div", { class: "galleries" }, patches("queries furthest along it", each.queries), patches("keys furthest along it", each.keys))));
  return [X.el("h4", {}, "Why this edge"), X.el("p", { class: "muted" },
    "Singular vectors of the head's centred queries and keys over all tokens of some images; the patches are any tokens, not only this edge's."), ...rows];
};

// Prefix tokens, such as the class token, lie on no patch.
const marksSaid = (edge) => {
  const kind = (id) => (id && X.clusters.get(id)?.kind) || "";
  const key = edge.target === null && edge.token < X.layer(edge.layer).prefix ? edge.to : kind(edge.targetId);
  const said = (role, name, colour) => (name ? `the ${role} is the ${name}, which lies on no patch` : `${colour}: ${role} patches`);
  const text = `${said("query", kind(edge.source), "blue")}; ${said("key", key, "orange")}.`;
  return text[0].toUpperCase() + text.slice(1);
};

X.showEdge = async (edge) => {
  const panel = X.byId("edge-detail");
  panel.hidden = false;
  const layer = X.layer(edge.layer);
  const test = edge.z === null ? "not testable" : `z = ${X.signed(edge.z, 1)}, q = ${X.probability(edge.q)}`;
  const live = edge.live === null ? "not asked of the live model" : `live effect ${edge.live.toExponential(1)} (q = ${X.probability(edge.liveQ)})`;
  const figures = [];
  for (const example of examples(edge)) {
    const image = await X.ready(example.at);
    const marked = X.el("canvas", { role: "img", "aria-label": "query and key patches" });
    X.paint(marked, image, layer, null, [[example.queries, QUERY, 2], [example.keys, KEYS, 2, 3]]);
    const parts = [marked];
    let says = "";
    const [before, after] = [X.attention(edge, example, false), X.attention(edge, example, true)];
    if (before) {
      const pair = [before, after].filter(Boolean).map((values, at) => {
        const canvas = X.el("canvas", { role: "img", "aria-label": at ? "attention after the edit" : "attention before" });
        X.paint(canvas, image, layer, values, [[example.keys, KEYS, 4]]);
        return canvas;
      });
      parts.push(X.el("div", { class: "pair" }, pair));
      says = ` The keys get ${X.percent(sum(before, example.keys))} of these queries' attention`
        + (after ? `; with the edge at its position mean (right) ${X.percent(sum(after, example.keys))}.` : ".");
    }
    const place = `${example.queries.length} query and ${example.keys.length} key tokens in ${example.record.name}.`;
    figures.push(X.el("figure", {}, parts, X.el("figcaption", {}, place + says)));
  }
  panel.replaceChildren(
    X.el("h3", {}, X.edgeText(edge)),
    X.el("p", {}, `Weight ${X.signed(edge.weight, 2)}, contrast ${X.signed(edge.contrast, 2)}, ${test}, ${live}. `
      + marksSaid(edge)),
    figures.length ? X.el("div", { class: "examples" }, figures)
      : X.el("p", { class: "note" }, "None of the images in this page holds both its queries and its keys."),
    ...whyParts(edge),
  );
};
