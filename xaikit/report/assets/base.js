"use strict";
// Everything of the page hangs on one name; text from a run only ever becomes text nodes.
const X = { data: JSON.parse(document.getElementById("data").textContent) };

X.byId = (id) => document.getElementById(id);
X.SVG = "http://www.w3.org/2000/svg";

X.el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  X.set(node, attributes, children);
  return node;
};

X.svg = (tag, attributes = {}, ...children) => {
  const node = document.createElementNS(X.SVG, tag);
  X.set(node, attributes, children);
  return node;
};

X.set = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
};

// `packed` numbers: bytes between a least and a largest value.
X.unpack = (found) => {
  if (!found) return null;
  const text = atob(found.u8);
  const values = new Float32Array(text.length);
  const step = (found.hi - found.lo) / 255;
  for (let i = 0; i < text.length; i++) values[i] = found.lo + step * text.charCodeAt(i);
  return values;
};

X.unpackLabels = (found) => {
  const text = atob(found.u16);
  const values = new Uint16Array(text.length / 2);
  for (let i = 0; i < values.length; i++) values[i] = text.charCodeAt(2 * i) + 256 * text.charCodeAt(2 * i + 1);
  return values;
};

X.once = (make) => {
  const kept = new Map();
  return (...key) => {
    const name = key.join("|");
    if (!kept.has(name)) kept.set(name, make(...key));
    return kept.get(name);
  };
};

X.layer = (layer) => X.data.layers.find((each) => each.layer === layer);
X.values = X.once((layer, what, head) => X.unpack(X.layer(layer)[what][head]));
X.untested = X.once((layer) => X.unpack(X.layer(layer).untested));
X.labels = X.once((layer) => X.unpackLabels(X.layer(layer).labels));
X.labelsOf = (layer, image) => {
  const tokens = X.layer(layer).tokens;
  return X.labels(layer).subarray(image * tokens, (image + 1) * tokens);
};
X.logits = X.once((layer, image, head) => {
  const found = X.layer(layer).logits;
  return found && found[image] ? X.unpack(found[image][head]) : null;
});
X.positionMean = X.once((layer, head) => {
  const found = X.layer(layer).positionMean;
  return found ? X.unpack(found[head]) : null;
});

// matplotlib's tab20, dark shades first, as in the overview picture.
const TAB20 = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
  "#aec7e8", "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94", "#f7b6d2", "#c7c7c7", "#dbdb8d", "#9edae5"];
X.colour = (cluster) => TAB20[cluster % 20];
X.rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

X.clusters = new Map(X.data.clusters.map((cluster) => [cluster.id, cluster]));
X.thumb = (id) => {
  const image = document.querySelector(`.card[data-cluster="${CSS.escape(id)}"] .tile img`);
  return image ? image.src : null;
};

X.signed = (value, digits = 3) => (value === null ? "" : (value >= 0 ? "+" : "−") + Math.abs(value).toFixed(digits));
X.probability = (value) => {
  if (value === null || value === undefined) return "";
  return value >= 0.001 || value === 0 ? value.toFixed(3) : value.toExponential(0);
};
X.percent = (value, digits = 1) => (100 * value).toFixed(digits) + "%";
X.small = (value) => (value === null || value === undefined ? "" : Math.abs(value) >= 0.001 || value === 0 ? value.toFixed(4) : value.toExponential(1));

X.options = (select, pairs) => {
  select.replaceChildren(...pairs.map(([value, text]) => X.el("option", { value }, text)));
};

X.softmax = (values) => {
  let top = -Infinity;
  for (const value of values) top = Math.max(top, value);
  const found = Float32Array.from(values, (value) => Math.exp(value - top));
  let total = 0;
  for (const value of found) total += value;
  return found.map((value) => value / total);
};

X.save = (name, blob) => {
  const link = X.el("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
