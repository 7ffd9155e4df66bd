// The controls of the page of one image.
const FIELDS = { token: () => X.data.tokens, layer: () => X.data.attention.length, head: () => X.data.heads };
let picture = null;

const readAddress = () => {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, size] of Object.entries(FIELDS)) {
    const value = Number(given.get(name) ?? NaN);
    if (Number.isInteger(value) && value >= (name === "head" ? -1 : 0) && value < size()) X.view[name] = value;
  }
  if (["key", "query"].includes(given.get("side"))) X.view.side = given.get("side");
  X.view.common = given.get("scale") === "one";
};

const keepAddress = () => {
  const { token, layer, head, side, common } = X.view;
  const view = new URLSearchParams({ token, layer, head, side, ...(common ? { scale: "one" } : {}) });
  try { history.replaceState(null, "", `#${view}`); } catch { /* A browser may refuse for a file. */ }
};

const draw = () => {
  X.drawImage(picture);
  X.drawMaps();
  X.drawLarge(picture);
  X.byId("side").value = X.view.side;
  X.byId("layer").value = X.view.layer;
  X.byId("head").value = X.view.head;
  X.byId("common").checked = X.view.common;
};

// `kept` is false while the mouse only passes over.
X.show = (changes, kept = true) => {
  Object.assign(X.view, changes);
  if (kept) { X.kept = X.view.token; keepAddress(); }
  draw();
};
X.change = () => draw();

const buildMaps = () => {
  const heads = [...Array(X.data.heads).keys()];
  const columns = heads.length > 1 ? [-1, ...heads] : heads;
  X.cells = [];
  // As wide as there is room for.
  const room = X.byId("maps").parentElement.clientWidth - 60;
  X.byId("maps").style.setProperty("--map", `${Math.max(56, Math.min(120, Math.floor(room / columns.length) - 16))}px`);
  X.byId("maps").tHead.replaceChildren(X.el("tr", {}, X.el("th", { scope: "col" }, "layer"),
    columns.map((head) => X.el("th", { scope: "col" }, head < 0 ? "mean" : `head ${head}`))));
  X.byId("maps").tBodies[0].replaceChildren(...X.data.attention.map((_, layer) => X.el("tr", {}, X.el("th", { scope: "row" }, layer),
    columns.map((head) => {
      const canvas = X.el("canvas", { width: 1, height: 1, "aria-hidden": "true" });
      const bar = X.el("meter", { min: 0, max: 1, value: 0, "aria-hidden": "true" });
      const button = X.el("button", { type: "button", "aria-pressed": "false", tabindex: -1, "aria-label": X.nameOfMap(layer, head), title: X.nameOfMap(layer, head), onclick: () => X.show({ layer, head }) }, canvas, bar);
      X.cells.push({ layer, head, canvas, bar, button });
      return X.el("td", {}, button);
    }))));
  // One stop for the Tab key; the arrow keys go on from there.
  X.cells[0].button.tabIndex = 0;
  X.byId("maps").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns.length, ArrowDown: columns.length }[event.key];
    const at = X.cells.findIndex((cell) => cell.button === document.activeElement);
    const next = X.cells[at + step];
    if (at < 0 || !next) return;
    event.preventDefault();
    X.cells[at].button.tabIndex = -1;
    next.button.tabIndex = 0;
    next.button.focus();
  });
};

const buildHeads = () => {
  const columns = [["layer", "layer"], ["head", "head"], ["prefix", "on tokens before the patches"], ["itself", "on the patch itself"], ["tokens", "spread over tokens"], ["distance", "patches away"]];
  const used = columns.filter(([key]) => key !== "prefix" || X.data.prefix);
  const state = { by: "layer", down: false };
  const show = (key, value) => (key === "prefix" || key === "itself" ? X.percent(value) : key === "tokens" || key === "distance" ? value.toFixed(1) : value);
  const table = X.byId("head-table");
  const fill = () => {
    const order = [...X.data.figures].sort((a, b) => (state.down ? b[state.by] - a[state.by] : a[state.by] - b[state.by]) || a.layer - b.layer || a.head - b.head);
    table.tHead.replaceChildren(X.el("tr", {}, used.map(([key, title]) => X.el("th", { scope: "col", "aria-sort": key === state.by ? (state.down ? "descending" : "ascending") : "none" },
      X.el("button", { type: "button", onclick: () => { state.down = state.by === key ? !state.down : key !== "layer" && key !== "head"; state.by = key; fill(); } },
        title + (key === state.by ? (state.down ? " ↓" : " ↑") : ""))))));
    table.tBodies[0].replaceChildren(...order.map((row) => {
      const choose = () => { X.show({ layer: row.layer, head: row.head }); X.byId("attention").scrollIntoView(); };
      const line = X.el("tr", { tabindex: 0, onclick: choose, onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } } });
      used.forEach(([key], at) => line.append(X.el(at ? "td" : "th", at ? {} : { scope: "row" }, show(key, row[key]))));
      return line;
    }));
  };
  fill();
};

X.tokenAt = (canvas, event) => {
  const bounds = canvas.getBoundingClientRect();
  const [rows, columns] = X.data.grid;
  const column = Math.floor(((event.clientX - bounds.left) / bounds.width) * columns);
  const row = Math.floor(((event.clientY - bounds.top) / bounds.height) * rows);
  return row < 0 || column < 0 || row >= rows || column >= columns ? null : X.data.prefix + row * columns + column;
};

const startImage = () => {
  const canvas = X.byId("image-main");
  let waiting = false;
  canvas.addEventListener("pointermove", (event) => {
    const token = X.tokenAt(canvas, event);
    if (token === null || token === X.view.token || waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; X.show({ token }, false); });
  });
  canvas.addEventListener("pointerleave", () => { if (X.view.token !== X.kept) X.show({ token: X.kept }, false); });
  canvas.addEventListener("pointerdown", (event) => {
    const token = X.tokenAt(canvas, event);
    if (token !== null) X.show({ token });
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -X.data.grid[1], ArrowDown: X.data.grid[1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const first = X.data.prefix;
    const next = X.view.token < first ? first : X.view.token + step;
    if (next >= first && next < X.data.tokens) X.show({ token: next });
  });
  X.byId("token-prefix").replaceChildren(...X.data.prefixKinds.map((kind, token) => X.el("button", { type: "button", onclick: () => X.show({ token }) }, kind)));
  X.byId("large").addEventListener("pointermove", (event) => {
    const token = X.tokenAt(X.byId("large"), event);
    if (token === null || !X.maps.rows[X.view.layer]) return;
    const value = X.mapOf(X.view.layer, X.view.head, X.view.token, X.view.side)[token];
    X.byId("large").title = `${X.tokenText(token)}: ${X.percent(value, 2)}`;
  });
};

X.startExplain = async () => {
  const heads = [...Array(X.data.heads).keys()];
  X.options(X.byId("layer"), X.data.attention.map((_, layer) => [layer, layer]));
  X.options(X.byId("head"), [...(heads.length > 1 ? [[-1, "mean"]] : []), ...heads.map((head) => [head, head])]);
  for (const name of ["layer", "head"]) X.byId(name).addEventListener("change", (event) => X.show({ [name]: Number(event.target.value) }));
  X.byId("side").addEventListener("change", (event) => X.show({ side: event.target.value }));
  X.byId("common").addEventListener("change", (event) => X.show({ common: event.target.checked }));
  readAddress();
  X.kept = X.view.token;
  buildMaps();
  buildHeads();
  startImage();
  picture = await X.ready(0);
  X.startRun(picture);
  // The layer in sight first.
  const order = X.data.attention.map((_, layer) => layer).sort((a, b) => (b === X.view.layer) - (a === X.view.layer) || a - b);
  for (const layer of order) {
    await X.loadLayer(layer);
    draw();
  }
  document.body.dataset.ready = "yes";
};
X.startPage();
X.startExplain();
addEventListener("hashchange", () => { readAddress(); X.kept = X.view.token; draw(); });
