// Images with values, outlines and tints by patch.
const QUERY = "#2f8fff";
const KEYS = "#ff8c1a";

X.picture = X.once((at) => {
  const record = X.data.images[at];
  if (!record.src) return null;
  const image = new Image();
  image.src = record.src;
  return image;
});

X.ready = async (at) => {
  const image = X.picture(at);
  if (image) await image.decode().catch(() => {});
  return image;
};

// Draws an image with a value for each patch laid over it, and outlined patches.
X.paint = (canvas, image, layer, values, marks = [], tint = null) => {
  const [rows, columns] = layer.grid;
  const cell = Math.max(4, Math.round(336 / Math.max(rows, columns)));
  // Drawn scenes of few pixels are to be seen pixel by pixel; photos are not.
  const few = Boolean(image && image.naturalWidth && image.naturalWidth <= 96);
  canvas.style.imageRendering = few ? "pixelated" : "auto";
  canvas.width = columns * cell;
  canvas.height = rows * cell;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = !few;
  context.fillStyle = "#888";
  context.fillRect(0, 0, canvas.width, canvas.height);
  if (image && image.naturalWidth) context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const box = (token) => {
    const patch = token - layer.prefix;
    return [(patch % columns) * cell, Math.floor(patch / columns) * cell];
  };
  if (values) {
    let top = 1e-9;
    for (let token = layer.prefix; token < layer.tokens; token++) top = Math.max(top, values[token]);
    context.fillStyle = "rgba(10, 12, 20, .55)";
    context.fillRect(0, 0, canvas.width, canvas.height);
    for (let token = layer.prefix; token < layer.tokens; token++) {
      const part = values[token] / top;
      context.fillStyle = `rgba(${255}, ${Math.round(120 + 130 * part)}, ${Math.round(60 + 60 * part)}, ${(0.9 * part).toFixed(3)})`;
      context.fillRect(...box(token), cell, cell);
    }
  }
  if (tint) {
    for (let token = layer.prefix; token < layer.tokens; token++) {
      context.fillStyle = tint(token);
      context.fillRect(...box(token), cell, cell);
    }
  }
  for (const [tokenList, colour, width, inset = 0] of marks) {
    for (const token of tokenList) {
      if (token < layer.prefix) continue;
      const [x, y] = box(token);
      // A patch may be both query and key: the inset keeps both outlines in sight.
      const side = cell - 3 - 2 * inset;
      for (const [lines, ink] of [[width + 2, "rgba(0, 0, 0, .6)"], [width, colour]]) {
        context.lineWidth = lines;
        context.strokeStyle = ink;
        context.strokeRect(x + 1.5 + inset, y + 1.5 + inset, side, side);
      }
    }
  }
  return cell;
};
