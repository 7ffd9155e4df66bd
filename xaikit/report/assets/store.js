// What the reader did: names, merges, pins, hidden nodes, the slider. Kept in the browser, in the
// address, and in saved files; whatever comes from one of those is checked before it is used.
X.store = { names: {}, groups: [], pinned: [], hidden: [], selected: [], shown: null };
X.listeners = [];
X.onChange = (listener) => X.listeners.push(listener);

const KEY = `xaikit-report:${X.data.run}`;
const TEXT = 80;

// No control characters, and none that turn the direction of what follows.
const text = (value) => (typeof value === "string" ? value.replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]/gu, "").slice(0, TEXT) : "");
X.cleanText = text;
const isId = (value) => typeof value === "string" && X.clusters.has(value);
const isNode = (value) => typeof value === "string" && value.length < 60;

X.clean = (found) => {
  const view = { names: {}, groups: [], pinned: [], hidden: [], selected: [], shown: null };
  if (!found || typeof found !== "object") return view;
  for (const [id, name] of Object.entries(found.names || {})) if (isId(id) && text(name)) view.names[id] = text(name);
  const taken = new Set();
  for (const group of Array.isArray(found.groups) ? found.groups : []) {
    const members = (Array.isArray(group?.members) ? group.members : []).filter((id) => isId(id) && !taken.has(id));
    if (members.length < 2) continue;
    members.forEach((id) => taken.add(id));
    view.groups.push({ id: `g${view.groups.length + 1}`, name: text(group.name), members });
  }
  for (const list of ["pinned", "hidden", "selected"]) {
    view[list] = [...new Set((Array.isArray(found[list]) ? found[list] : []).filter(isNode))];
  }
  if (Number.isInteger(found.shown) && found.shown > 0) view.shown = found.shown;
  return view;
};

const encode = (view) => btoa(String.fromCharCode(...new TextEncoder().encode(JSON.stringify(view))))
  .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const decode = (coded) => {
  const bytes = Uint8Array.from(atob(coded.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
};

X.readView = () => {
  try {
    const coded = new URLSearchParams(location.hash.slice(1)).get("view");
    if (coded) return X.clean(decode(coded));
    return X.clean(JSON.parse(localStorage.getItem(KEY)));
  } catch {
    return X.clean(null);
  }
};

X.keepView = () => {
  const view = X.store;
  const blank = JSON.stringify(view) === JSON.stringify(X.clean(null));
  try {
    history.replaceState(null, "", blank ? location.pathname + location.search : `#view=${encode(view)}`);
    localStorage.setItem(KEY, JSON.stringify(view));
  } catch {
    // A browser may refuse both for a file; the page works without.
  }
};

X.change = (edit, source = null) => {
  if (edit) edit(X.store);
  X.keepView();
  for (const listener of X.listeners) listener(source);
};

// A first look at a large circuit is at its first edges.
X.shown = () => Math.min(X.store.shown || 40, X.data.edges.length);
X.groupOf = (id) => X.store.groups.find((group) => group.members.includes(id));
X.plainName = (id) => {
  const cluster = X.clusters.get(id);
  if (!cluster) return id;
  const several = X.data.layers.length > 1;
  return several ? `cluster ${cluster.layer}.${cluster.cluster}` : `cluster ${cluster.cluster}`;
};
// Beside a cluster's name: what it is of prefix tokens, or the word that passed its check on other
// images.
X.tagOf = (id) => {
  const cluster = X.clusters.get(id);
  if (!cluster || X.store.names[id]) return "";
  if (cluster.kind) return cluster.kind;
  return cluster.words && cluster.words.holds ? `“${cluster.words.word}”` : "";
};
X.nameOf = (id) => X.store.names[id] || X.plainName(id);
X.fullName = (id) => {
  const tag = X.tagOf(id);
  if (!tag) return X.nameOf(id);
  return X.clusters.get(id).kind ? `${X.nameOf(id)} (${tag})` : `${X.nameOf(id)} ${tag}`;
};
X.groupName = (group) => group.name || group.members.map(X.nameOf).join(" + ");

// Pins and hidden nodes are kept by the clusters they are of, whose groups come, go and change
// their numbers; what a reader pinned stays pinned in a group, a group is hidden where all of it is.
const regroup = (store, edit) => {
  const parts = (key) => {
    const [name, role] = key.split("|");
    const group = store.groups.find((each) => each.id === name);
    return (group ? group.members : [name]).map((id) => (role ? `${id}|${role}` : id));
  };
  const before = { pinned: store.pinned.flatMap(parts), hidden: new Set(store.hidden.flatMap(parts)) };
  edit();
  store.groups.forEach((group, at) => { group.id = `g${at + 1}`; });
  const now = (key) => {
    const [id, role] = key.split("|");
    const name = X.groupOf(id)?.id || id;
    return role ? `${name}|${role}` : name;
  };
  store.pinned = [...new Set(before.pinned.map(now))];
  store.hidden = [...new Set([...before.hidden].map(now))].filter((key) => parts(key).every((part) => before.hidden.has(part)));
  store.selected = [];
};

X.merge = (members, name = "") => X.change((store) => regroup(store, () => {
  const all = new Set(members);
  for (const group of store.groups) {
    if (!group.members.some((id) => all.has(id))) continue;
    group.members.forEach((id) => all.add(id));
    name = name || group.name;
  }
  store.groups = store.groups.filter((group) => !group.members.some((id) => all.has(id)));
  store.groups.push({ id: "", name, members: [...all] });
}));

X.split = (id) => X.change((store) => regroup(store, () => {
  store.groups = store.groups.filter((group) => group.id !== id);
}));
