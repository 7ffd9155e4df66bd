X.startClusters = () => {
  const cards = [...document.querySelectorAll(".card")];
  const layerPick = X.byId("cluster-layer");
  const search = X.byId("cluster-search");
  const chosen = new Set();

  const show = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const card of cards) {
      const id = card.dataset.cluster;
      const here = !layerPick || wanted || card.dataset.layer === layerPick.value;
      const found = `${X.nameOf(id)} ${X.plainName(id)} ${id} ${card.querySelector(".words")?.textContent || ""}`;
      card.hidden = !(here && (!wanted || found.toLowerCase().includes(wanted)));
    }
  };

  for (const card of cards) {
    const id = card.dataset.cluster;
    card.querySelector(".swatch").style.background = X.colour(X.clusters.get(id).cluster);
    const raster = card.querySelector(".raster");
    if (raster) X.drawRaster(raster, X.clusters.get(id).where);
    card.querySelector(".rename").addEventListener("change", (event) => X.change((store) => {
      const name = X.cleanText(event.target.value.trim());
      if (name) store.names[id] = name;
      else delete store.names[id];
    }));
    card.querySelector(".select").addEventListener("change", (event) => {
      if (event.target.checked) chosen.add(id);
      else chosen.delete(id);
    });
  }

  const groups = () => {
    X.byId("groups").replaceChildren(...X.store.groups.map((group) => X.el("li", {},
      X.el("input", {
        type: "text", maxlength: 80, value: group.name, placeholder: "name of the merged clusters",
        "aria-label": "Name of the merged clusters",
        onchange: (event) => X.change(() => { group.name = X.cleanText(event.target.value.trim()); }),
      }),
      X.el("span", { class: "muted" }, group.members.map(X.nameOf).join(" + ")),
      X.el("button", { type: "button", onclick: () => X.split(group.id) }, "Split"))));
  };

  X.byId("merge").addEventListener("click", () => {
    if (chosen.size < 2) {
      X.byId("merge-note").textContent = "Tick two or more clusters first.";
      return;
    }
    X.merge([...chosen]);
    chosen.clear();
    X.byId("merge-note").textContent = "Merged: one node in the circuit below.";
  });
  search.addEventListener("input", show);
  layerPick?.addEventListener("change", show);

  X.onChange(() => {
    for (const card of cards) {
      const field = card.querySelector(".rename");
      if (document.activeElement !== field) field.value = X.store.names[card.dataset.cluster] || "";
      card.querySelector(".select").checked = chosen.has(card.dataset.cluster);
    }
    groups();
    show();
  });
};

X.drawRaster = (canvas, where) => {
  const [rows, columns] = where.grid;
  canvas.width = columns;
  canvas.height = rows;
  const values = X.unpack(where);
  const top = Math.max(...values, 1e-9);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  values.forEach((value, at) => {
    const part = value / top;
    picture.data.set([20 + 235 * part, 24 + 160 * part, 70 * (1 - part) + 30, 255], 4 * at);
  });
  context.putImageData(picture, 0, 0);
  canvas.title = `at most ${X.percent(where.hi)} of the images at one place`;
};

X.goToCluster = (id) => {
  const card = document.querySelector(`.card[data-cluster="${CSS.escape(id)}"]`);
  const layerPick = X.byId("cluster-layer");
  if (!card) return;
  if (layerPick && layerPick.value !== card.dataset.layer) {
    layerPick.value = card.dataset.layer;
    layerPick.dispatchEvent(new Event("change"));
  }
  document.querySelectorAll(".card.target").forEach((other) => other.classList.remove("target"));
  card.classList.add("target");
  card.scrollIntoView({ block: "center" });
};
