// Attention of one image: every layer and head for the token that is pointed at.
X.maps = { rows: [], tops: [], prefix: [] };
X.view = { token: X.data.prefix ? 0 : Math.floor(X.data.tokens / 2), layer: X.data.attention.length - 1, head: 0, side: "key", common: false };

const bytesOf = (text) => {
  const found = atob(text);
  const bytes = new Uint8Array(found.length);
  for (let i = 0; i < found.length; i++) bytes[i] = found.charCodeAt(i);
  return bytes;
};

// A layer's rows and their largest, unpacked once.
X.loadLayer = async (layer) => {
  const { rows, tops, prefix } = X.data.attention[layer];
  const stream = new Blob([bytesOf(rows)]).stream().pipeThrough(new DecompressionStream("deflate"));
  X.maps.rows[layer] = new Uint8Array(await new Response(stream).arrayBuffer());
  X.maps.tops[layer] = new Float32Array(bytesOf(tops).buffer);
  X.maps.prefix[layer] = new Float32Array(bytesOf(prefix).buffer);
};

X.tokenText = (token) => {
  const { prefix, prefixKinds, grid } = X.data;
  if (token < prefix) return prefixKinds[token];
  const patch = token - prefix;
  return `patch (${Math.floor(patch / grid[1])}, ${patch % grid[1]})`;
};

// Attention from a token to all (`key`), or of all to a token (`query`); head `-1` is the mean.
X.mapOf = (layer, head, token, side) => {
  const { tokens, heads } = X.data;
  const found = new Float32Array(tokens);
  const wanted = head < 0 ? [...Array(heads).keys()] : [head];
  for (const each of wanted) {
    for (let other = 0; other < tokens; other++) {
      const [query, key] = side === "key" ? [token, other] : [other, token];
      found[other] += share(layer, each, query, key) / wanted.length;
    }
  }
  return found;
};

// Patches are kept as the root of their share of the row's largest.
const share = (layer, head, query, key) => {
  const { tokens, prefix } = X.data;
  const row = head * tokens + query;
  if (key < prefix) return X.maps.prefix[layer][row * prefix + key];
  const root = X.maps.rows[layer][row * (tokens - prefix) + key - prefix] / 255;
  return root * root * X.maps.tops[layer][row];
};

const topOf = (values) => {
  let top = 1e-9;
  for (let token = X.data.prefix; token < X.data.tokens; token++) top = Math.max(top, values[token]);
  return top;
};

const onPrefix = (values) => {
  let total = 0;
  let all = 1e-12;
  values.forEach((value, token) => { all += value; if (token < X.data.prefix) total += value; });
  return total / all;
};

const small = (canvas, values, top) => {
  const [rows, columns] = X.data.grid;
  if (canvas.width !== columns) { canvas.width = columns; canvas.height = rows; }
  const context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  for (let patch = 0; patch < rows * columns; patch++) {
    const part = Math.sqrt(Math.min(1, values[X.data.prefix + patch] / top));
    picture.data.set([16 + 239 * part, 18 + 190 * part * part, 60 + 40 * part - 60 * part * part, 255], 4 * patch);
  }
  context.putImageData(picture, 0, 0);
};

X.drawMaps = () => {
  const { token, side, common } = X.view;
  const found = X.cells.map((cell) => (X.maps.rows[cell.layer] ? X.mapOf(cell.layer, cell.head, token, side) : null));
  const most = common ? Math.max(...found.filter(Boolean).map(topOf)) : null;
  X.cells.forEach((cell, at) => {
    const values = found[at];
    if (!values) return;
    small(cell.canvas, values, most || topOf(values));
    cell.bar.value = onPrefix(values);
    cell.button.setAttribute("aria-pressed", cell.layer === X.view.layer && cell.head === X.view.head);
  });
};

X.nameOfMap = (layer, head) => (head < 0 ? `layer ${layer}, mean of its heads` : `layer ${layer}, head ${head}`);

// The class token is one of its kind; patches and registers are named by their place.
const spoken = (token) => `${X.tokenText(token).endsWith("token") ? "the " : ""}${X.tokenText(token)}`;

X.drawLarge = (image) => {
  const { token, layer, head, side } = X.view;
  if (!X.maps.rows[layer]) return;
  const values = X.mapOf(layer, head, token, side);
  X.paint(X.byId("large"), image, X.data, values, [[[token], QUERY, 2]]);
  const where = X.nameOfMap(layer, head);
  const order = [...values.keys()].sort((a, b) => values[b] - values[a]).filter((other) => values[other] >= 0.0005).slice(0, 8);
  if (side === "key") {
    const prefix = X.data.prefix ? `; ${X.percent(onPrefix(values))} on tokens before the patches` : "";
    X.byId("large-says").textContent = `${where}: where ${spoken(token)} attends, at most ${X.percent(topOf(values))} to a patch${prefix}.`;
  } else {
    X.byId("large-says").textContent = `${where}: who attends to ${spoken(token)}; the most of a patch's attention is ${X.percent(topOf(values))}.`;
  }
  X.byId("large-list").replaceChildren(...order.map((other) => X.el("li", {}, `${X.tokenText(other)}: ${X.percent(values[other])}`)));
};

X.drawImage = (image) => {
  const { token } = X.view;
  X.paint(X.byId("image-main"), image, X.data, null, [[token < X.data.prefix ? [] : [token], QUERY, 3]]);
  X.byId("token-says").textContent = `Chosen: ${X.tokenText(token)}.`;
  document.querySelectorAll("#token-prefix button").forEach((button, at) => button.setAttribute("aria-pressed", at === token));
};
