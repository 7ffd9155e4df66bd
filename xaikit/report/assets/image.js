// One image: the cluster of a patch, where its queries attend, and what the prototype predicts.
X.startImage = () => {
  const canvas = X.byId("image-main");
  const pick = { image: X.byId("image-pick"), layer: X.byId("image-layer"), tint: X.byId("image-tint") };
  const state = { token: null, cell: 1, image: null };
  X.options(pick.image, X.data.images.map((record, at) => [at, `${record.name}${record.heldout ? " (held out)" : ""}`]));
  X.options(pick.layer, X.data.layers.map((layer) => [layer.layer, `${layer.layer} → ${layer.next}`]));
  if (!X.data.images.length) return;

  const here = () => ({ at: Number(pick.image.value), layer: X.layer(Number(pick.layer.value)) });

  const predicted = (layer, labels, head, token) => {
    const values = X.values(layer.layer, "weight", head);
    const width = layer.destinations.length;
    const row = values.subarray(labels[token] * width, (labels[token] + 1) * width);
    return layer.destination === "token" ? row : Float32Array.from(labels, (label) => row[label]);
  };

  const tokenText = (layer, token) => {
    if (token < layer.prefix) return layer.prefixKinds[token];
    const patch = token - layer.prefix;
    return `patch (${Math.floor(patch / layer.grid[1])}, ${patch % layer.grid[1]})`;
  };

  const heads = () => {
    const { at, layer } = here();
    const labels = X.labelsOf(layer.layer, at);
    const token = state.token;
    const found = [];
    for (let head = 0; head < layer.heads; head++) {
      const logits = X.logits(layer.layer, at, head);
      const parts = [];
      const guess = X.softmax(predicted(layer, labels, head, token));
      let says = `head ${head}`;
      if (logits) {
        const real = X.softmax(logits.subarray(token * layer.tokens, (token + 1) * layer.tokens));
        const own = X.el("canvas", { role: "img", "aria-label": `real attention of head ${head}` });
        X.paint(own, state.image, layer, real, [[[token], QUERY, 2]]);
        parts.push(own);
        let shared = 0;
        real.forEach((value, key) => { shared += Math.min(value, guess[key]); });
        says += `: ${X.percent(shared, 0)} of the attention predicted`;
        if (layer.prefix) says += `, ${X.percent(real.subarray(0, layer.prefix).reduce((a, b) => a + b, 0), 0)} on prefix tokens`;
      } else says += ": prediction only, the page holds no logits of this image";
      const other = X.el("canvas", { role: "img", "aria-label": `attention predicted by the prototype, head ${head}` });
      X.paint(other, state.image, layer, guess, [[[token], QUERY, 2]]);
      parts.push(other);
      found.push(X.el("figure", {}, X.el("div", { class: logits ? "pair" : "" }, parts), X.el("figcaption", {}, says)));
    }
    X.byId("image-heads").replaceChildren(...found);
  };

  const draw = () => {
    const { at, layer } = here();
    const labels = X.labelsOf(layer.layer, at);
    const tint = pick.tint.checked ? (token) => {
      const [red, green, blue] = X.rgb(X.colour(labels[token]));
      return `rgba(${red}, ${green}, ${blue}, .5)`;
    } : null;
    const same = state.token === null ? [] : [...labels.keys()].filter((token) => labels[token] === labels[state.token]);
    state.cell = X.paint(canvas, state.image, layer, null, [[same, "#ffffff", 1], [state.token === null ? [] : [state.token], QUERY, 3]], tint);
    if (state.token === null) return;
    X.byId("image-says").replaceChildren(`${tokenText(layer, state.token)} is in `,
      X.el("strong", {}, X.fullName(`${layer.layer}.${labels[state.token]}`)), `, with ${same.length - 1} other tokens of this image.`);
    heads();
  };

  const choose = (token) => {
    if (token === state.token) return;
    state.token = token;
    draw();
  };

  const load = async () => {
    const { at, layer } = here();
    state.image = await X.ready(at);
    const total = layer.grid[0] * layer.grid[1];
    if (state.token === null || state.token >= layer.tokens) state.token = layer.prefix + Math.floor(total / 2 - layer.grid[1] / 2);
    X.byId("image-prefix").replaceChildren(...[...Array(layer.prefix).keys()].map((token) => X.el("button", { type: "button", onclick: () => choose(token) }, tokenText(layer, token))));
    draw();
  };

  canvas.addEventListener("pointermove", (event) => pointed(event));
  canvas.addEventListener("pointerdown", (event) => pointed(event));
  const pointed = (event) => {
    const { layer } = here();
    const bounds = canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - bounds.left) / bounds.width) * layer.grid[1]);
    const row = Math.floor(((event.clientY - bounds.top) / bounds.height) * layer.grid[0]);
    if (row < 0 || column < 0 || row >= layer.grid[0] || column >= layer.grid[1]) return;
    choose(layer.prefix + row * layer.grid[1] + column);
  };
  canvas.addEventListener("keydown", (event) => {
    const { layer } = here();
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -layer.grid[1], ArrowDown: layer.grid[1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = state.token + step;
    if (next >= layer.prefix && next < layer.tokens) choose(next);
  });
  for (const each of Object.values(pick)) each.addEventListener("change", load);
  X.onChange(draw);
  load();
};
