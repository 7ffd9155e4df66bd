// Elements side by side that lie on one another, as the starts of their markup.
() => {
  const found = [];
  const shown = (node) => node.getClientRects().length && getComputedStyle(node).position !== "absolute";
  const parents = "main, section, .tools, .card, .card header, .about, .facts, .columns, .panel, .one, .graph-area, .bar";
  for (const parent of document.querySelectorAll(parents)) {
    const boxes = [...parent.children].filter(shown).map((node) => [node, node.getBoundingClientRect()]);
    boxes.forEach(([a, x], at) => boxes.slice(at + 1).forEach(([b, y]) => {
      const wide = Math.min(x.right, y.right) - Math.max(x.left, y.left);
      const high = Math.min(x.bottom, y.bottom) - Math.max(x.top, y.top);
      if (wide > 1 && high > 1) found.push(`${a.outerHTML.slice(0, 80)} / ${b.outerHTML.slice(0, 80)}`);
    }));
  }
  return found;
}
