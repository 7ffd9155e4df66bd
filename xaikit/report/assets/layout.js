// From edges to nodes with places: a column a layer, or queries left and keys right.
const NODE = { wide: 168, high: 42, gap: 12, top: 34, left: 12 };
X.NODE = NODE;

// Every layer's edges end at clusters, and there are several: one column a layer, arcs inside it.
X.oneColumn = () => X.data.layers.length > 1 && X.data.layers.every((layer) => layer.destination === "cluster");

const nodeOf = (id, role) => {
  const group = X.groupOf(id);
  const name = group ? group.id : id;
  return X.oneColumn() ? name : `${name}|${role}`;
};

X.edgeEnds = (edge) => ({
  query: nodeOf(edge.source, "query"),
  key: edge.targetId ? nodeOf(edge.targetId, "key") : `${edge.layer}:${edge.token}|key`,
});

const describe = (key, edge, role) => {
  const id = role === "query" ? edge.source : edge.targetId;
  const at = X.data.layers.findIndex((layer) => layer.layer === edge.layer);
  const column = X.oneColumn() ? at : 2 * at + (role === "key" ? 1 : 0);
  if (!id) return { key, role, members: [], label: edge.to, column, token: edge.token, layer: edge.layer };
  const group = X.groupOf(id);
  const members = group ? group.members : [id];
  return { key, role, members, label: group ? X.groupName(group) : X.nameOf(id), tag: group ? "" : X.tagOf(id), column, group, layer: edge.layer };
};

// Nodes and links of the first `shown` edges, without what the reader hid.
X.graphParts = () => {
  const shown = X.shown();
  const hidden = new Set(X.store.hidden);
  const pinned = new Set(X.store.pinned);
  const nodes = new Map();
  const links = [];
  X.data.edges.forEach((edge, at) => {
    const ends = X.edgeEnds(edge);
    const kept = at < shown || (pinned.has(ends.query) && pinned.has(ends.key));
    for (const role of ["query", "key"]) {
      const key = ends[role];
      if (hidden.has(key) || nodes.has(key) || !(kept || pinned.has(key))) continue;
      nodes.set(key, describe(key, edge, role));
    }
    if (kept && !hidden.has(ends.query) && !hidden.has(ends.key)) links.push({ ...ends, edge });
  });
  for (const node of nodes.values()) node.pinned = pinned.has(node.key);
  return { nodes, links, flows: flows(nodes) };
};

const flows = (nodes) => {
  if (!X.oneColumn()) return [];
  const found = new Map();
  for (const flow of X.data.flows) {
    const [source, target] = [nodeOf(flow.source, ""), nodeOf(flow.target, "")];
    if (source === target || !nodes.has(source) || !nodes.has(target)) continue;
    const key = `${source}>${target}`;
    const tokens = (found.get(key)?.tokens || 0) + flow.tokens;
    found.set(key, { source, target, tokens, share: Math.max(flow.share, found.get(key)?.share || 0) });
  }
  return [...found.values()];
};

X.place = ({ nodes, links, flows: between }) => {
  const columns = new Map();
  for (const node of nodes.values()) {
    if (!columns.has(node.column)) columns.set(node.column, []);
    columns.get(node.column).push(node);
  }
  const near = new Map([...nodes.keys()].map((key) => [key, []]));
  for (const link of links) { near.get(link.query).push(link.key); near.get(link.key).push(link.query); }
  for (const flow of between) { near.get(flow.source).push(flow.target); near.get(flow.target).push(flow.source); }
  const used = [...columns.keys()].sort((a, b) => a - b);
  for (const column of used) columns.get(column).sort((a, b) => near.get(b.key).length - near.get(a.key).length);
  // Each node moves to the mean place of its neighbours a few times over, which undoes most crossings.
  for (let turn = 0; turn < 6; turn++) {
    for (const column of used) {
      const rank = new Map();
      for (const list of columns.values()) list.forEach((node, at) => rank.set(node.key, at / Math.max(1, list.length - 1)));
      const middle = (node) => {
        const others = near.get(node.key).filter((key) => nodes.get(key).column !== column);
        return others.length ? others.reduce((total, key) => total + rank.get(key), 0) / others.length : rank.get(node.key);
      };
      columns.get(column).sort((a, b) => b.pinned - a.pinned || middle(a) - middle(b));
    }
  }
  let high = 0;
  // Columns spread over the room there is; arcs inside a column need some of it to their right.
  const room = X.byId("circuit").parentElement.clientWidth - 2 * NODE.left - NODE.wide;
  const pitch = Math.round(Math.min(460, Math.max(300, used.length > 1 ? room / (used.length - 1) : 0)));
  used.forEach((column, at) => columns.get(column).forEach((node, row) => {
    node.x = NODE.left + at * pitch;
    node.y = NODE.top + row * (NODE.high + NODE.gap);
    high = Math.max(high, node.y + NODE.high);
  }));
  const last = X.oneColumn() ? pitch - 20 : NODE.wide + NODE.left;
  return { columns: used, pitch, wide: NODE.left + (used.length - 1) * pitch + last, high: high + 14 };
};
